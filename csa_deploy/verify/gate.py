"""The accuracy gate: metrics against a budget, one check per bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from csa_deploy.config import METRIC_BOUNDS


@dataclass(frozen=True)
class Check:
    """One bound of a budget and what was measured; ``value`` is None where the metric is not defined."""

    output: str
    metric: str
    bound: float
    value: float | None
    reason: str = ""

    @property
    def passed(self) -> bool | None:
        """True, False, or None for a metric that could not be measured (never a pass)."""
        if self.value is None:
            return None
        if math.isnan(self.value):
            return False
        return self.value >= self.bound if METRIC_BOUNDS[self.metric] == "min" else self.value <= self.bound

    def to_json(self) -> dict[str, Any]:
        """JSON form, with the verdict and which side is bounded."""
        return {**asdict(self), "side": METRIC_BOUNDS[self.metric], "passed": self.passed}


def judge(output: str, values: Mapping[str, float], budget: Mapping[str, float], *, classifier: bool) -> list[Check]:
    """Hold the metrics of one output against a budget."""
    checks = []
    for metric, bound in budget.items():
        reason = ""
        if metric not in values:
            reason = (
                "not measured: the data have no labels" if classifier else "not applicable: no classification output"
            )
        checks.append(Check(output, metric, bound, values.get(metric), reason))
    return checks
