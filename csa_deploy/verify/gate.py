"""The accuracy gate: metrics against a budget, one check per bound.

A bound is met when the unfavourable end of the metric's confidence interval meets it, broken when the measured value
breaks it, and undecided in between: the samples are too few to say. A bound that no number of samples can show (a share
of 1, a drop of 0) is held against the count on the samples at hand, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from csa_deploy import units
from csa_deploy.errors import UsageError
from csa_deploy.metrics.estimates import COUNT, EXTREME
from csa_deploy.metrics.intervals import (
    FEW_DEVIATE,
    FEWEST,
    paired_difference,
    samples_for_share,
    samples_without_change,
)
from csa_deploy.metrics.metric import NOT_APPLICABLE, Estimate, Metric
from csa_deploy.metrics.stream import WHOLE
from csa_deploy.metrics.table import METRICS
from csa_deploy.naming import did_you_mean
from csa_deploy.records.verify import HeldBound

State = Literal["pass", "fail", "undecided", "not measured"]


@dataclass(frozen=True)
class Check:
    """One bound of a budget and what was measured.

    Attributes:
        value: what was measured; None where the metric is not defined.
        sure: the end of the confidence interval that the bound is held against; None where the samples are too few
            for an interval.
        method: how the interval was made; of an extreme value or a count there is none, and the value itself is held.
        asked: whether the bound was asked for, so that it counts when it cannot be measured.
        reason: why the metric could not be measured, or what a count says.
        samples: how many were compared; 0 where that does not matter.
    """

    output: str
    metric: str
    bound: float
    value: float | None
    sure: float | None = None
    method: str = EXTREME
    asked: bool = False
    reason: str = ""
    samples: int = 0

    @property
    def state(self) -> State:
        """The verdict on this bound."""
        if self.value is None:
            return "not measured"
        if not self._meets(self.value):
            return "fail"
        if self.method in (EXTREME, COUNT):
            return "pass"
        return "pass" if self.sure is not None and self._meets(self.sure) else "undecided"

    @property
    def passed(self) -> bool | None:
        """True, False, or None for what was not measured or is undecided (never a pass)."""
        return {"pass": True, "fail": False}.get(self.state)

    @property
    def why(self) -> str:
        """What an undecided bound lacks, or why it was not measured."""
        if self.state != "undecided":
            return self.reason
        if self.sure is None:
            return self._no_interval
        if not math.isfinite(self.sure):
            return "the samples do not bound it: too few of them deviate; use more"
        end = f"the samples only show {'at least' if self.side == 'min' else 'at most'} {self._shown(self.sure)}"
        if self.value == self.bound:
            return f"{end}; what was measured is the bound itself, so no number of samples like these decides"
        if self.needed is None:
            return f"{end}; use more"
        if self._nothing_lost:
            seen = "as long as none changes" if self.entry.drop else "all of them hits"
            return f"{end}; at least {self.needed:,} samples are needed, {seen}"
        assert self.value is not None
        near = f"measured {units.distance(self.value - self.bound, self.metric)} from the bound"
        return f"{near}; {end}; about {self.needed:,} samples like these are needed"

    @property
    def _no_interval(self) -> str:
        if self.samples < FEWEST:
            return f"too few samples for an interval: at least {FEWEST} are needed"
        return (
            f"fewer than {FEW_DEVIATE} of the samples deviate at all, which says too little about how much others would"
        )

    def _shown(self, value: float) -> str:
        return units.beside(value, self.bound, self.metric)

    @property
    def needed(self) -> int | None:
        """Samples that would decide an undecided bound if they are like those compared; None where that is not known.

        From hits alone and from no change at all the number is exact; else intervals shrink with the square root.
        """
        if self.state != "undecided" or self.value is None or self.sure is None or self.value == self.bound:
            return None
        if self._nothing_lost:
            return samples_without_change(self.bound) if self.entry.drop else samples_for_share(self.bound)
        times = ((self.sure - self.value) / (self.bound - self.value)) ** 2
        return math.ceil(self.samples * times) or None if math.isfinite(times) else None

    @property
    def _nothing_lost(self) -> bool:
        """Whether every sample is a hit, or none changed."""
        if self.entry.drop:
            nothing = paired_difference(0, 0, self.samples)[1]
            return self.value == 0.0 and self.sure is not None and self.sure <= nothing
        return self.entry.share and self.value == 1.0

    @property
    def entry(self) -> Metric:
        """The metric's entry of the table."""
        return METRICS[self.metric]

    @property
    def side(self) -> Literal["min", "max"]:
        """Which side is bounded."""
        return self.entry.side

    def _meets(self, value: float) -> bool:
        if math.isnan(value):
            return False
        return value >= self.bound if self.side == "min" else value <= self.bound

    def held(self) -> HeldBound:
        """What is stored of it, with the verdict and which side is bounded."""
        stated = {**asdict(self), "reason": self.why}
        return HeldBound(**stated, side=self.side, state=self.state, passed=self.passed, needed=self.needed)


