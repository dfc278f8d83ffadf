"""Histogram of the absolute values of one tensor, filled in one pass in memory that does not grow.

The range is a power of two that doubles when a larger value comes; neighbouring bins are then merged. Bin borders
are multiples of a power of two, so scaling is exact in floating point, and neither the order nor the batching of the
samples changes a count: an interrupted or a repeated pass gives the same histogram, to the last count. Of a large
sample, values at fixed places are counted, and the largest of all is taken. The idea of a histogram that stretches is
TensorRT's; equal-width bins over [0, range) are what its entropy calibration works on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

BINS = 4096
SAMPLED = 1 << 16
"""Values of one sample of a tensor that are counted at the most; the largest absolute value is taken of all."""
_BLOCK = 1 << 15  # values worked on at a time: the scratch arrays stay in the processor's cache
_EXPONENT = BINS.bit_length() - 1


class Scratch:
    """Work space that histograms share."""

    def __init__(self) -> None:
        self.floats = np.empty(_BLOCK, np.float32)
        self.indices = np.empty(_BLOCK, np.int64)


@dataclass
class Histogram:
    """Counts of |x| in ``BINS`` bins over [0, 2**exponent).

    Attributes:
        counts: int64 of shape (BINS,).
        exponent: of the range; None until a value other than zero came (zeros lie in bin 0 of any range).
        amax: largest absolute value.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    exponent: int | None = None
    amax: float = 0.0

    @property
    def width(self) -> float:
        """Width of a bin; 0 when only zeros came."""
        return 0.0 if self.exponent is None else 2.0 ** (self.exponent - _EXPONENT)

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def centres(self) -> np.ndarray:
        """Centres of the bins, float64 of shape (BINS,)."""
        return (np.arange(BINS) + 0.5) * self.width

    def add(self, values: np.ndarray, scratch: Scratch) -> bool:
        """Count float32 values of shape (samples, ...): all of a sample, or every n-th where it has many.

        The step is coprime to the size of a sample, so that what is counted lies in all rows, columns and channels.

        Returns:
            False when a value is NaN or infinite; none is counted then.
        """
        if not values.size:
            return True
        rows = values.reshape(values.shape[0] if values.ndim else 1, -1)
        if not self._cover(max(float(rows.max()), -float(rows.min()))):
            return False
        step = step_of(rows.shape[1])
        for row in rows if step > 1 else [rows.reshape(-1)]:
            self._count(row[::step], scratch)
        return True

    def _count(self, flat: np.ndarray, scratch: Scratch) -> None:
        """Count values that the range covers."""
        if self.exponent is None:
            self.counts[0] += flat.size
            return
        scale = np.float32(1.0 / self.width)
        for start in range(0, flat.size, _BLOCK):
            part = flat[start : start + _BLOCK]
            floats, indices = scratch.floats[: part.size], scratch.indices[: part.size]
            np.abs(part, out=floats)
            np.multiply(floats, scale, out=floats)
            np.copyto(indices, floats, casting="unsafe")
            np.add.at(self.counts, indices, 1)

    def _cover(self, largest: float) -> bool:
        """Stretch the range over ``largest``; False when it is not finite."""
        if not np.isfinite(largest):
            return False
        self.amax = max(self.amax, largest)
        if largest == 0.0:
            return True
        # Below FP32's smallest normal number the reciprocal of the width would overflow.
        needed = max(int(np.frexp(largest)[1]), -100)
        if self.exponent is None:
            self.exponent = needed
        self._stretch(needed)
        return True

    def _stretch(self, exponent: int) -> None:
        """Merge neighbouring bins until the range is that of ``exponent``, if it is smaller now."""
        while self.exponent is not None and self.exponent < exponent:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, np.int64)])
            self.exponent += 1

    def take(self, other: Histogram) -> None:
        """Take over the counts of another histogram, which is empty then."""
        self.amax = max(self.amax, other.amax)
        if self.exponent is None:
            self.exponent = other.exponent
        if other.exponent is not None and self.exponent is not None:
            self._stretch(other.exponent)
            other._stretch(self.exponent)
        self.counts += other.counts
        vars(other).update(vars(Histogram()))

    def stated(self) -> list[Any]:
        """All but the counts, for :meth:`of`."""
        return [getattr(self, item.name) for item in fields(self)[1:]]

    @classmethod
    def of(cls, counts: np.ndarray, stated: Sequence[Any]) -> Histogram:
        """The histogram that stated this; raises ValueError where that was one with other fields."""
        names = [item.name for item in fields(cls)[1:]]
        return cls(counts, **dict(zip(names, stated, strict=True)))

    def clipped(self, threshold: float) -> float:
        """Share of the values above a threshold, to the resolution of a bin; exactly 0 from the largest value on."""
        if not self.total or self.width == 0.0 or threshold >= self.amax:
            return 0.0
        first = int(np.ceil(threshold / self.width))
        return float(self.counts[first:].sum() / self.total)


def step_of(size: int) -> int:
    """Distance of the values that are counted in a sample of ``size`` values."""
    step = -(-size // SAMPLED) or 1
    while math.gcd(step, size) > 1:
        step += 1
    return step
