"""The accuracy gate: metrics against a budget, one check per bound.

A bound is met when the unfavourable end of the metric's confidence interval meets it, broken when the measured value
breaks it, and undecided in between: the samples are too few to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from csa_deploy.config import DEFAULT_BUDGET, METRIC_BOUNDS
from csa_deploy.units import percent
from csa_deploy.verify.intervals import FEWEST, paired_difference, samples_for_share, samples_without_change
from csa_deploy.verify.summary import EXTREME, SHARES, Estimate

DROPS = ("top1_drop", "top5_drop")
State = Literal["pass", "fail", "undecided", "not measured"]


@dataclass(frozen=True)
class Check:
    """One bound of a budget and what was measured.

    Attributes:
        output: tensor name.
        metric: name of the metric.
        bound: the budget.
        value: what was measured; None where the metric is not defined.
        sure: the end of the confidence interval that the bound is held against; None where the samples are too few
            for an interval.
        method: how the interval was made; of an extreme value there is none, and the value itself is held.
        asked: whether the bound is another than the default, so that it counts when it cannot be measured.
        reason: why the metric could not be measured.
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
        if self.method == EXTREME:
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
            return f"too few samples for an interval: at least {FEWEST} are needed"
        shown = percent(self.sure) if self.metric in SHARES or self.metric in DROPS else f"{self.sure:.4g}"
        end = f"the samples only show {'at least' if self.side == 'min' else 'at most'} {shown}"
        if self.needed is None:
            return f"{end}; use more"
        if self._nothing_lost:
            seen = "as long as none changes" if self.metric in DROPS else "all of them hits"
            return f"{end}; at least {self.needed} samples are needed, {seen}"
        return f"{end}; about {self.needed} samples like these are needed"

    @property
    def needed(self) -> int | None:
        """Samples that would decide an undecided bound if they are like those compared; None where that is not known.

        From hits alone and from no change at all the number is exact; else intervals shrink with the square root.
        """
        if self.state != "undecided" or self.value is None or self.sure is None or self.value == self.bound:
            return None
        if self._nothing_lost:
            return samples_without_change(self.bound) if self.metric in DROPS else samples_for_share(self.bound)
        return math.ceil(self.samples * ((self.sure - self.value) / (self.bound - self.value)) ** 2) or None

    @property
    def _nothing_lost(self) -> bool:
        """Whether every sample is a hit, or none changed."""
        if self.metric in DROPS:
            return self.sure is not None and self.sure <= paired_difference(0, 0, self.samples)[1]
        return self.metric in SHARES and self.value == 1.0

    @property
    def side(self) -> Literal["min", "max"]:
        """Which side is bounded."""
        return METRIC_BOUNDS[self.metric]

    def _meets(self, value: float) -> bool:
        if math.isnan(value):
            return False
        return value >= self.bound if self.side == "min" else value <= self.bound

    def to_json(self) -> dict[str, Any]:
        """JSON form, with the verdict and which side is bounded."""
        verdict = {"state": self.state, "passed": self.passed, "needed": self.needed}
        return {**asdict(self), "reason": self.why, "side": self.side, **verdict}


def judge(
    output: str,
    estimates: Mapping[str, Estimate],
    precision: str,
    budget: Mapping[str, float],
    *,
    classifier: bool,
    samples: int = 0,
) -> list[Check]:
    """Hold the metrics of one output, measured on so many samples, against the budget of its precision."""
    checks = []
    for metric, bound in budget.items():
        asked = DEFAULT_BUDGET.get(precision, {}).get(metric) != bound
        estimate = estimates.get(metric)
        if estimate is None:
            checks.append(Check(output, metric, bound, None, asked=asked, reason=_absent(metric, classifier)))
            continue
        ends = estimate.interval
        sure = None if ends is None else ends[0 if METRIC_BOUNDS[metric] == "min" else 1]
        checks.append(Check(output, metric, bound, estimate.value, sure, estimate.method, asked, samples=samples))
    return checks


def _absent(metric: str, classifier: bool) -> str:
    if metric in ("pixel_agreement", "mean_iou"):
        return "not applicable: the output is no map of channels"
    if not classifier:
        return "not applicable: no classification output"
    return "not applicable: five classes or fewer" if "top5" in metric else "not measured: the data have no labels"


def verdict(checks: Iterable[Check], non_finite: bool = False) -> Literal["pass", "fail", "undecided"]:
    """``"fail"`` if any bound is broken or any output is not finite; ``"pass"`` if every bound that counts is met.

    A default bound that does not apply does not count; one that was asked for does.
    """
    states = [check.state for check in checks if check.asked or check.state != "not measured"]
    if non_finite or "fail" in states:
        return "fail"
    return "pass" if states and all(state == "pass" for state in states) else "undecided"
