"""Proves a bundle on the host: its form, every hash, the passport, and who signed it. Nothing is unpacked for it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from csa_deploy.bundle.archive import Archive
from csa_deploy.bundle.attestations import check_attestations
from csa_deploy.bundle.envelope import check_envelopes
from csa_deploy.bundle.index import INDEX, BundleIndex, read_index
from csa_deploy.bundle.make import SBOM, SUMS
from csa_deploy.bundle.model_card import check_model_card
from csa_deploy.bundle.model_signature import MODEL_SIGNATURE, Trusted, check_model
from csa_deploy.bundle.signature import SIGNATURE, Signature, check
from csa_deploy.engine.parts import SUFFIX, problems
from csa_deploy.engine.passport import parse_passport
from csa_deploy.errors import UsageError
from csa_deploy.verify.results import SAMPLES, Results, read_results

NOBODY = Trusted()
_REPEATED = ("network", "precision", "kind", "builder", "evidence", "not_included")  # of the index
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True)
class BundleReport:
    """What was found.

    Attributes:
        problems: what is damaged, missing, added or contradictory, one line each.
        signature: what its ssh signature says.
        required: whether a valid one was asked for.
        model_signature: what its signature by model signing says.
        model_required: whether a valid one was asked for.
        attestations: what its gates had said, as their statements have it; or why there is nothing to read.
        model_card: whether it says what the samples say; or why that is not known.
    """

    path: Path
    index: BundleIndex
    files: int
    problems: tuple[str, ...]
    signature: Signature
    required: bool
    model_signature: Signature
    model_required: bool
    attestations: str
    model_card: str

    @property
    def verdict(self) -> Literal["intact", "damaged", "not trusted"]:
        """``damaged``: not what was bundled; ``not trusted``: intact, and not validly signed as asked."""
        if self.problems or "tampered" in (self.signature.state, self.model_signature.state):
            return "damaged"
        asked = ((self.required, self.signature), (self.model_required, self.model_signature))
        return "not trusted" if any(wanted and said.state != "valid" for wanted, said in asked) else "intact"

    def to_json(self) -> dict[str, Any]:
        """JSON form with the verdict."""
        stated = self.index.to_json()
        return {
            "bundle": self.path.name,
            "verdict": self.verdict,
            "problems": list(self.problems),
            "signature": asdict(self.signature),
            "model_signature": asdict(self.model_signature),
            "attestations": self.attestations,
            "model_card": self.model_card,
            "files": self.files,
            **{key: stated[key] for key in _REPEATED},
            "gates": stated["verdict"],
        }


def verify_bundle(path: Path, allowed: Path | None = None, trusted: Trusted = NOBODY) -> BundleReport:
    """Check a bundle.

    Args:
        allowed: file of allowed signers; given one, only a valid ssh signature will do.
        trusted: whom to trust by key or certificate; given one, only a valid signature by model signing will do.

    Raises:
        UsageError: no bundle at all, or one whose form is hostile (links, paths outside, duplicates).
    """
    with Archive(path) as archive:
        sums = archive.read(SUMS)
        stated = _stated(sums)
        problems = _differences(archive, stated)
        index = read_index(archive.read(INDEX))
        stated_gates = card = "not read: the bundle is damaged"
        problems = problems or _index_differs(index, stated) or _unreadable(archive)
        if not problems:
            problems += _contradictions(archive, index)
            stated_gates, wrong = _attestations(archive, index, trusted)
            card, differing = _model_card(archive, index)
            problems += [*wrong, *differing]
        signature = check(sums, archive.read(SIGNATURE) if SIGNATURE in archive.names else None, allowed)
        files, by_model = len(archive.names), check_model(archive, trusted)
    required, asked = allowed is not None, trusted != NOBODY
    return BundleReport(path, index, files, tuple(problems), signature, required, by_model, asked, stated_gates, card)


def _attestations(archive: Archive, index: BundleIndex, trusted: Trusted) -> tuple[str, list[str]]:
    """What the statements say and how they are signed, in words; what contradicts the bundle."""
    names = [name for name in archive.names if name.startswith("records/") and name.endswith(".json")]
    records = {name[8:-5]: json.loads(archive.read(name)) for name in names}
    said, problems = check_attestations(archive, index, records)
    signed, wrong = check_envelopes(archive, trusted)
    return f"{said}; {signed}", problems + wrong


def _model_card(archive: Archive, index: BundleIndex) -> tuple[str, list[str]]:
    """Whether the model card says what the samples say, in words; where it does not."""
    try:
        card = json.loads(archive.read(SBOM))["metadata"]["component"].get("modelCard")
    except (ValueError, KeyError, TypeError, AttributeError, UsageError):
        return "not readable", [f"{SBOM}: not readable"]
    if card is None:
        return "none; an older csa-deploy made the bundle", []
    if SAMPLES not in archive.names:
        stated = card.get("quantitativeAnalysis", {}).get("performanceMetrics", [])
        wrong = ["it states metrics, and the bundle has no samples that show them"] if stated else []
        return "states no metrics: nothing was compared", [f"{SBOM}: {said}" for said in wrong]
    try:
        results = stored_samples(archive)
    except UsageError:
        return "not compared", [f"{SAMPLES}: not the results of a comparison"]
    wrong = check_model_card(card, results, index.precision)
    return "says what the samples say" if not wrong else "contradicts the samples", [
        f"{SBOM}: {said}" for said in wrong
    ]


def stored_samples(archive: Archive) -> Results:
    """The metrics of every sample in a bundle.

    Raises:
        UsageError: they are not readable.
    """
    with tempfile.TemporaryDirectory(prefix="csa-bundle-") as folder:
        file = Path(folder) / "samples.npz"
        with archive.open(SAMPLES) as source, file.open("wb") as target:
            shutil.copyfileobj(source, target)
        return read_results(file)


def unpack_bundle(path: Path, folder: Path, allowed: Path | None = None, trusted: Trusted = NOBODY) -> BundleReport:
    """Check a bundle and unpack it when it is as it should be.

    Raises:
        UsageError: it is not, or the folder is not empty.
    """
    report = verify_bundle(path, allowed, trusted)
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
    present = set(archive.names) - {SUMS, SIGNATURE, MODEL_SIGNATURE}
    found = [f"{name}: missing" for name in sorted(set(stated) - present)]
    found += [f"{name}: added, it is not in {SUMS}" for name in sorted(present - set(stated))]
    for name in sorted(present & set(stated)):
        with archive.open(name) as stream:
            digest = hashlib.file_digest(stream, "sha256")
        if digest.hexdigest() != stated[name]:
            found.append(f"{name}: changed")
    return found


def _index_differs(index: BundleIndex, stated: dict[str, str]) -> list[str]:
    """Files that the index states otherwise than the list of hashes: everything else is held against the index."""
    listed = {name: digest for name, digest in stated.items() if name not in (INDEX, SBOM)}
    names = sorted({name for name, _ in index.files.items() ^ listed.items()})
    return [f"{name}: not the file that {INDEX} states" for name in names]


def _unreadable(archive: Archive) -> list[str]:
    """Records and measurements that are no JSON objects."""
    found = []
    for name in archive.names:
        if name.endswith(".json") and name.startswith(("records/", "measurements/")):
            try:
                content = json.loads(archive.read(name))
            except ValueError:
                content = None
            found += [] if isinstance(content, dict) else [f"{name}: not readable"]
    return found


def _contradictions(archive: Archive, index: BundleIndex) -> list[str]:
    """Engine, passport and graph of a bundle whose hashes are right: do they belong together?"""
    engine = index.engine
    if engine is None:
        return []
    try:
        passport = parse_passport(archive.read(f"{engine}.passport.json"), f"{engine}.passport.json")
    except UsageError as error:
        return [error.message]
    found = []
    if passport.engine.sha256 != index.files.get(engine):
        found.append(f"{engine}: not the engine that its passport describes")
    folder = f"{engine}{SUFFIX}/"
    hashes = {name.removeprefix(folder): sha for name, sha in index.files.items() if name.startswith(folder)}
    found += [f"{engine}: {said}" for said in problems(engine, passport.engine.parts, hashes)]
    if passport.graph.sha256 != index.files.get(index.graph):
        found.append(f"{index.graph}: not the graph that the passport says the engine was built of")
    return found
