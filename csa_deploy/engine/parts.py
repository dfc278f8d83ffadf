"""An engine of several files: what belongs to it is hashed, moved and refused with it.

A safety engine may come with a companion library (TensorRT 11.3 and later), the text of its kernels and plugin
libraries. They are of one build: parts of two builds may load and compute something else.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from csa_deploy.errors import UsageError
from csa_deploy.records.build import Part, Role
from csa_deploy.workspace import sha256_of

SUFFIX = ".parts"


def parts_folder(engine: Path) -> Path:
    """Where an engine's parts lie."""
    return engine.with_name(engine.name + SUFFIX)


def gather_parts(folder: Path, files: Iterable[tuple[Role, Path, str]]) -> tuple[Part, ...]:
    """Copy files into a new folder; :func:`place_parts` then puts it beside the engine.

    Args:
        folder: made where there are files.
        files: role, file, and the creators of a plugin library.

    Raises:
        UsageError: two files of one name.
        OSError: they cannot be copied.
    """
    found: list[Part] = []
    for role, path, names in files:
        folder.mkdir(exist_ok=True)
        if (folder / path.name).exists():
            raise UsageError(f"two parts of the engine are called {path.name}", fix="rename a plugin library")
        shutil.copyfile(path, folder / path.name)
        found.append(Part(role, path.name, sha256_of(path), path.stat().st_size, names))
    return tuple(found)


def place_parts(folder: Path, engine: Path) -> None:
    """Put gathered parts beside their engine, in place of those of an earlier one."""
    shutil.rmtree(parts_folder(engine), ignore_errors=True)
    if folder.is_dir():
        folder.rename(parts_folder(engine))


def artifact_hash(engine_sha256: str, parts: Sequence[Part]) -> str:
    """One hash over an engine and all its parts."""
    lines = [f"engine {engine_sha256}", *sorted(f"{part.role} {part.file} {part.sha256}" for part in parts)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def problems(engine: str, parts: Sequence[Part], hashes: Mapping[str, str]) -> list[str]:
    """What is wrong with the parts of an engine, one line each, with both hashes.

    Args:
        parts: as its passport states them.
        hashes: SHA-256 of the parts that are there, by name.
    """
    found = []
    for part in parts:
        there = hashes.get(part.file)
        if there is None:
            found.append(f"its {part.role} {part.file} ({part.sha256}) is missing")
        elif there != part.sha256:
            found.append(
                f"its {part.role} {part.file} is of another build: {there}, {engine} was built with {part.sha256}"
            )
    stated = {part.file for part in parts}
    return found + [f"{name} ({hashes[name]}) is no part of it" for name in sorted(set(hashes) - stated)]


def check_parts(engine: Path, parts: Sequence[Part]) -> None:
    """Hold what lies beside an engine against what its passport states.

    Raises:
        UsageError: a part is missing, older, of another build, or was added.
    """
    folder = parts_folder(engine)
    hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir())} if folder.is_dir() else {}
    if found := problems(engine.name, parts, hashes):
        raise UsageError(f"{engine}: {found[0]}", fix="engine and parts are of one build: copy or build them together")
