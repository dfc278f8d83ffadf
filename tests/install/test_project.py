"""What the project says of itself agrees with itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "tests.yml"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_versions_of_python_that_are_promised_are_those_that_are_tested() -> None:
    promised = re.findall(r":: Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert yaml.safe_load(WORKFLOW.read_text())["jobs"]["fast"]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in promised


def test_the_workflow_is_one_and_starts_what_is_there() -> None:
    tool = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("check-jsonschema is not installed")
    done = subprocess.run(
        [tool, "--builtin-schema", "vendor.github-workflows", WORKFLOW], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    started = [step["run"].split()[:2] for job in jobs for step in job["steps"] if "run" in step]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, *target in started:
        own = program in ("python", "pipx") or program.startswith(".venv/") or (ROOT / program).is_file()
        assert target[0] in targets if program == "make" else own


def test_every_dependency_has_a_tested_version() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    }
    asked = [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["torch"],
        *PROJECT["optional-dependencies"]["dev"],
    ]
    names = {re.split(r"[\[<>=~! ]", line)[0].lower().replace("_", "-") for line in asked}
    assert names - pinned <= {"csa-deploy"}
