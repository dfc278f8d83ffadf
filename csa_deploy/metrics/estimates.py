"""How the samples make one value, and how sure it is: the families that the entries of the table choose from.

Functions named ``sure_...`` take the value and its columns, those named ``change_...`` the columns of two runs on the
same samples; see :class:`csa_deploy.metrics.metric.Metric`.
"""

from __future__ import annotations

import math

import numpy as np

from csa_deploy.metrics.distance import snr
from csa_deploy.metrics.intervals import (
    FEWEST,
    Interval,
    log_ratio_interval,
    mcnemar,
    mean_interval,
    mostly_one,
    paired_difference,
    share,
)
from csa_deploy.metrics.metric import Sure

QUIET = 0.01
"""Part of the median energy of the samples below which an output is nearly zero."""
DECIBEL = 10 / math.log(10)  # per unit of a natural logarithm
EXTREME = "worst of the samples; no interval"
COUNT = "count of these samples; no interval"
BOOTSTRAP = "bootstrap-t over samples"
EXACT = "Clopper-Pearson"
MOSTLY_ONE = "Clopper-Pearson, of the samples that do not deviate at all"
PAIRED = "Bonett-Price, paired"

Taken = list[np.ndarray]


def largest(errors: np.ndarray) -> float:
    """The largest value of all samples."""
    return float(errors.max())


def largest_of_range(finite: np.ndarray, errors: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The largest error as a part of the reference's range over all samples; of a range of zero, the error itself."""
    spread = float(np.nanmax(high) - np.nanmin(low)) if finite.all() else 0.0
    return largest(errors) / (spread if spread > 0 else 1.0)


def smallest_cosine(finite: np.ndarray, cosines: np.ndarray, signal: np.ndarray, noise: np.ndarray) -> float:
    """The smallest cosine of all samples; -1 where one is spoilt.

    The direction of an output that is nearly zero (an image without an object) is that of rounding. Its error counts as
    on an output of :data:`QUIET` of the median energy: with the smallest cosine that an error of this energy can bring
    there, sqrt(1 - noise / energy), where its own is smaller. At that energy both are the same bound, so nothing jumps.
    """
    if not finite.all():
        return -1.0
    energy = QUIET * float(np.median(signal))
    quiet = (signal < energy) & (noise < energy)
    if quiet.any():
        cosines = cosines.copy()
        cosines[quiet] = np.maximum(cosines[quiet], np.sqrt(1 - noise[quiet] / energy))
    return float(cosines.min())


def sure_of_extreme(value: float, *columns: np.ndarray) -> Sure:
    """Of the worst sample of these, nothing is said about others."""
    return Sure(None, EXTREME)


def ratio(finite: np.ndarray, errors: np.ndarray, reference: np.ndarray) -> float:
    """Sum of the errors over that of the reference's magnitudes."""
    if not finite.all():
        return math.inf
    top, bottom = float(errors.sum()), float(reference.sum())
    return top / bottom if bottom > 0 else (0.0 if top == 0 else math.inf)


def sure_of_ratio(value: float, finite: np.ndarray, errors: np.ndarray, reference: np.ndarray) -> Sure:
    """By the logarithm of the ratio."""
    ends = log_ratio_interval([errors], [reference]) if finite.all() else None
    if ends:
        return Sure((math.exp(ends[0]), math.exp(ends[1]) if ends[1] < 700 else math.inf), BOOTSTRAP)
    return Sure(_certain(value, 0.0, len(errors)), BOOTSTRAP)


def decibels(finite: np.ndarray, signal: np.ndarray, noise: np.ndarray) -> float:
    """Signal-to-noise ratio of all samples together."""
    return snr(float(signal.sum()), float(noise.sum())) if finite.all() else -math.inf


def sure_of_decibels(value: float, finite: np.ndarray, signal: np.ndarray, noise: np.ndarray) -> Sure:
    """By the logarithm of the ratio."""
    ends = log_ratio_interval([signal], [noise]) if finite.all() else None
    if ends:
        return Sure((DECIBEL * ends[0], DECIBEL * ends[1]), BOOTSTRAP)
    return Sure(_certain(value, math.inf, len(signal)), BOOTSTRAP)


def change_of_decibels(a: Taken, b: Taken) -> Sure:
    """By the logarithm of the four sums."""
    ends = log_ratio_interval([b[1], a[2]], [b[2], a[1]])
    return Sure((DECIBEL * ends[0], DECIBEL * ends[1]) if ends else None, BOOTSTRAP)


def _certain(value: float, identical: float, samples: int) -> Interval | None:
    """Where every output is the reference's to the bit, every resampling says so; of a few samples nothing does."""
    return (value, value) if value == identical and samples >= FEWEST else None


def sure_of_mean(value: float, values: np.ndarray) -> Sure:
    """Of a mean of values of at least 0."""
    ends = mean_interval(values) if np.isfinite(values).all() else None
    return Sure((max(ends[0], 0.0), ends[1]) if ends else None, BOOTSTRAP)


def sure_of_part(value: float, values: np.ndarray) -> Sure:
    """Of a mean of values in 0..1."""
    if not np.isfinite(values).all():
        return Sure(None, BOOTSTRAP)
    if few := mostly_one(values):
        return Sure(few, MOSTLY_ONE)
    ends = mean_interval(values)
    return Sure((max(ends[0], 0.0), min(ends[1], 1.0)) if ends else None, BOOTSTRAP)


def change_of_mean(a: Taken, b: Taken) -> Sure:
    """Of the mean of the samples' changes."""
    return Sure(mean_interval(b[0] - a[0]), BOOTSTRAP)


def hits(column: np.ndarray) -> float:
    """Share of the samples that are hits."""
    return float(column.mean())


def sure_of_hits(value: float, column: np.ndarray) -> Sure:
    """Exact."""
    return Sure(share(int(column.sum()), len(column)), EXACT)


def change_of_hits(a: Taken, b: Taken) -> Sure:
    """Paired."""
    lost, gained = lost_and_gained(a[0], b[0])
    low, high = paired_difference(int(lost.sum()), int(gained.sum()), len(lost))  # of A - B
    return Sure((-high, -low), PAIRED, mcnemar(int(lost.sum()), int(gained.sum())))


def lost_and_gained(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which samples only the first gets right, and which only the second."""
    return (first > 0) & (second == 0), (second > 0) & (first == 0)


def drop(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Counted, not a difference of shares: 5 of 1,000 are 0.005, while 0.990 - 0.985 is more than that."""
    lost, gained = lost_and_gained(reference, candidate)
    return (int(lost.sum()) - int(gained.sum())) / len(reference)


def sure_of_drop(value: float, reference: np.ndarray, candidate: np.ndarray) -> Sure:
    """Paired."""
    lost, gained = (int(which.sum()) for which in lost_and_gained(reference, candidate))
    return Sure(paired_difference(lost, gained, len(reference)), PAIRED, mcnemar(lost, gained))
