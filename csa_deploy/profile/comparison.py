"""Faster, slower or no difference shown: a ratio of two series of latencies with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from csa_deploy.profile.statistics import CONFIDENCE, OUTSIDE, quantile_levels, too_short
from csa_deploy.results import Stored

MINIMUM_EFFECT = 0.02
_DIGITS = 5  # of a ratio
Outcome = Literal["faster", "slower", "no difference shown"]


@dataclass(frozen=True)
class Ratio(Stored):
    """Latency of B over that of A, at one percentile.

    Attributes:
        a_ms: latency of A.
        b_ms: latency of B.
        ratio: ``b_ms / a_ms``.
        low: lower end of the ratio's interval.
        high: upper end; None where so few samples have none.
        confidence: of the interval.
        minimum_effect: smallest relative change that counts.
    """

    derived: ClassVar[tuple[str, ...]] = ("outcome",)
    percentile: float
    a_ms: float
    b_ms: float
    ratio: float
    low: float
    high: float | None
    confidence: float
    minimum_effect: float

    @property
    def outcome(self) -> Outcome:
        """``slower`` or ``faster`` when the interval excludes 1 and the change is at least the minimum effect."""
        most = 1 + self.minimum_effect  # rounded as the ratio is, so that what exactly meets it counts
        if self.low > 1 and self.ratio >= round(most, _DIGITS):
            return "slower"
        if self.high is not None and self.high < 1 and self.ratio <= round(1 / most, _DIGITS):
            return "faster"
        return "no difference shown"


def compare_samples(
    a_ms: Sequence[float],
    b_ms: Sequence[float],
    *,
    percentile: float = 50.0,
    minimum_effect: float = MINIMUM_EFFECT,
) -> Ratio | None:
    """Compare two series of latencies (milliseconds, in the order in which they were measured).

    Returns:
        The ratio, or None when a series has too few samples for an interval; :func:`too_short` says how many it needs.
    """
    if too_short(a_ms, percentile) or too_short(b_ms, percentile):
        return None
    a, b = np.asarray(a_ms, dtype=np.float64), np.asarray(b_ms, dtype=np.float64)
    (a_low, a_high), (b_low, b_high) = quantile_levels(a, percentile), quantile_levels(b, percentile)
    with np.errstate(divide="ignore"):  # what nothing bounds from below leaves an infinite ratio
        lowest, highest = np.divide.outer(b_low, a_high), np.divide.outer(b_high, a_low)
    # All pairs of levels are equally likely.
    low = np.quantile(lowest, OUTSIDE, method="lower")
    high = np.quantile(highest, 1 - OUTSIDE, method="higher")
    value_a, value_b = float(np.percentile(a, percentile)), float(np.percentile(b, percentile))
    return Ratio(
        percentile=percentile,
        a_ms=round(value_a, 6),
        b_ms=round(value_b, 6),
        ratio=round(value_b / value_a, _DIGITS),
        low=round(float(low), _DIGITS),
        high=round(float(high), _DIGITS) if np.isfinite(high) else None,
        confidence=CONFIDENCE,
        minimum_effect=minimum_effect,
    )
