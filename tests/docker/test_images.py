"""The images cannot be built by the tests; what can be checked of them is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import Misfits

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def tool(name: str) -> str:
    """A program of the extra dev, in the environment of the tests or on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return shutil.which(name, path=path) or pytest.skip(f"no {name} here: pip install 'csa-deploy[dev]'")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pinned_and_not_root(path: Path) -> None:
    text = path.read_text()
    image = re.search(r"^FROM (\S+)", text, re.MULTILINE)
    assert image
    assert re.search(r":[\w.-]*\d+\.\d+", image[1]), "a base image has an exact version"
    assert ":latest" not in text
    after = text[text.index("\nUSER ") :]
    assert after.startswith("\nUSER 1000\n")
    assert "RUN" not in after
    for name in re.findall(r"^COPY (?!\. )(\S+)", text, re.MULTILINE):
        assert (ROOT / name).exists()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hadolint_is_content(path: Path) -> None:
    done = subprocess.run([tool("hadolint"), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_is_not_content_with_anything(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN apt-get install curl\n")
    done = subprocess.run([tool("hadolint"), str(bad)], capture_output=True, text=True, check=False)
    assert "DL3006" in done.stdout


def test_compose_fits_its_schema(tmp_path: Path, misfits: Misfits) -> None:
    """The Compose Specification's schema, as check-jsonschema carries it."""
    assert misfits("vendor.compose-spec", ROOT / "docker" / "compose.yaml") == ""
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((ROOT / "docker" / "compose.yaml").read_text().replace("working_dir:", "workingdir:"))
    assert "workingdir" in misfits("vendor.compose-spec", wrong)


def test_every_extra_that_the_images_install_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for path in FILES:
        for extra in re.findall(r'"\.\[(\w+)\]"', path.read_text()):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


def test_compose_names_files_and_gpu() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    assert set(services) == {"cpu", "tensorrt10", "tensorrt11"}
    for name, service in services.items():
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert service["user"] == "1000:1000"
        gpu = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert bool(gpu) == (name != "cpu")
        arguments = service["build"].get("args", {})
        declared = (ROOT / service["build"]["dockerfile"]).read_text()
        assert all(f"ARG {argument}=" in declared for argument in arguments)
