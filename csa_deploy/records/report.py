"""What the report stage states, and the one data object that every form of the report shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal

from csa_deploy.manifest import Artifact
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.records.profile import Profiled, ProfileRecord
from csa_deploy.records.repair import RepairRecord
from csa_deploy.records.split import SplitRecord
from csa_deploy.records.sweep import Sweep
from csa_deploy.records.task_views import TaskViews
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.results import IF_KNOWN, NotMeasured, StageRecord, Stored


@dataclass(frozen=True, kw_only=True)
class ReportRecord(StageRecord):
    """The verdict, and where the page is."""

    stage: ClassVar[str] = "report"


@dataclass(frozen=True, kw_only=True)
class Records(Stored):
    """What the stages state, in their order; None for one that did not run."""

    export: ExportRecord | None = field(default=None, metadata=IF_KNOWN)
    optimize: OptimizeRecord | None = field(default=None, metadata=IF_KNOWN)
    repair: RepairRecord | None = field(default=None, metadata=IF_KNOWN)
    check: CheckRecord | None = field(default=None, metadata=IF_KNOWN)
    precision: PrecisionRecord | None = field(default=None, metadata=IF_KNOWN)
    split: SplitRecord | None = field(default=None, metadata=IF_KNOWN)
    build: BuildRecord | None = field(default=None, metadata=IF_KNOWN)
    verify: VerifyRecord | None = field(default=None, metadata=IF_KNOWN)
    profile: ProfileRecord | None = field(default=None, metadata=IF_KNOWN)

    @property
    def done(self) -> dict[str, StageRecord]:
        """Those that are there, by stage."""
        return {item.name: record for item in fields(self) if (record := getattr(self, item.name)) is not None}


@dataclass(frozen=True)
class Lacking(NotMeasured):
    """What a stage did not measure, why, and the command that would."""

    stage: str = ""
    fix: str = ""


@dataclass(frozen=True)
class GateState:
    """One gate."""

    name: str
    state: Literal["fail", "undecided", "not measured", "not counted", "pass"]
    text: str
    evidence: str


@dataclass(frozen=True)
class Headline(Stored):
    """What came out of all gates.

    Attributes:
        reasons: stages that failed or did not run.
    """

    derived: ClassVar[tuple[str, ...]] = ("gates",)
    state: Literal["pass", "fail", "incomplete"]
    reasons: tuple[str, ...]
    checks: tuple[GateState, ...]

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates in words."""
        return tuple(check.text for check in self.checks)


@dataclass(frozen=True, kw_only=True)
class StageState(Stored):
    """One stage.

    Attributes:
        state: ``done``, ``failed`` or ``not run``.
    """

    name: str
    state: Literal["done", "failed", "not run"]
    seconds: float | None = None
    started_at: str | None = field(default=None, metadata=IF_KNOWN)
    summary: str = ""
    artifacts: dict[str, Artifact] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One graph or engine; None where there is no number.

    Attributes:
        precision: of its weights.
        path: inside the workspace.
        bytes: of a graph's weights, of an engine's file.
        nodes: of a graph.
        macs: multiply-accumulates of a graph.
        decided_by: the bound that the verdict rests on.
        latency_ms: by percentile.
        not_measured: why it was not compared or timed.
    """

    label: str
    precision: str
    path: str
    bytes: int | None = None
    nodes: int | None = None
    macs: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    verify: str | None = None
    decided_by: str = ""
    latency_ms: dict[str, float | None] | None = None
    not_measured: str | None = None


@dataclass(frozen=True)
class ClassShare:
    """A class by name, and its share of the softmax."""

    name: str
    share: float


@dataclass(frozen=True)
class BackendAnswer:
    """What one backend made of a sample; ``error`` is None for the reference, ``classes`` empty without classes."""

    name: str
    error: float | None
    agrees: bool
    classes: tuple[ClassShare, ...]


@dataclass(frozen=True)
class WorstSample:
    """A sample with what the reference, the first, and every graph made of it; ``label`` is its class by name."""

    id: str
    label: str | None
    disagrees: bool
    backends: tuple[BackendAnswer, ...]


@dataclass(frozen=True)
class WorstOfOutput:
    """The worst samples of one output."""

    output: str
    samples: tuple[WorstSample, ...]


@dataclass(frozen=True)
class ErrorHistogram:
    """Largest error of each sample of a candidate; ``exact`` samples have none."""

    label: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    exact: int


@dataclass(frozen=True)
class PastProfile:
    """An earlier profile of the workspace; ``median_ms`` by label."""

    at: str
    verdict: str
    host: str
    median_ms: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ReportData(Stored):
    """Everything that a workspace knows about a deployment; numbers as stored.

    Attributes:
        batch: samples that one inference takes.
        rows: one per graph or engine.
        measurements: what they measured, by stage.
        worst: the worst samples of each output.
        task: what the comparison left of it; None without a task.
        errors: of the samples, by candidate.
        calibration: what it saw; see :func:`csa_deploy.report.side_files.calibration`.
        passports: of the engines, by precision.
        sweep: over batch and size; see :mod:`csa_deploy.profile.sweep`.
        history: of the profiles, oldest first.
    """

    derived: ClassVar[tuple[str, ...]] = ("schema_version",)
    schema_version: ClassVar[int] = 1
    csa_deploy: str
    network: str
    workspace: str
    config: dict[str, Any]
    batch: int
    verdict: Headline
    stages: tuple[StageState, ...]
    rows: tuple[Row, ...]
    records: Records
    measurements: dict[str, dict[str, Any]]
    not_measured: tuple[Lacking, ...]
    worst: tuple[WorstOfOutput, ...] = ()
    task: TaskViews | None = None
    errors: tuple[ErrorHistogram, ...] = ()
    calibration: dict[str, Any] | None = None
    passports: dict[str, Any] = field(default_factory=dict)
    sweep: Sweep | None = None
    history: tuple[PastProfile, ...] = ()

    @cached_property
    def profiled(self) -> Profiled | None:
        """What the profile measured."""
        return profiled_of(self.measurements)

    @property
    def reference(self) -> str:
        """What the graphs were compared with."""
        return self.records.verify.reference_name if self.records.verify else "reference"

    def only(self, stages: Iterable[str]) -> dict[str, Any]:
        """Plain data for a machine: without what is for the page, records and measurements of the named stages."""
        found = self.to_json()
        for part in ("records", "measurements"):
            found[part] = {name: value for name, value in found[part].items() if name in stages}
        for name in ("batch", "worst", "task", "errors", "calibration", "passports", "sweep", "history"):
            del found[name]
        return found


def profiled_of(measurements: dict[str, dict[str, Any]]) -> Profiled | None:
    """What the profile measured, of measurements by stage."""
    found = measurements.get(ProfileRecord.stage)
    return None if found is None else Profiled.from_json(found)
