"""From the metrics of every sample to a verdict: the same code for a comparison that just ran and for a stored one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from csa_deploy.errors import AccuracyGateError
from csa_deploy.metrics.estimates import QUIET
from csa_deploy.metrics.table import METRICS
from csa_deploy.records.batch import BatchConsistency
from csa_deploy.records.verify import JudgedCandidate, OwnAccuracy, Verdict
from csa_deploy.results import Stored
from csa_deploy.verify.reference import own_accuracy
from csa_deploy.verify.results import Results

FAINT = 1e-5  # magnitude up to which FP32 rounding of numbers around one is a visible part of an output
Bounds = Callable[[str], Mapping[str, float]]
Asked = Callable[[str], Collection[str]]


@dataclass(frozen=True)
class Judgement(Stored):
    """Verdicts on a comparison.

    Attributes:
        candidates: per candidate its metrics, checks and verdict.
        accuracy: of the reference itself; None without labels.
        partial: in words, how much of the data was compared; empty when all of it.
        notes: what a reader must know, a sentence each.
    """

    derived: ClassVar[tuple[str, ...]] = ("verdict",)
    candidates: tuple[JudgedCandidate, ...]
    accuracy: OwnAccuracy | None
    partial: str
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of all verdicts; what is partial is at best undecided."""
        verdicts: set[str] = {c.verdict for c in self.candidates} | (
            {self.accuracy.verdict} if self.accuracy else set()
        )
        if "fail" in verdicts:
            return "fail"
        return "undecided" if "undecided" in verdicts or self.partial or not self.candidates else "pass"

    def failure(self, *, strict: bool) -> AccuracyGateError | None:
        """The first reason to fail: a wrong input, a value that is not finite, a broken bound, a useless reference."""
        for candidate in self.candidates:
            if error := _candidate_failure(candidate):
                return error
        if self.accuracy and self.accuracy.verdict == "fail":
            return AccuracyGateError(
                f"verify: {self.accuracy.statement}",
                fix="check the labels, the order of the classes and the preprocessing",
            )
        return self._undecided() if strict else None

    def _undecided(self) -> AccuracyGateError | None:
        if self.partial:
            return AccuracyGateError(f"verify: {self.partial} were compared", fix="compare on all, or drop --strict")
        for candidate in self.candidates:
            for check in candidate.checks if candidate.verdict == "undecided" else ():
                if check.state == "undecided" or (check.asked and check.state == "not measured"):
                    reason = check.reason.removeprefix("not measured: ")
                    return AccuracyGateError(
                        f"verify: {candidate.label}: {check.metric} of '{check.output}' {check.limit_in_words} is "
                        f"{check.state}: {reason}",
                        fix="compare on more data, or drop --strict",
                    )
        return None


def judge_results(results: Results, bounds: Bounds, asked: Asked = lambda precision: ()) -> Judgement:
    """Hold results against budgets.

    Args:
        results: ``meta`` may hold ``trained`` and, per candidate, the preprocessing that ``differs`` and its ``batch``.
        bounds: budget of a precision, by metric.
        asked: metrics of a precision whose bounds were asked for, whether or not they are the defaults.
    """
    differs = results.meta.get("differs", {})
    candidates = tuple(
        c.judged(
            results.ids,
            bounds(c.precision),
            asked(c.precision),
            differs.get(c.label, {}),
            _batch(results.meta, c.label),
        )
        for c in results.candidates
    )
    accuracy = None
    if results.labels is not None and results.candidates:
        first, trained = results.candidates[0].outputs[0], bool(results.meta.get("trained"))
        accuracy = own_accuracy(first, results.labels.tolist(), trained=trained)
    return Judgement(candidates, accuracy, results.partial, tuple(_notes(results, candidates, accuracy)))


def _batch(meta: Mapping[str, Any], label: str) -> BatchConsistency | None:
    stored = meta.get("batch", {}).get(label)
    return BatchConsistency.from_json(stored) if stored else None


def one_class(labels: np.ndarray | None) -> list[str]:
    """A note where all samples have the same label; else none."""
    if labels is None or len(labels) < 2 or len(set(labels.tolist())) > 1:
        return []
    return ["all samples are of one class, so accuracy says nothing about the others"]


def _notes(results: Results, candidates: Sequence[JudgedCandidate], accuracy: OwnAccuracy | None) -> list[str]:
    notes = [results.partial] if results.partial else []
    notes += one_class(results.labels)
    if accuracy and accuracy.verdict != "pass":
        expected = "" if accuracy.trained else "; the network is not known to be trained, so that is not judged"
        notes.append(accuracy.statement + expected)
    notes += _quiet(results) + _faint(results, candidates) + _maps(results, candidates)
    undecided: dict[str, list[str]] = {}
    for candidate in candidates:
        for check in candidate.checks:
            if check.state == "undecided":
                said = f"{check.metric} of '{check.output}' {check.limit_in_words} is undecided: {check.reason}"
                undecided.setdefault(said, []).append(candidate.label)
    notes += [f"{', '.join(labels)}: {said}" for said, labels in undecided.items()]
    if undecided and not results.meta.get("trained"):
        notes.append(
            "the network is not known to be trained: without training its strongest classes are nearly tied, so which "
            "one wins says little; the errors of the outputs say what the graphs lose"
        )
    return notes


