"""From a histogram of absolute values to the largest value that INT8 represents: five methods.

All are symmetric: the threshold T maps to 127, the scale is T / 127.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import get_args

import numpy as np

from csa_deploy.options import CalibrationMethod
from csa_deploy.precision.histogram import Histogram

Method = CalibrationMethod
METHODS: tuple[Method, ...] = get_args(Method)

USUAL_METHOD: Method = "mse"
PUBLISHED: Method = "entropy-published"

INT8_LEVELS = 127
PERCENTILE = Fraction(9999, 100)
_GROUPS = 128  # values that the magnitude of an INT8 number takes
_STRIDE = 4  # bins between two candidates of the entropy method
_LARGEST_CLIPPED = 0.01  # share of the values that the entropy method may clip
_CANDIDATES = 160  # thresholds that the squared-error method tries
_SMALLEST = 0.05  # of the largest value: no method clips further than this, but for the published one


def threshold(histogram: Histogram, method: Method) -> float:
    """The threshold of a tensor; 0 when all of its values were zero."""
    if histogram.amax == 0.0:
        return 0.0
    smallest = 0.0 if method == "entropy-published" else _SMALLEST * histogram.amax
    return float(min(max(_METHODS[method](histogram), smallest), histogram.amax))


def minmax(histogram: Histogram) -> float:
    """The largest absolute value: nothing is clipped."""
    return histogram.amax


def percentile(histogram: Histogram) -> float:
    """The upper edge of the bin in which the value lies that 99.99 % of the values do not exceed."""
    cumulated = np.cumsum(histogram.counts)
    wanted = math.ceil(PERCENTILE * int(cumulated[-1]) / 100)
    return float((np.searchsorted(cumulated, wanted) + 1) * histogram.width)


def entropy(histogram: Histogram) -> float:
    """As :func:`published_entropy`, with two deviations.

    The lowest bin takes the count of its neighbour, since exact zeros need no resolution. Candidates that clip more
    than 1 % of the values are left out: where one value dominates (the background of a digit), the divergence is zero
    for the threshold just above it, however much is clipped. Seen on ``csa_digits``: the network's input cut at 15 % of
    its range, 80 % of the digits right instead of 99 %.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    return _smallest_divergence(histogram, counts, _LARGEST_CLIPPED) * histogram.width


def published_entropy(histogram: Histogram) -> float:
    """The threshold whose 128 levels keep most information: smallest Kullback-Leibler divergence.

    The method of S. Migacz, "8-bit inference with TensorRT" (GTC 2017), which TensorRT's entropy calibrators
    implement: P is the histogram up to the threshold with all that lies beyond in its last bin, Q is the histogram up
    to the threshold with each of 128 groups of bins spread evenly over those of its bins that P fills. The threshold
    is the centre of the bin that follows. There it is 2,048 bins and every number of them, here 2,048 to 4,096 and
    every fourth. The slides do not say which group a bin belongs to where the bins are no multiple of 128; NVIDIA's
    open code (pytorch-quantization) puts bin j of i into group floor(128 j / i), and so does this.
    """
    counts = histogram.counts.astype(np.float64)
    return (_smallest_divergence(histogram, counts, 1.0) + 0.5) * histogram.width


def _smallest_divergence(histogram: Histogram, counts: np.ndarray, most_clipped: float) -> int:
    """Number of bins that the best candidate keeps, of those that clip no more than a share of the values.

    With cumulated sums one candidate costs 128 steps, whatever its number of bins.
    """
    used = int(histogram.amax / histogram.width) + 1  # the bin that the largest value lies in is the last
    if used <= _GROUPS or not counts.any():
        return used
    total = counts.sum()
    ends = np.unique(np.append(np.arange(_GROUPS, used, _STRIDE), used))
    clipped = 1.0 - np.cumsum(histogram.counts)[ends - 1] / histogram.total
    ends = ends[clipped <= most_clipped]
    sums, filled = _cumulated(counts), _cumulated((counts > 0).astype(np.float64))
    information = _cumulated(counts * np.log(np.where(counts > 0, counts, 1.0)))
    last, beyond = counts[ends - 1], total - sums[ends]
    edges = -(-np.arange(_GROUPS + 1)[None, :] * ends[:, None] // _GROUPS)  # group g begins at ceil(g i / 128)
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
    return int(ends[int(np.argmin(divergence))])


def mse(histogram: Histogram) -> float:
    """The threshold with the smallest mean squared error of rounding and clipping."""
    kept = np.flatnonzero(histogram.counts)
    values, weights = np.minimum(histogram.centres[kept], histogram.amax), histogram.counts[kept].astype(np.float64)
    best, best_error = histogram.amax, np.inf
    for candidate in histogram.amax * np.linspace(1.0, _SMALLEST, _CANDIDATES):
        scale = candidate / INT8_LEVELS
        error = values - np.minimum(np.rint(values / scale), INT8_LEVELS) * scale
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
    "entropy-published": published_entropy,
    "percentile": percentile,
    "mse": mse,
}
