"""Proves a bundle on the host: its form, every hash, the passport, and who signed it. Nothing is unpacked for it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from csa_deploy.bundle.archive import Archive
from csa_deploy.bundle.make import INDEX, SIGNATURE, SUMS, read_index
from csa_deploy.bundle.signature import Signature, check
from csa_deploy.engine.parts import SUFFIX, problems
from csa_deploy.engine.passport import seal_of
from csa_deploy.errors import UsageError

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True)
class BundleReport:
    """What was found.

    Attributes:
        path: the bundle.
        index: its ``bundle.json``.
        files: number of files.
        problems: what is damaged, missing, added or contradictory, one line each.
        signature: what its signature says.
        required: whether a valid signature was asked for.
    """

    path: Path
    index: dict[str, Any]
    files: int
    problems: tuple[str, ...]
    signature: Signature
    required: bool

    @property
    def verdict(self) -> Literal["intact", "damaged", "not trusted"]:
        """``damaged``: not what was bundled; ``not trusted``: intact, and not validly signed as asked."""
        if self.problems or self.signature.state == "tampered":
            return "damaged"
        return "not trusted" if self.required and self.signature.state != "valid" else "intact"

    def to_json(self) -> dict[str, Any]:
        """JSON form with the verdict."""
        kept = {
            key: self.index.get(key) for key in ("network", "precision", "kind", "builder", "evidence", "not_included")
        }
        kept["gates"] = self.index.get("verdict")
        return {
            "bundle": self.path.name,
            "verdict": self.verdict,
            "problems": list(self.problems),
            "signature": asdict(self.signature),
            "files": self.files,
            **kept,
        }


def verify_bundle(path: Path, allowed: Path | None = None) -> BundleReport:
    """Check a bundle.

    Args:
        path: the file.
        allowed: file of allowed signers; given one, only a valid signature will do.

    Raises:
        UsageError: no bundle at all, or one whose form is hostile (links, paths outside, duplicates).
    """
    with Archive(path) as archive:
        sums = archive.read(SUMS)
        stated = _stated(sums)
        problems = _differences(archive, stated)
        index = read_index(archive.read(INDEX))
        if not problems:
            problems += _contradictions(archive, index)
        signature = archive.read(SIGNATURE) if SIGNATURE in archive.names else None
        return BundleReport(
            path, index, len(archive.names), tuple(problems), check(sums, signature, allowed), allowed is not None
        )


def signed_part(path: Path) -> tuple[bytes, bytes | None]:
    """The list of hashes, which is what is signed, and its ssh signature; None where there is none."""
    with Archive(path) as archive:
        return archive.read(SUMS), archive.read(SIGNATURE) if SIGNATURE in archive.names else None


def unpack_bundle(path: Path, folder: Path, allowed: Path | None = None) -> BundleReport:
    """Check a bundle and unpack it when it is as it should be.

    Raises:
        UsageError: it is not, or the folder is not empty.
    """
    report = verify_bundle(path, allowed)
    if report.verdict != "intact":
        raise UsageError(f"{path}: {report.verdict}, not unpacked", fix="run `csa-deploy verify-bundle` for the reason")
    with Archive(path) as archive:
        archive.unpack(folder)
    return report


def _stated(sums: bytes) -> dict[str, str]:
    stated: dict[str, str] = {}
    for line in sums.decode(errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if not match or match[2] in stated:
            raise UsageError(f"{SUMS} of the bundle is not readable", fix="ask for the bundle again")
        stated[match[2]] = match[1]
    return stated


def _differences(archive: Archive, stated: dict[str, str]) -> list[str]:
    present = set(archive.names) - {SUMS, SIGNATURE}
    found = [f"{name}: missing" for name in sorted(set(stated) - present)]
    found += [f"{name}: added, it is not in {SUMS}" for name in sorted(present - set(stated))]
    for name in sorted(present & set(stated)):
        with archive.open(name) as stream:
            digest = hashlib.file_digest(stream, "sha256")
        if digest.hexdigest() != stated[name]:
            found.append(f"{name}: changed")
    return found


def _contradictions(archive: Archive, index: dict[str, Any]) -> list[str]:
    """Engine, passport and graph of a bundle whose hashes are right: do they belong together?"""
    engine = index.get("engine")
    if engine is None:
        return []
    try:
        passport = json.loads(archive.read(f"{engine}.passport.json"))
        stated, seal, graph = passport["engine"]["sha256"], passport["seal"], passport["graph"]["sha256"]
    except (ValueError, KeyError, TypeError, UsageError):
        return [f"{engine}: its passport is missing or not readable"]
    found = [] if seal == seal_of(passport) else [f"{engine}.passport.json: edited, its seal does not match"]
    if stated != index["files"].get(engine):
        found.append(f"{engine}: not the engine that its passport describes")
    folder = f"{engine}{SUFFIX}/"
    hashes = {name.removeprefix(folder): sha for name, sha in index["files"].items() if name.startswith(folder)}
    found += [f"{engine}: {said}" for said in problems(engine, passport["engine"].get("parts", ()), hashes)]
    if graph != index["files"].get(index["graph"]):
        found.append(f"{index['graph']}: not the graph that the passport says the engine was built of")
    return found
