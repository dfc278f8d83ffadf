"""Every fenced block of a page can be read by the program that it is for; pages that run have tests of their own."""

from __future__ import annotations

import ast
import csv
import doctest
import json
import re
import subprocess
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import csa_deploy

ROOT = Path(csa_deploy.__file__).parents[1]
FOLDERS = ("docs", "examples", "models", "docker", "benchmarks")
PAGES = sorted([*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))])


def shell(text: str) -> None:
    """Bash reads it without running it."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, capture_output=True)


def python(text: str) -> None:
    """Code, or what a session showed."""
    examples = doctest.DocTestParser().get_examples(text)
    ast.parse("".join(example.source for example in examples) if examples else text)


READERS: dict[str, Callable[[str], Any]] = {
    "python": python,
    "yaml": yaml.safe_load,
    "json": json.loads,
    "toml": tomllib.loads,
    "csv": lambda text: list(csv.reader(text.splitlines(), strict=True)),
    "sh": shell,
    "bash": shell,
    "": str,  # what a program printed, or commands, which tests/cli/test_commands_in_text.py reads
}


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block, also of those inside a list."""
    found = re.findall(r"(?ms)^( *)```([\w-]*)[^\n]*\n(.*?)^\1```", text)
    return [(language, textwrap.dedent(body)) for _, language, body in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_can_be_read(page: Path) -> None:
    for language, body in blocks(page.read_text(encoding="utf-8")):
        assert language in READERS, f"{page}: nothing reads {language!r}"
        READERS[language](body)


@pytest.mark.parametrize(
    ("language", "wrong"),
    [("python", "def f(:"), ("yaml", "a: [1"), ("json", "{a}"), ("toml", "a = "), ("sh", "if true"), ("csv", '"a" b')],
)
def test_a_wrong_block_is_found(language: str, wrong: str) -> None:
    ((found, body),) = blocks(f"- text\n\n  ```{language}\n  {wrong}\n  ```\n")
    assert found == language
    with pytest.raises((SyntaxError, ValueError, yaml.YAMLError, csv.Error, subprocess.CalledProcessError)):
        READERS[language](body)
