"""What MLPerf's load generator measured: one run of a graph or engine in a scenario."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from csa_deploy.results import IF_KNOWN, Stored
from csa_deploy.units import counted, duration, milliseconds

Scenario = Literal["single-stream", "offline", "constant-stream"]
"""Of MLPerf Inference (``single-stream``, ``offline``) and MLPerf Automotive (``constant-stream``)."""

LOADGEN_LOGS = "measurements/loadgen"
"""Folder of the logs inside a workspace."""
NO_SUBMISSION = "a measurement with MLPerf's load generator, no MLPerf submission: not verified by MLCommons"


@dataclass(frozen=True)
class OutputsCheck(Stored):
    """Outputs that the load generator kept during the timed run, against those of its accuracy mode: MLPerf's TEST01.

    Attributes:
        sampled: how many inferences were compared.
        identical: of these, bit for bit.
        difference: the largest one, in units of the output type's precision relative to the largest value of that
            output; None where a sample has other values at all: not finite, no number, another size.
        bound: of ``difference``.
    """

    derived: ClassVar[tuple[str, ...]] = ("verdict",)
    sampled: int
    identical: int
    difference: float | None
    bound: float

    @property
    def verdict(self) -> Literal["pass", "fail", "not measured"]:
        """Whether the timed run computed what the accuracy mode does."""
        if not self.sampled:
            return "not measured"
        return "pass" if self.difference is not None and self.difference <= self.bound else "fail"

    @property
    def statement(self) -> str:
        """What was compared, and how much of it was equal."""
        said = f"{counted(self.sampled, 'output')} of the timed run held against accuracy mode"
        return f"{said}, {'all' if self.identical == self.sampled else self.identical} bit for bit"


@dataclass(frozen=True, kw_only=True)
class Deadlines(Stored):
    """The frames of a constant stream; a frame that is done exactly at its deadline met it.

    Attributes:
        frame_ms: between two frames; the deadline of each.
        arrivals: whose clock sends the frames.
        missed: frames that were done later.
        broken: too many missed for the percentile to hold, by a binomial test at 99 %.
    """

    frame_ms: float
    arrivals: str
    missed: int
    broken: bool


@dataclass(frozen=True, kw_only=True)
class LoadgenRun(Stored):
    """One run.

    Attributes:
        scenario: how queries come.
        settings: ``short``, ``full``, or the user's file.
        loadgen: version of the load generator.
        said: its own verdict.
        reasons: why the run is not valid; empty where it is.
        queries: inferences of the timed run.
        percentile: of the latency that counts, 0 to 100; of the offline scenario none does.
        percentile_ms: latency there; of a constant stream from the moment at which the frame was due.
        percentiles_ms: others, by percentile.
        early_stopping_ms: upper bound of ``percentile`` at 99 % confidence; None where the queries are too few.
        throughput: inferences per second, of the offline scenario.
        deadlines: of a constant stream.
        outputs: of the timed run.
        samples: that the queries were about.
        folder: of its logs inside the workspace.
    """

    derived: ClassVar[tuple[str, ...]] = ("verdict", "state")
    label: str
    scenario: Scenario
    settings: str
    loadgen: str
    said: Literal["VALID", "INVALID"]
    reasons: tuple[str, ...]
    queries: int
    seconds: float
    percentiles_ms: dict[str, float]
    outputs: OutputsCheck
    samples: str
    folder: str
    percentile: float | None = field(default=None, metadata=IF_KNOWN)
    percentile_ms: float | None = field(default=None, metadata=IF_KNOWN)
    early_stopping_ms: float | None = field(default=None, metadata=IF_KNOWN)
    throughput: float | None = field(default=None, metadata=IF_KNOWN)
    deadlines: Deadlines | None = field(default=None, metadata=IF_KNOWN)

    @property
    def verdict(self) -> Literal["VALID", "INVALID"]:
        """VALID where the load generator says so and nothing else speaks against it."""
        return "INVALID" if self.reasons else "VALID"

    @property
    def statement(self) -> str:
        """The run in a line."""
        said = f"{self.scenario}, {self.settings} settings: {self.verdict}"
        said += f", {'; '.join(self.reasons)}" if self.reasons else ""
        said += f"; {counted(self.queries, 'inference')} on {self.samples} in {duration(self.seconds)}"
        if self.deadlines:
            frame = f"{self.deadlines.frame_ms:.1f} ms"
            said += f", one every {frame}, {counted(self.deadlines.missed, 'deadline')} missed"
        if self.percentile_ms is not None:
            said += f"; p{self.percentile:.10g} {milliseconds(self.percentile_ms)}"
        if self.early_stopping_ms is not None:
            said += f", shown to be at most {milliseconds(self.early_stopping_ms)}"
        said += f"; {self.throughput:,.0f} per second" if self.throughput is not None else ""
        return said + (f"; {self.outputs.statement}" if self.outputs.verdict == "pass" else "")

    @property
    def state(self) -> Literal["pass", "fail", "undecided"]:
        """As a gate: it fails where deadlines are shown not to hold or outputs differ, and is undecided where a run
        was too short to show anything.
        """
        if self.outputs.verdict == "fail" or (self.deadlines and self.deadlines.broken):
            return "fail"
        return "pass" if self.verdict == "VALID" else "undecided"
