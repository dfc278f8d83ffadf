"""What the verify stage states: verdicts of graphs and engines against the reference, with what they rest on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from csa_deploy import units
from csa_deploy.metrics.metric import Estimate
from csa_deploy.records.arithmetic import Int8Arithmetic
from csa_deploy.records.batch import BatchConsistency
from csa_deploy.records.localization import Localization
from csa_deploy.results import IF_KNOWN, NumbersBut, StageRecord, Stored

_HALFWAY = 0.5  # a trained network may miss a sample or two, but gets more than halfway from chance to all right
_NEAR = 1.5  # errors closer together than this factor belong to neither side
Verdict = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True)
class HeldBound:
    """One bound of a budget and what was measured; see :class:`csa_deploy.verify.gate.Check`."""

    output: str
    metric: str
    bound: float
    value: float | None
    sure: float | None
    method: str
    asked: bool
    reason: str
    samples: int
    side: Literal["min", "max"]
    state: Literal["pass", "fail", "undecided", "not measured"]
    passed: bool | None
    needed: int | None

    @property
    def measured(self) -> str:
        """The measured value, with digits enough to tell it from its bound."""
        return units.beside(self.value, self.bound, self.metric)

    @property
    def limit(self) -> str:
        """``≥ 40.0 dB``."""
        return f"{'≥' if self.side == 'min' else '≤'} {units.bound(self.bound, self.metric)}"

    @property
    def limit_in_words(self) -> str:
        """``at least 40.0 dB``."""
        return f"{'at least' if self.side == 'min' else 'at most'} {units.bound(self.bound, self.metric)}"


@dataclass(frozen=True)
class JudgedOutput:
    """One output of a candidate; that of the tasks' metrics stands for all of them.

    Attributes:
        classes: number of classes where it is (N, classes), else 0.
        metrics: over all samples.
        intervals: the same with how sure they are.
        worst: samples, the worst first: ``id``, metrics, and the strongest classes of both where it has classes.
    """

    name: str
    classes: int
    metrics: dict[str, float]
    intervals: dict[str, Estimate]
    worst: tuple[Annotated[dict[str, Any], NumbersBut(("id",))], ...]


@dataclass(frozen=True)
class OutputRecord(JudgedOutput):
    """The same, with ``worst_channels``: of a map, ``channel`` and ``snr_db``."""

    worst_channels: tuple[Annotated[dict[str, Any], NumbersBut()], ...] = ()


@dataclass(frozen=True, kw_only=True)
class JudgedCandidate:
    """A graph or an engine, held against its budget.

    Attributes:
        precision: whose budget.
        verdict: the worst of its bounds.
        metrics: over all samples; of several outputs the worst.
        decided_by: the bound that the verdict rests on, in words; empty for a pass.
        outputs: metrics of each.
        non_finite: by output, samples with values that are not finite.
        reference_non_finite: the same of the reference.
        preprocessing_differs: settings of its own preprocessing that are others than the reference's, with both.
        batch: whether a sample gives the same in every batch; None of a comparison that does not tell.
    """

    label: str
    precision: str
    verdict: Verdict
    metrics: dict[str, float]
    decided_by: str
    outputs: tuple[JudgedOutput, ...]
    checks: tuple[HeldBound, ...]
    non_finite: dict[str, tuple[str, ...]]
    reference_non_finite: dict[str, tuple[str, ...]]
    preprocessing_differs: dict[str, tuple[Any, Any]]
    batch: BatchConsistency | None = None

    def interval(self, output: str, metric: str) -> tuple[float, float] | None:
        """Confidence interval of a metric of an output, where the comparison gave one."""
        found = next((o.intervals[metric] for o in self.outputs if o.name == output and metric in o.intervals), None)
        return found.interval if found else None

    def deciding_intervals(self) -> dict[str, tuple[float, float]]:
        """Per metric the interval of the output that has its worst value, where the comparison gave one."""
        found = {}
        for metric, value in self.metrics.items():
            output = next((o.name for o in self.outputs if o.metrics.get(metric) == value), "")
            if between := self.interval(output, metric):
                found[metric] = between
        return found


@dataclass(frozen=True, kw_only=True)
class CandidateRecord(JudgedCandidate):
    """The same, with what ran.

    Attributes:
        path: inside the workspace, or as the user gave it.
        tensors_sha256: of the inputs that it got.
    """

    outputs: tuple[OutputRecord, ...]
    path: str
    runner: dict[str, Any]
    tensors_sha256: str


@dataclass(frozen=True)
class ComparedData:
    """What was compared on: name, number of samples, whether they have labels, hashes of the data and the inputs."""

    name: str
    samples: int
    labelled: bool
    sha256: str
    tensors_sha256: str


@dataclass(frozen=True)
class OwnAccuracy(Stored):
    """How the reference itself does on the labels.

    Attributes:
        top1: share of samples that it gets right.
        interval: 95 % Clopper-Pearson interval.
        chance: the share that guessing would get.
        trained: whether the network is known to have trained weights; without them nothing is expected.
        shift: labels would fit if this were added to each of them; None where no shift makes them fit.
    """

    derived: ClassVar[tuple[str, ...]] = ("verdict", "statement")
    top1: float
    interval: tuple[float, float]
    chance: float
    trained: bool
    shift: int | None = None

    @property
    def verdict(self) -> Literal["pass", "fail", "undecided", "not expected"]:
        """Whether the reference is better than chance; a trained network that is not has other data or labels.

        It is where the lower end of the interval lies above chance. It is not where no more is right than by chance,
        and the upper end lies below halfway from chance to all right.
        """
        if not self.trained:
            return "not expected"
        if self.shift is not None:
            return "fail"
        if self.interval[0] > self.chance:
            return "pass"
        halfway = self.chance + _HALFWAY * (1 - self.chance)
        return "fail" if self.top1 <= self.chance and self.interval[1] < halfway else "undecided"

    @property
    def statement(self) -> str:
        """In words."""
        right, chance = 100 * self.top1, 100 * self.chance
        said = f"the reference itself gets {right:.1f} % of the labels right, chance is {chance:g} %"
        if self.shift is not None and self.chance == 0.5:
            said += "; the two classes are swapped"
        elif self.shift is not None:
            said += f"; with {self.shift:+d} on every label it would be right, so the labels are off by {-self.shift}"
        return said


@dataclass(frozen=True)
class Arbitration(Stored):
    """One sample in FP64: how far the reference and a candidate are from it, both in FP32.

    Attributes:
        sample: the candidate's worst sample.
        reference_error: largest absolute difference of the reference from FP64.
        candidate_error: the candidate's.
    """

    derived: ClassVar[tuple[str, ...]] = ("farther",)
    candidate: str
    sample: str
    output: str
    reference_error: float
    candidate_error: float

    @property
    def farther(self) -> Literal["reference", "candidate", "neither"]:
        """Whose error the difference is."""
        if self.candidate_error > _NEAR * self.reference_error:
            return "candidate"
        return "reference" if self.reference_error > _NEAR * self.candidate_error else "neither"


@dataclass(frozen=True)
class ErrorGrowth:
    """How the error of an output grows over the frames of sequences, reference and candidate each on their own state.

    Attributes:
        candidate: label of the graph or engine.
        sequences: by frame, sequences that have it.
        snr_db: by frame, signal-to-noise ratio over these sequences.
        max_abs_error: by frame, the largest difference.
    """

    candidate: str
    output: str
    sequences: tuple[int, ...]
    snr_db: tuple[float, ...]
    max_abs_error: tuple[float, ...]

    @property
    def statement(self) -> str:
        """In words."""
        worst = min(range(len(self.snr_db)), key=self.snr_db.__getitem__)
        said = [
            f"{units.decibel(self.snr_db[i])} on frame {i}" for i in dict.fromkeys((0, worst, len(self.snr_db) - 1))
        ]
        return f"{self.candidate}, output '{self.output}': {', '.join(said)}"


@dataclass(frozen=True)
class Runtime:
    """What can run engines here: names of devices, and packages that are installed."""

    devices: tuple[str, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class VerifyRecord(StageRecord):
    """The comparison.

    Attributes:
        verdict: the worst of all; what is partial is at best undecided.
        partial: in words, how much of the data was compared; empty when all of it.
        reference: what everything is held against, as its runner describes itself.
        accuracy: of the reference itself; None without labels.
        arbitration: FP64 on samples where two FP32 backends differ most.
        runtime: what could run engines.
        growth: of a network with state, errors over the frames of sequences.
        arithmetic: how far the arithmetics of INT8 are apart; empty where floating point was asked for.
    """

    stage: ClassVar[str] = "verify"
    unstated: ClassVar[tuple[str, ...]] = ()
    verdict: Verdict
    partial: str
    reference: dict[str, Any]
    accuracy: OwnAccuracy | None
    data: ComparedData
    candidates: tuple[CandidateRecord, ...]
    arbitration: tuple[Arbitration, ...]
    localization: tuple[Localization, ...]
    runtime: Runtime
    growth: tuple[ErrorGrowth, ...] = ()
    arithmetic: tuple[Int8Arithmetic, ...] = field(default=(), metadata=IF_KNOWN)

    @property
    def reference_name(self) -> str:
        """What the graphs were compared with: PyTorch, or the source graph where the source is an ONNX file."""
        return "PyTorch" if self.reference["backend"] == "torch" else "the source graph"

    def batches(self) -> dict[str, list[str]]:
        """What is said of other batches -> the candidates that it is said of."""
        found: dict[str, list[str]] = {}
        for candidate in self.candidates:
            if batch := candidate.batch:
                found.setdefault(f"batch {batch.batch}: {batch.statement}", []).append(candidate.label)
        return found
