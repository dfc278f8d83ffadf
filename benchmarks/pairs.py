"""Side-by-side measurement: A and B in turn, the ratio pair by pair, so that a drift of the machine cancels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """Comparison of two things measured in turn.

    Attributes:
        what: what was compared, and the unit of the medians.
        a: name of A.
        b: name of B.
        median_a: median of A.
        median_b: median of B.
        ratio: median of the pairwise ratios A / B; below 1 means that A needs less.
        low: smallest pairwise ratio.
        high: largest pairwise ratio.
        pairs: number of pairs.
    """

    what: str
    a: str
    b: str
    median_a: float
    median_b: float
    ratio: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, what: str, a: str, b: str, values: Sequence[tuple[float, float]]) -> Ratio:
        """The comparison of a figure of A with one of B, from one pair of them or several."""
        ratios = [x / y if y else math.inf for x, y in values]
        medians = [statistics.median(side) for side in zip(*values, strict=True)]
        return cls(what, a, b, medians[0], medians[1], statistics.median(ratios), min(ratios), max(ratios), len(values))

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class NotMeasured:
    """What could not be measured, and why."""

    what: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def measure(what: str, a: tuple[str, Callable[[], float]], b: tuple[str, Callable[[], float]], pairs: int) -> Ratio:
    """Call A and B in turn, each returning its own measurement, after one uncounted call of each."""
    (name_a, run_a), (name_b, run_b) = a, b
    run_a(), run_b()
    return Ratio.of(what, name_a, name_b, [(run_a(), run_b()) for _ in range(pairs)])
