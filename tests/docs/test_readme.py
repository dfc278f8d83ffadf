"""README.md: its code runs, its links lead somewhere, its figures are the package's."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import csa_deploy
from csa_deploy.restricted.schema import scopes
from tools.site.recording import COMMAND, terminal

ROOT = Path(csa_deploy.__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_one_screen() -> None:
    assert len(TEXT.splitlines()) < 70


@pytest.mark.slow
def test_the_lines_of_python_run() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(code, {})
    assert "drive-os-6 allowed" in said.getvalue() and "fp16" in said.getvalue()


def test_its_commands_and_links_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"(?m)^{name}:", makefile) for name in re.findall(r"make (\w+)", TEXT))
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert len(links) > 8 and not [link for link in links if not (ROOT / link).exists()]
    assert re.findall(r"(\d+) scopes", TEXT) == [str(len(scopes()))]


def test_the_recording_is_of_the_command_that_is_shown() -> None:
    assert COMMAND in (ROOT / "docs" / "pictures" / "demo.svg").read_text()
    made = terminal("x", ["✓ a <b>", "c" * 200])
    assert "a &lt;b&gt;" in made and "c" * 200 not in made and "…" in made
