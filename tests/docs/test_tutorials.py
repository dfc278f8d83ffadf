"""Each tutorial, typed as it stands: every fenced command runs, in order, in one folder; the others can be parsed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import csa_deploy
from tests.cli.test_commands_in_text import problem

PAGES = sorted((Path(csa_deploy.__file__).parents[1] / "docs" / "tutorials").glob("*.md"))
# What a page says that comes out.
SAYS = {
    "classify": ("drive-os-6", "INCOMPLETE"),
    "segment": ("mean IoU",),
    "detect": ("mAP",),
    "drive-target": ("allowed", "trtexec"),
    "ci-gate": ("red: exit code 6", "accepted", "<testsuite"),
    "train": ("trained/model_ema.safetensors",),
}


def fenced(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_six_tutorials_of_the_site_are_there() -> None:
    assert {page.stem for page in PAGES} == SAYS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_runs_as_it_is_printed(page: Path, tmp_path: Path) -> None:
    script = "\n".join(fenced(page))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    for words in SAYS[page.stem]:
        assert words in said, (words, said[-3000:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_is_short_and_leads_on(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80 and "](../" in text
    for words in re.findall(r"(?m)^    csa-deploy (.+)$", text):
        assert not problem(words, mention=False), words