def _quiet(results: Results) -> list[str]:
    """A note where the lowest cosine is that of a sample whose reference output is nearly zero: it is noise's."""
    notes = []
    for candidate in results.candidates:
        for output in candidate.outputs:
            cosines, signal = output.columns.get("cosine"), output.columns.get("signal")
            if cosines is None or signal is None or not np.isfinite(cosines).all():
                continue
            worst, usual = int(np.argmin(cosines)), float(np.median(signal))
            if signal[worst] < QUIET * usual:
                part = f"{100 * signal[worst] / usual:.2g} % of the usual energy"
                notes.append(
                    f"{candidate.label}: '{output.name}' of sample {results.ids[worst]} is nearly zero in the "
                    f"reference ({part}), so its direction (cosine {cosines[worst]:.3g}) is that of rounding: its "
                    f"error is held against {100 * QUIET:g} % of the usual energy"
                )
    return notes


def _faint(results: Results, candidates: Sequence[JudgedCandidate]) -> list[str]:
    """A note where an output fails whose reference is of the size of rounding on all samples."""
    failing = _failing(candidates)
    largest = {
        output.name: float(max(np.abs(output.columns["low"]).max(), np.abs(output.columns["high"]).max()))
        for candidate in results.candidates
        for output in candidate.outputs
        if (candidate.label, output.name) in failing and {"low", "high"} <= set(output.columns)
    }
    return [
        f"the reference's '{name}' is {value:.1e} at most on all of these samples, so its errors are rounding: compare "
        "on samples on which the network finds something"
        for name, value in largest.items()
        if value < FAINT
    ]


def _failing(candidates: Sequence[JudgedCandidate], metric: str = "") -> set[tuple[str, str]]:
    """Candidates and outputs with a bound that is broken, of one metric or of any."""
    return {(c.label, x.output) for c in candidates for x in c.checks if x.state == "fail" and metric in ("", x.metric)}


def _maps(results: Results, candidates: Sequence[JudgedCandidate]) -> list[str]:
    """A note where outputs are maps and no bound speaks of their strongest channels: whether it should is not known."""
    names = dict.fromkeys(o.name for c in results.candidates for o in c.outputs if "map" in o.kinds)
    bounded = any(METRICS[check.metric].of in ("map", "whole") for c in candidates for check in c.checks)
    if not names or bounded:
        return []
    listed, one = ", ".join(f"'{name}'" for name in names), "int8.mean_iou_agreement=0.9"
    return [f"{listed}: no budget bounds the classes of its positions; ask for one with --budget {one}"]


def wanted_samples(candidates: Sequence[JudgedCandidate]) -> int:
    """Samples that would decide every bound that is undecided for want of them; 0 where that is none."""
    return max((check.needed or 0 for found in candidates for check in found.checks), default=0)


def _candidate_failure(result: JudgedCandidate) -> AccuracyGateError | None:
    where = f"verify: {result.label}"
    for name, (ours, theirs) in result.preprocessing_differs.items():
        return AccuracyGateError(
            f"{where}: its preprocessing is not the network's: {name} is {theirs}, the network's is {ours}",
            fix="export the network again, or correct the graph's metadata",
        )
    for name, ids in result.reference_non_finite.items():
        return AccuracyGateError(
            f"verify: the reference's own output '{name}' is not finite on sample {ids[0]}",
            fix="look at that sample's input, and at the network's weights",
        )
    for name, ids in result.non_finite.items():
        return AccuracyGateError(
            f"{where}: output '{name}' is not finite on sample {ids[0]}",
            fix="see `csa-deploy verify --localize` for the layer; keep it FP32 with --keep-fp32, or see that sample",
        )
    if result.batch and result.batch.broken:
        return batch_failure(where, result.batch)
    broken = [check for check in result.checks if check.state == "fail"]
    for check in broken[:1]:
        worst = next(output.worst[0]["id"] for output in result.outputs if output.name == check.output)
        others = f"; {len(broken)} bounds are broken" if len(broken) > 1 else ""
        return AccuracyGateError(
            f"{where}: {check.metric} of '{check.output}' is {check.measured}, the budget is {check.limit_in_words} "
            f"(worst sample {worst}){others}",
            fix=f"see the report; another budget is --budget {result.precision}.{check.metric}=VALUE",
        )
    return None


def batch_failure(where: str, batch: BatchConsistency) -> AccuracyGateError:
    """What a sample that gives something else in another batch raises."""
    return AccuracyGateError(
        f"{where}: {batch.statement}",
        fix="look for an operation over axis 0 (a mean, a norm in training mode, a Reshape or Squeeze)",
    )
