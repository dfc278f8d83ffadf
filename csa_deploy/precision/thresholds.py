"""From a histogram of absolute values to the largest value that INT8 represents: four methods.

All are symmetric: the threshold T maps to 127, the scale is T / 127.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from csa_deploy.precision.histogram import Histogram

Method = Literal["minmax", "entropy", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

LEVELS = 127
PERCENTILE = 99.99
_GROUPS = 128  # values that the magnitude of an INT8 number takes
_STRIDE = 4  # bins between two candidates of the entropy method
_LARGEST_CLIPPED = 0.01  # share of the values that the entropy method may clip
_CANDIDATES = 160  # thresholds that the squared-error method tries
_SMALLEST = 0.05  # of the largest value: no method clips further than this


def threshold(histogram: Histogram, method: Method) -> float:
    """The threshold of a tensor; 0 when all of its values were zero."""
    if histogram.amax == 0.0:
        return 0.0
    chosen = _METHODS[method](histogram)
    return float(min(max(chosen, _SMALLEST * histogram.amax), histogram.amax))


def minmax(histogram: Histogram) -> float:
    """The largest absolute value: nothing is clipped."""
    return histogram.amax


def percentile(histogram: Histogram) -> float:
    """The value that 99.99 % of the values do not exceed."""
    cumulated = np.cumsum(histogram.counts)
    wanted = PERCENTILE / 100 * cumulated[-1]
    return float((np.searchsorted(cumulated, wanted) + 1) * histogram.width)


def entropy(histogram: Histogram) -> float:
    """The threshold whose 128 levels keep most information: smallest Kullback-Leibler divergence.

    The method of S. Migacz, "8-bit inference with TensorRT" (GTC 2017), which TensorRT's entropy calibrators
    implement: P is the histogram up to the threshold with all that lies beyond in its last bin, Q is the histogram up
    to the threshold with each of 128 groups of bins spread evenly over those of its bins that P fills. The lowest bin
    takes the count of its neighbour, since exact zeros need no resolution. One deviation: candidates that clip more
    than 1 % of the values are left out. Where one value dominates (the background of a digit), the divergence is zero
    for the threshold just above it, however much is clipped (seen: a network input cut at 15 % of its range).
    With cumulated sums one candidate costs 128 steps, whatever its number of bins.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    used = int(np.ceil(histogram.amax / histogram.width))
    if used <= _GROUPS or not counts.any():
        return histogram.amax
    total = counts.sum()
    ends = np.unique(np.append(np.arange(_GROUPS, used, _STRIDE), used))
    clipped = 1.0 - np.cumsum(histogram.counts)[ends - 1] / histogram.total
    ends = ends[clipped <= _LARGEST_CLIPPED]
    sums, filled = _cumulated(counts), _cumulated((counts > 0).astype(np.float64))
    information = _cumulated(counts * np.log(np.where(counts > 0, counts, 1.0)))
    last, beyond = counts[ends - 1], total - sums[ends]
    edges = (np.arange(_GROUPS + 1)[None, :] * ends[:, None]) // _GROUPS
    in_group, bins = np.diff(sums[edges], axis=1), np.diff(filled[edges], axis=1)
    in_last = last + beyond
    bins[:, -1] += (last == 0) & (beyond > 0)
    in_p = in_group.copy()
    in_p[:, -1] += beyond
    p_log_p = information[ends] - _x_log_x(last) + _x_log_x(in_last)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_log_q = np.where(in_p > 0, in_p * (np.log(in_group) - np.log(bins)), 0.0).sum(axis=1)
        # Sum of p log(p / q) with p = P / total and q = Q / (values up to the threshold).
        divergence = (p_log_p - p_log_q) / total - np.log(total) + np.log(sums[ends])
    divergence[~np.isfinite(divergence)] = np.inf
    return float(ends[int(np.argmin(divergence))] * histogram.width)


def mse(histogram: Histogram) -> float:
    """The threshold with the smallest mean squared error of rounding and clipping."""
    kept = np.flatnonzero(histogram.counts)
    values, weights = histogram.centres[kept], histogram.counts[kept].astype(np.float64)
    best, best_error = histogram.amax, np.inf
    for candidate in histogram.amax * np.linspace(1.0, _SMALLEST, _CANDIDATES):
        scale = candidate / LEVELS
        error = values - np.minimum(np.rint(values / scale), LEVELS) * scale
        squared = float(weights @ (error * error))
        if squared < best_error:
            best, best_error = float(candidate), squared
    return best


def _cumulated(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... values, shape (n + 1,)."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _x_log_x(values: np.ndarray) -> np.ndarray:
    return values * np.log(np.where(values > 0, values, 1.0))


_METHODS: dict[Method, Callable[[Histogram], float]] = {
    "minmax": minmax,
    "entropy": entropy,
    "percentile": percentile,
    "mse": mse,
}
