"""Install NVIDIA's safety-scope validator into a directory of its own, pinned by hash.

TensorRT-RTX 1.4.0.76 is the last release whose builder still validates the safety scope, while 1.7 is the
better builder; both install the same Python packages, so the validator never shares an environment with the
builder. Source of the hashes: the package index's file listing of that release.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.records.check import VALIDATOR_VERSION as VERSION
from csa_deploy.results import Stored

INSTALL_COMMAND = "csa-deploy doctor --install-validator"

_LIBS = "736d89b60514f997fc23c729534f2721c01b4791d8b88ae75a4c1f8e9fa4eda6"
_BINDINGS = {
    "cp310": "9fc73077273edc4b464a3efaeb947fded70f3fb6e6eef9bbce8bd0b4f1f88af5",
    "cp311": "c021f39457a45b1614973736c3346354d8a45a3d864de9a082c125297d3b8120",
    "cp312": "df369a945733c2842cff2678bf9a4e54677f8eb4a7d48030a306e201e732d9a2",
    "cp313": "0c06671d018e7ba3ad90d0bf8ede6b025fda9f8d77c244a0d912321a976d01c7",
}
_DIST_INFO = (f"tensorrt_rtx_cu13_libs-{VERSION}.dist-info", f"tensorrt_rtx_cu13_bindings-{VERSION}.dist-info")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValidatorStatus(Stored):
    """Whether the validator is installed, told from the file names alone (nothing is imported)."""

    installed: bool
    directory: str
    version: str
    detail: str


def python_tag() -> str:
    """Return the running interpreter's wheel tag, such as ``cp311``."""
    return f"cp{sys.version_info.major}{sys.version_info.minor}"


def validator_directory(directory: Path | None = None) -> Path:
    """Return where the validator lives: the argument, ``$CSA_DEPLOY_VALIDATOR``, or the user's cache directory."""
    if directory is not None:
        return directory
    if override := os.environ.get("CSA_DEPLOY_VALIDATOR"):
        return Path(override)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "csa-deploy" / f"validator-{VERSION}-{python_tag()}"


def validator_status(directory: Path | None = None) -> ValidatorStatus:
    """Say whether the validator is installed, without importing anything of it."""
    where = validator_directory(directory)
    missing = [name for name in _DIST_INFO if not (where / name / "METADATA").is_file()]
    if missing:
        detail = f"not installed: run {INSTALL_COMMAND}"
        return ValidatorStatus(False, str(where), VERSION, detail)
    return ValidatorStatus(
        True, str(where), VERSION, f"TensorRT-RTX {VERSION}, used for its safety-scope validation only"
    )


def install_validator(directory: Path | None = None) -> Path:
    """Install the validator once; later calls return at once.

    The wheels are downloaded (about 100 MB), compared with the pinned hashes, unpacked beside the target and
    renamed into place, so that a killed installation leaves no half-filled directory under the final name.

    Returns:
        The directory that holds the validator.

    Raises:
        EnvironmentLacksError: no wheel for this interpreter, no pip, no network, or a hash that differs.
    """
    where = validator_directory(directory)
    if validator_status(where).installed:
        return where
    tag = python_tag()
    if tag not in _BINDINGS or sys.platform != "linux":
        raise EnvironmentLacksError(
            f"NVIDIA's validator (TensorRT-RTX {VERSION}) has no wheel for {tag} on {sys.platform}",
            fix=f"use Linux with CPython {', '.join(_BINDINGS)}",
        )
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{where.name}-", dir=where.parent))
    except OSError as error:
        raise EnvironmentLacksError(
            f"cannot create the validator's directory {where}: {error.strerror}",
            fix="set CSA_DEPLOY_VALIDATOR to a directory that can be written",
        ) from error
    try:
        _pip_install(scratch, tag)
        _move_into_place(scratch, where)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return where


def requirements(tag: str) -> str:
    """Return the pinned requirements of one interpreter in pip's hash-checking form."""
    return (
        f"tensorrt-rtx-cu13-libs=={VERSION} --hash=sha256:{_LIBS}\n"
        f"tensorrt-rtx-cu13-bindings=={VERSION} --hash=sha256:{_BINDINGS[tag]}\n"
    )


def _pip_install(scratch: Path, tag: str) -> None:
    pins = scratch / "requirements.txt"
    pins.write_text(requirements(tag), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--target", str(scratch / "site"), "-r", str(pins)]
    log.info("installing TensorRT-RTX %s for its validator (about 100 MB to download)", VERSION)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()] or ["pip gave no reason"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise EnvironmentLacksError(
            f"pip could not install TensorRT-RTX {VERSION}: {reason}",
            fix=f"check the network and that pip works here, then run {INSTALL_COMMAND} again",
        )


def _move_into_place(scratch: Path, where: Path) -> None:
    try:
        (scratch / "site").rename(where)
    except OSError as error:
        # Another process may have finished the same installation first; its result is as good as ours.
        if not validator_status(where).installed:
            raise EnvironmentLacksError(
                f"cannot put the validator into {where}: {error.strerror}",
                fix="remove that directory, or set CSA_DEPLOY_VALIDATOR to another one",
            ) from error
