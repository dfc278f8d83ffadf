"""What the functions of the API that compare and time return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from csa_deploy.api.wording import in_python
from csa_deploy.records.loadgen import LoadgenRun
from csa_deploy.records.profile import ProfileRecord
from csa_deploy.records.verify import Verdict, VerifyRecord
from csa_deploy.results import NOT_JSON, NotMeasured, NumbersBut, Result
from csa_deploy.units import milliseconds


@dataclass(frozen=True)
class OutputComparison:
    """One output of one candidate, held against the reference's.

    Attributes:
        candidate: label.
        precision: whose budget it is held against.
        verdict: of the candidate.
        output: name.
        metrics: of all samples.
        worst: identities of the worst samples.
    """

    candidate: str
    precision: str
    verdict: Verdict
    output: str
    metrics: dict[str, float]
    worst: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Candidates against a reference, on the same samples.

    Attributes:
        verdict: the worst of all candidates'; undecided where the samples are too few to say.
        failure: the first broken budget, in one line; empty where none is.
        outputs: one per candidate and output.
        samples: one mapping per candidate, output and sample: its identity and metrics.
        notes: what a reader must know.
        not_measured: what was not compared, and why.
        report: the comparison's record.
        stored: the metrics of every sample, as ``csa-deploy judge`` reads them from a file.
    """

    verdict: Verdict
    failure: str
    outputs: tuple[OutputComparison, ...]
    samples: tuple[Annotated[dict[str, Any], NumbersBut(("candidate", "output", "id"))], ...]
    notes: tuple[str, ...] = ()
    not_measured: tuple[NotMeasured, ...] = ()
    report: VerifyRecord | None = None
    stored: bytes | None = field(default=None, compare=False, metadata=NOT_JSON)

    @property
    def summary(self) -> str:
        """Verdict, and what it rests on."""
        missing = f"; {len(self.not_measured)} not compared" if self.not_measured else ""
        return f"{self.verdict}: {in_python(self.report.summary) if self.report else ''}{missing}"

    def rows(self) -> list[dict[str, Any]]:
        """One row per candidate and output, a column per metric."""
        names = dict.fromkeys(name for one in self.outputs for name in one.metrics)
        return [
            {"candidate": one.candidate, "precision": one.precision, "output": one.output, "verdict": one.verdict}
            | {name: one.metrics.get(name) for name in names}
            for one in self.outputs
        ]


@dataclass(frozen=True)
class Latency:
    """One graph's or engine's latency on this machine.

    Attributes:
        label: of the graph.
        percentiles_ms: by percentile, as far as the samples show it.
        ratio: its median over the first graph's; None for the first.
        interval: 99 % interval of the ratio; None where the samples give none.
        outcome: faster, slower or no difference shown; empty for the first.
        evidence: what it was measured on, and what that says.
    """

    label: str
    percentiles_ms: dict[str, float]
    ratio: float | None
    interval: tuple[float | None, float | None] | None
    outcome: str
    evidence: str


@dataclass(frozen=True, repr=False)
class Timing(Result):
    """Graphs timed side by side in turns, on this machine; the latency of a CPU is never the target's.

    Attributes:
        latencies: one per graph.
        not_measured: what was not measured, and why.
        report: the profile's record.
        measured: its measurements: samples, layers, telemetry, host.
        loadgen: runs of MLPerf's load generator, where it was asked for; its logs stay in a workspace only.
    """

    latencies: tuple[Latency, ...]
    not_measured: tuple[NotMeasured, ...] = ()
    report: ProfileRecord | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    loadgen: tuple[LoadgenRun, ...] = ()

    @property
    def summary(self) -> str:
        """Median of each graph, and whether it is faster than the first."""
        said = [
            f"{one.label} {milliseconds(one.percentiles_ms.get('50'))}" + (f" ({one.outcome})" if one.outcome else "")
            for one in self.latencies
        ]
        return "; ".join([f"median {', '.join(said)}", *(f"{run.label} in {run.statement}" for run in self.loadgen)])

    def rows(self) -> list[dict[str, Any]]:
        """One row per graph."""
        names = dict.fromkeys(name for one in self.latencies for name in one.percentiles_ms)
        return [
            {"label": one.label}
            | {f"p{name}_ms": one.percentiles_ms.get(name) for name in names}
            | {"ratio": one.ratio}
            | dict(zip(("ratio_low", "ratio_high"), one.interval or (None, None), strict=True))
            | {"outcome": one.outcome, "evidence": one.evidence}
            for one in self.latencies
        ]
