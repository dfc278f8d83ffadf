"""A host and a target of the safety flow: two folders of this machine, a real sshd between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

TRTEXEC = Path(__file__).parents[1] / "trtexec_standin.py"
RUNNER = TRTEXEC.with_name("trtexec_safe_standin.py")

# What stands for NVIDIA's program on the target: it times for $TUNES seconds and leaves what it was told.
TUNER = """#!/bin/sh
echo "$1" >> "{folder}/tuned"
if [ -f "{folder}/slow" ]; then echo $$ > "{folder}/tuner.pid"; sleep 300; fi
[ -f "{folder}/broken" ] && exit 9
echo "42 kernels"
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def library(path: Path, *needs: Path) -> Path:
    """A real shared library, which needs others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".c")
    source.write_text("int standin(void) { return 0; }\n")
    words = ["gcc", "-shared", "-fPIC", "-o", str(path), str(source), f"-Wl,-soname,{path.name}", "-Wl,--no-as-needed"]
    subprocess.run([*words, *map(str, needs)], check=True)
    source.unlink()
    return path


@dataclass
class Thor:
    """A target that a host builds for.

    Attributes:
        folder: of the target: bin, lib, work, and the files that steer its tuner.
        host: folder of the host: its trtexec and libraries.
        file: the target's YAML file.
    """

    folder: Path
    host: Path
    file: Path

    def say(self, text: str) -> None:
        """Add lines to the target's file."""
        self.file.write_text(self.file.read_text() + text)

    def without(self, key: str) -> None:
        """Take a key out of the target's file."""
        lines = self.file.read_text().splitlines(keepends=True)
        self.file.write_text("".join(line for line in lines if not line.startswith(f"{key}:")))

    @property
    def work(self) -> list[str]:
        """What is left in the target's workdir."""
        return sorted(path.name for path in (self.folder / "work").iterdir())


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TensorRT's libraries of a host, and the driver's in a folder of its own, as a host without one lacks it."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler on this machine")
    folder = tmp_path_factory.mktemp("libraries")
    driver = library(folder / "driver" / "libcuda.so.1")
    library(folder / "trt" / "libnvinfer_safe.so", driver)
    library(folder / "trt" / "libnvinfer_checker_shared.so")
    return folder


@pytest.fixture
def thor(sshd, libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Thor]:
    """Makes a target of a version with a host of one."""

    def make(version: str, host_version: str | None = None) -> Thor:
        folder, host = tmp_path / "thor", tmp_path / "host"
        folder.mkdir()
        (folder / "work").mkdir(mode=0o700)
        program(folder / "bin" / "tuner", TUNER.format(folder=folder))
        (folder / "lib").mkdir()
        steered = f"[ -f {folder}/environment ] && . {folder}/environment"
        runs = f'exec {sys.executable} {RUNNER} {version} "$@"'
        program(folder / "safe" / "trtexec_safe", f"#!/bin/sh\n{steered}\n{runs}\n")
        builder = f'#!/bin/sh\nexec {sys.executable} {TRTEXEC} {host_version or version} "$@"\n'
        program(host / "trtexec", builder)
        found = f"{libraries}/trt:{libraries}/driver"
        file = tmp_path / "thor.yaml"
        file.write_text(
            f"host: 127.0.0.1\nport: {sshd.port}\nuser: {os.environ.get('USER') or 'root'}\n"
            f"ssh_config: {sshd.folder}/ssh_config\nplatform: drive-thor\nbuild: host\nworkdir: {folder}/work\n"
            f"host_trtexec: {host}/trtexec\nhost_environment: {{LD_LIBRARY_PATH: '{found}'}}\n"
            f"remote_exec_path: {folder}/bin\nremote_lib_path: {folder}/lib\ntrtexec_safe: {folder}/safe/trtexec_safe\n"
        )
        monkeypatch.setenv("STANDIN_SSH_CONFIG", f"{sshd.folder}/ssh_config")
        monkeypatch.setenv("STANDIN_LIBRARIES", "1")
        return Thor(folder, host, file)

    return make
