"""What a matrix states: one network on several TensorRT versions and targets, what changed, and what may be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from csa_deploy.records.check import Verdict, worst
from csa_deploy.records.obtained import ObtainedPrecision
from csa_deploy.results import NotMeasured, Stored

RTX = "rtx"
"""The version that stands for TensorRT-RTX on this machine."""

CellState = Literal["measured", "failed", "not measured", "not there"]
UpgradeVerdict = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class CellAccuracy:
    """How an engine did on the samples.

    Attributes:
        decided_by: the bound that the verdict rests on; empty for a pass.
        metrics: over all samples, of several outputs the worst.
        tensors_sha256: of the inputs that it got.
    """

    verdict: str
    decided_by: str
    metrics: dict[str, float]
    samples: int
    tensors_sha256: str


@dataclass(frozen=True)
class CellLatency:
    """Latency of one inference in milliseconds, ``interval_ms`` that of the median; None where too few were timed."""

    p50_ms: float | None
    p99_ms: float | None
    interval_ms: tuple[float | None, float | None] | None
    samples_ms: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """One precision of the network on one TensorRT version and target.

    Attributes:
        tensorrt: version as it was asked for, or :data:`RTX`.
        state: ``measured`` where an engine was built and nothing failed; ``not there`` where the target has another
            version.
        reason: why it failed or was not measured; empty where it was.
        exit_code: of the failure, as that of ``run``; 0 where there is none.
        version: TensorRT's own version; empty where nothing was built.
        machine: host and GPU that ran it: latencies of another are not compared; the host alone where nothing ran.
        engine_mib: size of the engine; None where nothing was built.
        obtained: the precision that the build obtained; None where nothing was built.
        accuracy: on the samples; None where it was not measured.
        latency: None where it was not measured.
        not_measured: what was not, with the reason.
        workspace: where everything about it is.
        key: hash of what decides it.
        note: what a reader must know.
    """

    tensorrt: str
    target: str
    precision: str
    state: CellState
    reason: str = ""
    exit_code: int = 0
    version: str = ""
    machine: str = ""
    engine_mib: float | None = None
    build_seconds: float | None = None
    obtained: ObtainedPrecision | None = None
    accuracy: CellAccuracy | None = None
    latency: CellLatency | None = None
    not_measured: tuple[NotMeasured, ...] = ()
    workspace: str = ""
    key: str = ""
    note: str = ""

    @property
    def where(self) -> str:
        """``fp16, TensorRT 10.10 on orin``."""
        return f"{self.precision}, {version_words(self.tensorrt)} on {self.target}"


@dataclass(frozen=True)
class KnownProblemHere:
    """A known problem that is certain of this network in this version."""

    id: str
    severity: str
    title: str


@dataclass(frozen=True)
class ScopeHere:
    """What a scope that speaks for a version says: verdict, level of evidence, and whether it decides."""

    scope: str
    verdict: Verdict
    level: str
    decides: bool


@dataclass(frozen=True)
class KnownOfVersion:
    """What is known of a version without any machine.

    Attributes:
        platform: of the target ('' not stated).
        scopes: those that speak for it.
        problems: known problems that the network meets there, the worst first.
        not_ruled_out: number of further ones.
        unknown: what the sources do not cover.
    """

    tensorrt: str
    platform: str
    scopes: tuple[ScopeHere, ...]
    problems: tuple[KnownProblemHere, ...]
    not_ruled_out: int
    unknown: tuple[str, ...]

    @property
    def denied(self) -> tuple[str, ...]:
        """Scopes that decide and deny."""
        return tuple(scope.scope for scope in self.scopes if scope.decides and scope.verdict == "denied")

    @property
    def verdict(self) -> Verdict:
        """The worst of all scopes."""
        return worst({scope.verdict for scope in self.scopes})


@dataclass(frozen=True)
class VersionChange:
    """What differs between two versions, the earlier first; ``where`` says of which cells or facts."""

    before: str
    after: str
    where: str
    what: Literal["build", "obtained precision", "accuracy", "latency", "known problems", "scopes"]
    said: str
    worse: bool


@dataclass(frozen=True)
class Upgrade:
    """Whether a version may be used, and why not or why that is not known."""

    tensorrt: str
    verdict: UpgradeVerdict
    reasons: tuple[str, ...]
    exit_code: int = 0


@dataclass(frozen=True)
class MatrixReport(Stored):
    """The matrix.

    Attributes:
        graphs: SHA-256 of the graph by precision: the same in every cell.
        versions: in the order of the command; the first is the one in use.
        targets: names.
        known: without any machine.
        cells: all, in the order in which they run.
        changes: between neighbouring versions.
        upgrades: one per version.
        finished: False where the run was interrupted.
    """

    derived: ClassVar[tuple[str, ...]] = ("schema_version", "summary")
    schema_version: ClassVar[int] = 1
    network: str
    graphs: dict[str, str]
    versions: tuple[str, ...]
    targets: tuple[str, ...]
    known: tuple[KnownOfVersion, ...]
    cells: tuple[Cell, ...]
    changes: tuple[VersionChange, ...]
    upgrades: tuple[Upgrade, ...]
    finished: bool = True

    @property
    def summary(self) -> str:
        """``3 of 8 cells measured, 1 failed; may be used: 10.10; not: 11.1; not known: 8.6``."""
        states = [cell.state for cell in self.cells]
        words = {"yes": "may be used", "no": "not", "unknown": "not known"}
        verdicts = [
            f"{words[verdict]}: {', '.join(found)}"
            for verdict in words
            if (found := [u.tensorrt for u in self.upgrades if u.verdict == verdict])
        ]
        counted = f"{states.count('measured')} of {len(states)} cells measured, {states.count('failed')} failed"
        return "; ".join([counted, *verdicts])


def version_words(version: str) -> str:
    """``TensorRT 10.10``."""
    return "TensorRT-RTX" if version == RTX else f"TensorRT {version}"
