"""How far two answers of a graph are apart: per output, and per channel, so that a wide channel hides nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SINGLE_EPS = float(np.finfo(np.float32).eps)
_UNITS = 4
"""Units in the last place that a result may be off: a weight that takes over another is itself rounded."""

_FEWEST = 4
"""Positions that a channel needs to be judged on its own; with fewer the whole output is one channel."""


@dataclass(frozen=True)
class Deviation:
    """Two arrays, compared.

    Attributes:
        error: largest difference, relative to the range of the expected array; infinite where not comparable.
        channels: largest absolute difference per channel; empty where the arrays are equal or not comparable.
        scales: range of each channel (its largest magnitude where it is constant).
        units: of each channel, some units in the last place of its largest magnitude.
        reason: why they cannot be compared; empty otherwise.
    """

    error: float
    channels: np.ndarray
    scales: np.ndarray
    units: np.ndarray
    reason: str = ""

    def beyond(self, bounds: np.ndarray) -> bool:
        """Whether any channel differs by more than its bound, an absolute number."""
        return bool(self.reason) or not bool((self.channels <= bounds).all())


_NONE = np.zeros(0)


def deviation(expected: np.ndarray, got: np.ndarray | None) -> Deviation:
    """Compare an output with what is expected; the same NaN and inf at the same places count as equal."""
    if got is None or expected.shape != got.shape or expected.dtype != got.dtype:
        return Deviation(math.inf, _NONE, _NONE, _NONE, "has another shape or type")
    if expected.dtype.kind != "f":
        equal = np.array_equal(expected, got)
        return Deviation(0.0, _NONE, _NONE, _NONE) if equal else Deviation(math.inf, _NONE, _NONE, _NONE, "differs")
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], got[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return Deviation(math.inf, _NONE, _NONE, _NONE, "is NaN or inf in other places")
    if not finite.any():
        return Deviation(0.0, _NONE, _NONE, _NONE)
    wide = np.promote_types(expected.dtype, np.float32)
    want, have = expected.astype(wide, copy=False), got.astype(wide, copy=False)
    if not finite.all():  # NaN marks what is not compared
        want, have = np.where(finite, want, np.nan), np.where(finite, have, np.nan)
    with np.errstate(over="ignore"):  # an infinite difference is beyond every bound
        rows, differences = _channels(want), _channels(np.abs(have - want))
    seen = ~np.isnan(rows).all(axis=1)
    rows, differences = rows[seen], differences[seen]
    # In the array's own type a range may be infinite, and with it the bound that is a share of it.
    low, high = (limit.reduce(rows, axis=1).astype(np.longdouble) for limit in (np.fmin, np.fmax))
    channels = np.fmax.reduce(differences, axis=1).astype(np.longdouble)
    largest = np.maximum(np.abs(high), np.abs(low))
    spread = (high.max() - low.min()) or largest.max() or 1.0
    scales = np.where(high > low, high - low, largest)
    units = _UNITS * float(np.finfo(expected.dtype).eps) * largest
    return Deviation(float(channels.max() / spread), channels, scales, units)


def _channels(array: np.ndarray) -> np.ndarray:
    """One row for each channel (axis 1), or a single row where a channel is too small to have a range."""
    if array.ndim < 3 or math.prod(array.shape[2:]) < _FEWEST:
        return array.reshape(1, -1)
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)


def tolerance_of(dtype: np.dtype, tolerance: float) -> float:
    """``tolerance``, which is for FP32, in another type: as many units of it in FP64, a few units in FP16."""
    if dtype.itemsize >= 4:
        return tolerance * (float(np.finfo(dtype).eps) / SINGLE_EPS if dtype == np.float32 else 1e-3)
    return max(tolerance, _UNITS * float(np.finfo(dtype).eps))
