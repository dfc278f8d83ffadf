"""Runs what only a GPU can show, with the packages at hand: ``python tests/gpu/run.py [pytest's arguments]``.

Needs no network and no installation: a source tree is taken as it is. The exit code is pytest's, and 3 when nothing
could run, with the reasons above it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOTHING_RAN = 3
SHOWN = ("torch", "cuda-bindings", "pycuda", "tensorrt", "tensorrt-rtx", "polygraphy", "onnxruntime-gpu", "onnxruntime")


def main(arguments: list[str]) -> int:
    """Show what is here, run, and say whether anything ran."""
    print(f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in SHOWN), sep="\n")
    _show_gpu()
    counter = Counter()
    with source_tree():
        code = int(pytest.main([str(HERE), "-rs", "-p", "no:cacheprovider", *arguments], plugins=[counter]))
    if code == 0 and counter.ran == 0:
        print(f"nothing ran: {counter.skipped} tests were skipped, by the reasons above")
        return NOTHING_RAN
    return code


class Counter:
    """A pytest plugin: how many tests ran, and how many were skipped."""

    def __init__(self) -> None:
        self.ran = self.skipped = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.ran += report.when == "call" and not report.skipped
        self.skipped += report.skipped


@contextlib.contextmanager
def source_tree() -> Iterator[None]:
    """Make the packages importable, here and in child processes, with the networks' names: nothing is installed."""
    if _version("csa-deploy") != "-":
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        write_metadata(Path(folder))
        before = os.environ.get("PYTHONPATH", "")
        added = [folder, str(ROOT)]
        os.environ["PYTHONPATH"] = os.pathsep.join([*added, *filter(None, [before])])
        sys.path[:0] = added
        importlib.invalidate_caches()
        yield


def write_metadata(folder: Path) -> None:
    """What an installation would add: the package ``csa_models``, and the names of its networks."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (folder / "csa_models").symlink_to(ROOT / "models", target_is_directory=True)
    info = folder / "csa_deploy-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: csa-deploy\nVersion: 0\n", encoding="utf-8")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def _show_gpu() -> None:
    if shutil.which("nvidia-smi") is None:
        print("nvidia-smi is not here")
        return
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
    print(subprocess.run(["nvidia-smi", query, "--format=csv"], capture_output=True, text=True).stdout.strip())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
