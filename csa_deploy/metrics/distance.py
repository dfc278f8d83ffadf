"""Distances of an output from its reference, each defined once: the gate, the INT8 search and the reports use these.

Edges, the same for all of them: equal outputs are infinitely close, also where both are zero; an error on a reference
of zero is infinitely large; a sum that is not finite is the worst there is, never "identical".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np


def exactly(values: np.ndarray) -> np.ndarray:
    """In FP64, or 64-bit integers in long double, which holds them all: two that differ may become the same in FP64."""
    wide = np.longdouble if values.dtype.kind in "iu" and values.dtype.itemsize == 8 else np.float64
    return values.astype(wide)


def snr(signal: float, noise: float) -> float:
    """Signal-to-noise ratio in dB: 10 log10(sum of squares of the reference over that of the error).

    Infinite without noise, minus infinite without signal, and minus infinite where either sum is not finite.
    """
    return float(decibels(signal, noise))


def decibels(signal: Any, noise: Any) -> np.ndarray:
    """:func:`snr` of arrays, element by element; any shapes that broadcast."""
    signal, noise = np.broadcast_arrays(np.asarray(signal, np.float64), np.asarray(noise, np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        # The difference of logarithms: a quotient of sums overflows and underflows before they do.
        found = 10.0 * (np.log10(signal) - np.log10(noise))
    found = np.where(noise == 0.0, math.inf, found)
    lost = ~(np.isfinite(signal) & np.isfinite(noise)) | ((signal <= 0.0) & (noise > 0.0))
    return np.asarray(np.where(lost, -math.inf, found))


def cosine(want: np.ndarray, got: np.ndarray) -> float:
    """Cosine similarity of two vectors in -1..1; 1 when both are zero, 0 when one is, NaN of what is not finite."""
    first, second = (_scaled(np.asarray(v, np.float64).ravel()) for v in (want, got))
    norms = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    if norms == 0.0:
        return 1.0 if not first.any() and not second.any() else 0.0
    return max(-1.0, min(1.0, float(first @ second) / norms)) if math.isfinite(norms) else math.nan


def _scaled(vector: np.ndarray) -> np.ndarray:
    """Divided by its largest value: the squares of very small ones would vanish."""
    largest = float(np.abs(vector).max(initial=0.0))
    return vector / largest if 0.0 < largest < math.inf else vector


def mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of exact arithmetic, rounded once: three times 0.003 have the mean 0.003 and meet a bound of 0.003."""
    array = np.asarray(values, np.float64).ravel()
    if not np.isfinite(array).all():
        return float(array.mean())
    return float(statistics.mean(array.tolist()))
