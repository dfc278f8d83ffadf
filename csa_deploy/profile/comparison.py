"""Faster, slower or no difference: a ratio of two series of latencies with its interval, and gates that rest on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from csa_deploy.profile.statistics import CONFIDENCE, ENOUGH_FOR_INTERVAL, enough_for, interval_bounds, resamples

MINIMUM_EFFECT = 0.02
Outcome = Literal["faster", "slower", "no difference"]


@dataclass(frozen=True)
class Ratio:
    """Latency of B over that of A, at one percentile.

    Attributes:
        percentile: which one.
        a_ms: latency of A.
        b_ms: latency of B.
        ratio: ``b_ms / a_ms``.
        low: lower end of the ratio's interval.
        high: upper end.
        confidence: of the interval.
        minimum_effect: smallest relative change that counts.
    """

    percentile: float
    a_ms: float
    b_ms: float
    ratio: float
    low: float
    high: float
    confidence: float
    minimum_effect: float

    @property
    def outcome(self) -> Outcome:
        """``slower`` or ``faster`` when the interval excludes 1 and the change is at least the minimum effect."""
        if self.low > 1 and self.ratio >= 1 + self.minimum_effect:
            return "slower"
        if self.high < 1 and self.ratio <= 1 / (1 + self.minimum_effect):
            return "faster"
        return "no difference"

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the outcome."""
        return {**asdict(self), "outcome": self.outcome}


def compare_samples(
    a_ms: Sequence[float],
    b_ms: Sequence[float],
    *,
    percentile: float = 50.0,
    minimum_effect: float = MINIMUM_EFFECT,
    seed: int = 0,
) -> Ratio | None:
    """Compare two series of latencies (milliseconds, in the order in which they were measured).

    Returns:
        The ratio, or None when a series has too few samples for the percentile or for an interval.
    """
    a, b = np.asarray(a_ms, dtype=np.float64), np.asarray(b_ms, dtype=np.float64)
    if min(len(a), len(b)) < max(enough_for(percentile), ENOUGH_FOR_INTERVAL):
        return None
    drawn = np.percentile(resamples(b, seed + 1), percentile, axis=1) / np.percentile(
        resamples(a, seed), percentile, axis=1
    )
    low, high = np.percentile(drawn, interval_bounds())
    value_a, value_b = float(np.percentile(a, percentile)), float(np.percentile(b, percentile))
    return Ratio(
        percentile=percentile,
        a_ms=round(value_a, 4),
        b_ms=round(value_b, 4),
        ratio=round(value_b / value_a, 5),
        low=round(float(low), 5),
        high=round(float(high), 5),
        confidence=CONFIDENCE,
        minimum_effect=minimum_effect,
    )