def judge(
    output: str,
    estimates: Mapping[str, Estimate],
    budget: Mapping[str, float],
    *,
    samples: int = 0,
    asked: Collection[str] = (),
) -> list[Check]:
    """Hold the metrics of one output, measured on so many samples, against a budget.

    Args:
        budget: bound by metric, or by output and metric (``boxes.snr_db``), which counts more for that output.
        asked: keys of the budget that were asked for, also where the bound is the default's.
    """
    checks, kinds = [], {METRICS[name].of for name in estimates}
    for metric, bound in own_bounds(budget, output).items():
        entry, estimate = METRICS[metric], estimates.get(metric)
        if (entry.of == "whole") != (output == WHOLE):
            continue
        wanted = metric in asked or f"{output}.{metric}" in asked
        if estimate is None:
            checks.append(Check(output, metric, bound, None, asked=wanted, reason=entry.absent(kinds)))
            continue
        ends, method, reason = estimate.interval, estimate.method, ""
        if _cannot_be_shown(entry, bound):
            ends, method = None, COUNT
            reason = f"counted on these {units.counted(samples, 'sample')}: no number of samples shows it of others"
        sure = None if ends is None else ends[0 if entry.side == "min" else 1]
        checks.append(Check(output, metric, bound, estimate.value, sure, method, wanted, reason, samples))
    return checks


def unheld(budget: Mapping[str, float], checks: Collection[Check], asked: Collection[str]) -> list[Check]:
    """The bounds that were asked for and that no output has: a task's metric where the task is another one.

    They are not measured: a bound that nothing answers to must not vanish.
    """
    found = []
    for key in (key for key in budget if key in asked):
        output, _, metric = key.rpartition(".")
        if not any(check.metric == metric and output in ("", check.output) for check in checks):
            reason = f"no output has it: {METRICS[metric].absent(())}, or the metric is of another task"
            found.append(Check(output or WHOLE, metric, budget[key], None, asked=True, reason=reason))
    return found


def own_bounds(budget: Mapping[str, float], output: str) -> dict[str, float]:
    """The bounds of one output by metric: those of every output, and those that name it."""
    keyed = {key: key.rpartition(".")[::2] for key in budget}
    return {keyed[key][1]: budget[key] for whose in ("", output) for key in budget if keyed[key][0] == whose}


def require_outputs(budget: Mapping[str, float], outputs: Collection[str], precision: str) -> None:
    """Raise UsageError where a bound names an output that the network does not have."""
    for key in budget:
        output = key.rpartition(".")[0]
        if output and output not in outputs:
            meant = did_you_mean(output, outputs)
            raise UsageError(
                f"budget {precision}.{key}: the network has no output '{output}'{f', {meant}' if meant else ''}",
                fix=f"its outputs: {', '.join(outputs)}",
            )


def _cannot_be_shown(metric: Metric, bound: float) -> bool:
    """Whether no number of samples shows that all of them are hits, or that none is lost."""
    return bound <= 0.0 if metric.drop else metric.share and bound >= 1.0


def applicable(checks: Iterable[Check]) -> list[Check]:
    """Without what the network has no output for: a bound that was asked for stays, once, if no output has its metric.

    A bound that lacks labels alone stays everywhere.
    """
    checks = list(checks)
    told = {check.metric for check in checks if not check.reason.startswith(NOT_APPLICABLE)}
    found = []
    for check in checks:
        if check.reason.startswith(NOT_APPLICABLE):
            if not check.asked or check.metric in told:
                continue
            told.add(check.metric)
        found.append(check)
    return found


def verdict(checks: Iterable[Check], non_finite: bool = False) -> Literal["pass", "fail", "undecided"]:
    """``"fail"`` if any bound is broken or any output is not finite; ``"pass"`` if every bound that counts is met.

    A default bound that does not apply does not count; one that was asked for does.
    """
    states = [check.state for check in checks if check.asked or check.state != "not measured"]
    if non_finite or "fail" in states:
        return "fail"
    return "pass" if states and all(state == "pass" for state in states) else "undecided"


def deciding(checks: Iterable[Check], outputs: int) -> str:
    """The first broken bound in words, else the first undecided one, else nothing: ``snr_db of box 14.1 dB``."""
    checks = list(checks)
    for state in ("fail", "undecided"):
        for check in checks:
            if check.state == state and check.value is not None:
                where = f" of {check.output}" if outputs > 1 else ""
                return f"{check.metric}{where} {units.beside(check.value, check.bound, check.metric)}"
    return ""
