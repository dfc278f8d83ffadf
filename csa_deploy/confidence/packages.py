"""What is installed: the tool and all that it needs, with version and hash."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
OWN = "csa-deploy"
_OTHER_FILES = (".pyc", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Files that an installer makes or compiles, and that differ from machine to machine."""


@dataclass(frozen=True)
class InstalledPackage:
    """One package.

    Attributes:
        name, version: as it states them.
        sha256: over the path and the stated hash of each file, in order of the paths; the same on every machine.
        files: number of files under that hash.
        changed: number of files that are missing, or whose content is not the stated one.
    """

    name: str
    version: str
    sha256: str
    files: int
    changed: int


def installed_packages() -> list[InstalledPackage]:
    """The tool first, then what it needs, directly or not, as far as it is installed, by name."""
    return [_own(), *(_described(needed[name]) for needed in (_needed(),) for name in sorted(needed))]


def _own() -> InstalledPackage:
    """The sources themselves, whether installed from a wheel or a checkout."""
    from csa_deploy import __version__

    root = Path(__file__).resolve().parents[1]
    files = sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    lines = [f"{p.relative_to(root).as_posix()} {_digest(p)}\n" for p in files]
    total = hashlib.sha256("".join(lines).encode()).hexdigest()
    return InstalledPackage(OWN, __version__, total, len(files), _changed(_hashes(OWN)))


def _needed() -> dict[str, metadata.Distribution]:
    """What the tool requires, with its extras, and what these require without theirs; as far as it is installed."""
    found: dict[str, metadata.Distribution] = {}
    waiting = _required(OWN, extras=True)
    while waiting:
        name = waiting.pop()
        if name in found or name == OWN:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        waiting += _required(name, extras=False)
    return found


def _required(name: str, *, extras: bool) -> list[str]:
    try:
        requirements = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []  # a source tree that is not installed
    if not extras:
        requirements = [line for line in requirements if "extra ==" not in line]
    else:
        requirements = [line for line in requirements if not re.search(r"extra == .dev.", line)]
    names = (_NAME.match(line) for line in requirements)
    return [re.sub(r"[-_.]+", "-", match.group()).lower() for match in names if match]


def _described(package: metadata.Distribution) -> InstalledPackage:
    hashes = _hashes(package.metadata["Name"])
    total = hashlib.sha256("".join(f"{path} {stated}\n" for path, (stated, _) in sorted(hashes.items())).encode())
    return InstalledPackage(package.metadata["Name"], package.version, total.hexdigest(), len(hashes), _changed(hashes))


def _hashes(name: str) -> dict[str, tuple[str, Path]]:
    """Path in the package -> hash as its RECORD states it, and place on this machine.

    RECORD is read here: where some package loads the backport ``importlib_metadata``, ``metadata.files`` leaves out the
    files that are missing.
    """
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return {}
    rows = csv.reader((package.read_text("RECORD") or "").splitlines())
    return {
        path: (stated.removeprefix("sha256="), Path(str(package.locate_file(path))))
        for path, stated, *_ in rows
        if stated.startswith("sha256=") and ".." not in Path(path).parts and not path.endswith(_OTHER_FILES)
    }


def _changed(hashes: dict[str, tuple[str, Path]]) -> int:
    return sum(not place.is_file() or _digest(place) != stated for stated, place in hashes.values())


@cache
def _digest(path: Path) -> str:
    """SHA-256 as RECORD writes it: in base 64 without its end."""
    with path.open("rb") as stream:
        return base64.urlsafe_b64encode(hashlib.file_digest(stream, "sha256").digest()).rstrip(b"=").decode()
