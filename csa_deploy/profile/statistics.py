"""What a series of latencies says: percentiles, an interval for each, jitter, drift and outliers; no sample is dropped.

Intervals are order statistics: exact for independent samples of any distribution. Neighbouring samples share clock and
cache state, so a series counts as fewer independent ones: its length over its autocorrelation time.

Sources: David and Nagaraja, "Order Statistics" (2003); Sokal, "Monte Carlo Methods in Statistical Mechanics" (1997),
for the autocorrelation time; Kendall, Biometrika 41 (1954), for the bias of a correlation; Hamed and Rao, J. Hydrology
204 (1998), for a trend test that knows correlation; Iglewicz and Hoaglin (1993), for the modified z-score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from csa_deploy.binomial import distribution, ranks_around
from csa_deploy.records.profile import PERCENTILE_OF, Drift, Interval, LatencySummary, Outliers

CONFIDENCE = 0.99
OUTSIDE = (1 - CONFIDENCE) / 2  # chance beyond each end of an interval
_DIGITS = 6  # of milliseconds: nanoseconds, as the clocks have them
OUTLIER_Z = 3.5
DRIFT_Z = 3.29  # two-sided, one in a thousand
DRIFT_EFFECT = 0.02
CORRELATED_Z = 2.33  # one in a hundred series of independent samples looks more correlated than that
CORRELATED = 0.2  # a correlation of neighbours that counts even where so few samples do not prove it
_LEVELS = (np.arange(512) + 0.5) / 512


def enough_for(percentile: float) -> int:
    """Samples from which on a percentile is measured: at least one must lie above it."""
    return 1 if percentile == 50 else round(100 / (100 - percentile))


def enough_to_pass(percentile: float) -> int:
    """Independent samples from which on a percentile's interval has an upper end: 8, 51, 104, 528, 5296.

    Of fewer, all may lie below the percentile with more chance than is allowed beyond one end of the interval.
    """
    return math.ceil(math.log(OUTSIDE) / math.log(percentile / 100))


def summarise(samples_ms: Sequence[float] | np.ndarray, *, batch: int = 1) -> LatencySummary:
    """Describe a series of latencies.

    Args:
        samples_ms: every timed inference in order, milliseconds; at least one.
        batch: samples of the network per inference.
    """
    samples = np.round(np.asarray(samples_ms, dtype=np.float64), _DIGITS)  # what is stored is what is judged
    measured = [p for p in PERCENTILE_OF.values() if len(samples) >= enough_for(p)]
    values = dict(zip(measured, np.percentile(samples, measured), strict=True))
    worth = independent(samples)
    limits = {p: interval(samples, p, worth) for p in measured}
    return LatencySummary(
        samples_ms=tuple(samples.tolist()),
        percentiles_ms={
            f"{p:g}": round(float(values[p]), _DIGITS) if p in values else None for p in PERCENTILE_OF.values()
        },
        intervals_ms={f"{p:g}": limits.get(p) for p in PERCENTILE_OF.values()},
        confidence=CONFIDENCE,
        independent=worth,
        too_few={f"{p:g}": enough_for(p) for p in PERCENTILE_OF.values() if p not in values},
        mean_ms=round(float(samples.mean()), _DIGITS),
        min_ms=float(samples.min()),
        max_ms=float(samples.max()),
        jitter_ms=round(float(samples.std()), _DIGITS),
        throughput=round(1000.0 * batch / float(samples.mean()), 2),
        drift=drift(samples),
        outliers=outliers(samples),
    )


def interval(samples: np.ndarray, percentile: float, worth: int) -> Interval | None:
    """Order statistics around a percentile, of a series that is worth so many independent samples.

    Each end is None where there are too few; None without either.
    """
    low, high = ranks_around(worth, percentile / 100, OUTSIDE)
    ordered, n = np.sort(samples), len(samples)
    ends = (
        float(ordered[max(low * n // worth, 1) - 1]) if low > 0 else None,
        float(ordered[-(-high * n // worth) - 1]) if high <= worth else None,
    )
    return None if ends == (None, None) else ends


def quantile_levels(samples: np.ndarray, percentile: float) -> tuple[np.ndarray, np.ndarray]:
    """Values between which the true percentile lies, at :data:`_LEVELS` of confidence, from both sides.

    The number of samples below the percentile is binomial: so many, and the percentile lies between this sample and
    the next. From below it may be 0 and from above infinite.
    """
    worth, n = independent(samples), len(samples)
    below = np.searchsorted(np.cumsum(distribution(worth, percentile / 100)), _LEVELS)
    ends = np.concatenate([[0.0], np.sort(samples), [math.inf]])
    return ends[below * n // worth], ends[np.minimum(-(-(below + 1) * n // worth), n + 1)]


def too_short(samples: Sequence[float] | np.ndarray, percentile: float) -> str:
    """Why a series has no whole interval at a percentile; empty where it has one."""
    need, count = enough_to_pass(percentile), len(samples)
    if count < need:
        return f"an interval of p{percentile:g} needs {need} timed inferences, there are {count}"
    worth = independent(np.asarray(samples, dtype=np.float64))
    if worth < need:
        return (
            f"an interval of p{percentile:g} needs {need} independent inferences; neighbours are so alike that the "
            f"{count} timed ones count as {worth}"
        )
    return ""


def independent(samples: np.ndarray, *, without_trend: bool = False) -> int:
    """As how many independent samples a series counts: its length over its autocorrelation time.

    The time is the larger of that of the measured correlations, summed until they are noise, and of a first-order
    process with the correlation of neighbours. Ranks are correlated, so that outliers do not hide it. A correlation
    that so many independent samples would show by chance counts as none.
    """
    n = len(samples)
    ranks = _ranks(samples) - (n + 1) / 2
    if without_trend:
        position = np.arange(n) - (n - 1) / 2
        ranks = ranks - position * float(ranks @ position) / max(float(position @ position), 1.0)
    energy = float(ranks @ ranks)
    if n < 4 or energy < 1e-9:
        return n
    spectrum = np.fft.rfft(ranks, 2 * n)
    correlation = np.fft.irfft(spectrum * spectrum.conj())[:n] / energy
    near = round(math.sqrt(n))
    beside, around = float(correlation[1]), float(correlation[1 : near + 1].sum())
    if beside < min(CORRELATED_Z / math.sqrt(n), CORRELATED) and around < CORRELATED_Z * math.sqrt(near / n):
        return n
    beside = min(beside + (1 + 4 * beside) / n, 0.999)  # as measured it is too small
    sums = 1 + 2 * np.cumsum(correlation[1:])
    enough = np.flatnonzero(np.arange(1, n) >= 5 * sums)
    time = max(1.0, float(sums[enough[0]]) if len(enough) else float(n), (1 + beside) / (1 - beside))
    return max(1, int(n / time))


def drift(samples: np.ndarray) -> Drift:
    """Compare the beginning of the series with its end; see :class:`Drift`."""
    n = len(samples)
    if n < 8:  # a quarter of fewer is a single sample
        return Drift(0.0, 0.0, False)
    quarter = n // 4
    change = float(np.median(samples[-quarter:]) / np.median(samples[:quarter]) - 1)
    rho = float(np.corrcoef(_ranks(samples), np.arange(n))[0, 1]) if np.ptp(samples) else 0.0
    worth = independent(samples, without_trend=True)
    flagged = abs(rho) * math.sqrt(worth - 1) > DRIFT_Z and abs(change) >= DRIFT_EFFECT
    return Drift(round(change, 4), round(rho, 4), bool(flagged))


def _ranks(samples: np.ndarray) -> np.ndarray:
    """Ranks from 1 on, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(samples, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])


def outliers(samples: np.ndarray) -> Outliers:
    """Find slow samples far from the median, on the scale of the median absolute deviation.

    Where half of the samples are equal that scale is zero, and the mean absolute deviation takes its place.
    """
    distance = np.abs(samples - np.median(samples))
    deviation = float(np.median(distance)) / 0.6745 or float(distance.mean()) * 1.2533  # both 1 for a standard normal
    if deviation == 0:
        return Outliers(0, 0.0, None, ())
    above = float(np.median(samples)) + OUTLIER_Z * deviation
    found = np.flatnonzero(samples > above)
    return Outliers(len(found), round(len(found) / len(samples), 4), round(above, 4), tuple(found[:10].tolist()))
