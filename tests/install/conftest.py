"""The wheel, and environments in which nothing can be imported but it and what it declares."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Environment:
    """An environment of its own; ``command`` is its ``csa-deploy``."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, cwd: Path, *words: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """A program of the environment (``python`` or ``csa-deploy``) in a folder, with nothing of this one."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "COV_"))}
        environment |= {"OMP_NUM_THREADS": "2", "COLUMNS": "200"}
        name, *arguments = map(str, words)
        return subprocess.run(
            [self.folder / "bin" / name, *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, made from a copy of what it is made of; setuptools is the one at hand."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("csa_deploy", "models"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-q", "-w", folder, folder / "source"], check=True, capture_output=True, timeout=120)
    (made,) = folder.glob("*.whl")
    return made


def _declared(wheel: Path, extras: tuple[str, ...]) -> set[str]:
    """Distributions that the wheel asks for with these extras, and what those ask for, as far as they are here."""
    (itself,) = metadata.MetadataPathFinder.find_distributions(metadata.DistributionFinder.Context(path=[str(wheel)]))
    found: set[str] = set()
    waiting = [(line, {"", *extras}) for line in itself.requires or []]
    while waiting:
        line, asked = waiting.pop()
        need = Requirement(line)
        if need.name not in found and (not need.marker or any(need.marker.evaluate({"extra": e}) for e in asked)):
            found.add(need.name)
            waiting += [(inner, {"", *need.extras}) for inner in metadata.requires(need.name) or []]
    return found


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """``environment("torch", plus=("mlxtend",))``: the wheel, installed by pip, and links to what it declares."""

    def make(*extras: str, plus: tuple[str, ...] = ()) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder, with_pip=False, symlinks=True)
        (site,) = (folder / "lib").glob("python*/site-packages")
        for name in (*_declared(wheel, extras), *plus):
            for file in metadata.distribution(name).files or []:
                top = file.parts[0]
                if top != ".." and not (site / top).exists():
                    (site / top).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python"]
        install = [*pip, "install", "-q", "--no-deps", "--no-index", wheel]
        subprocess.run(install, check=True, capture_output=True, timeout=120)
        return Environment(folder)

    return make
