"""What a series of latencies says: percentiles, an interval for each, jitter, drift and outliers; no sample is dropped.

Sources: moving-block bootstrap, Kuensch (1989), Annals of Statistics 17; modified z-score, Iglewicz and Hoaglin (1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
CONFIDENCE = 0.99
RESAMPLES = 1000
# Of fewer, all lie on one side of the true median with more than 1 % chance, and a bootstrap cannot know: no interval.
# (Every higher percentile needs more samples than that to be measured at all.)
ENOUGH_FOR_INTERVAL = 7
# Neighbouring samples share clock and cache state, so resampling takes runs of a tenth of the series, not single ones.
BLOCKS = 10
OUTLIER_Z = 3.5
DRIFT_Z = 3.29  # two-sided, one in a thousand
DRIFT_EFFECT = 0.02


@dataclass(frozen=True)
class Drift:
    """Whether latency moved while it was measured.

    Attributes:
        change: median of the last quarter over that of the first, minus 1.
        rank_correlation: Spearman's, of latency with position.
        flagged: the correlation is no chance (z above 3.29) and the change is at least 2 %.
    """

    change: float
    rank_correlation: float
    flagged: bool


@dataclass(frozen=True)
class Outliers:
    """Samples with a modified z-score above 3.5; they stay in every figure.

    Attributes:
        count: how many.
        share: of all samples.
        above_ms: from which latency on a sample counts as one; None when half of the samples are equal.
        first: position of the first ones, at most ten.
    """

    count: int
    share: float
    above_ms: float | None
    first: tuple[int, ...]


def enough_for(percentile: float) -> int:
    """Samples from which on a percentile is measured: at least one must lie above it."""
    return 1 if percentile == 50 else round(100 / (100 - percentile))


def summarise(samples_ms: Sequence[float] | np.ndarray, *, batch: int = 1, seed: int = 0) -> dict[str, Any]:
    """Describe a series of latencies.

    Args:
        samples_ms: every timed inference in order, milliseconds; at least one.
        batch: samples of the network per inference.
        seed: of the bootstrap.

    Returns:
        ``samples_ms``; ``percentiles_ms`` and ``intervals_ms`` by percentile, None where the series is too short for
        it (any interval: :data:`ENOUGH_FOR_INTERVAL`); ``too_few`` (percentile -> samples it needs); ``mean_ms``,
        ``min_ms``, ``max_ms``, ``jitter_ms`` (standard deviation), ``throughput`` (samples of the network per second),
        ``drift``, ``outliers``.
    """
    samples = np.asarray(samples_ms, dtype=np.float64)
    measured = [p for p in PERCENTILES if len(samples) >= enough_for(p)]
    values = dict(zip(measured, np.percentile(samples, measured), strict=True))
    limits: dict[float, list[float]] = {}
    if len(samples) >= ENOUGH_FOR_INTERVAL:
        drawn = np.percentile(resamples(samples, seed), measured, axis=1)
        low, high = np.percentile(drawn, interval_bounds(), axis=1)
        limits = {p: [round(float(a), 4), round(float(b), 4)] for p, a, b in zip(measured, low, high, strict=True)}
    return {
        "samples_ms": [round(v, 4) for v in samples.tolist()],
        "percentiles_ms": {f"{p:g}": round(float(values[p]), 4) if p in values else None for p in PERCENTILES},
        "intervals_ms": {f"{p:g}": limits.get(p) for p in PERCENTILES},
        "confidence": CONFIDENCE,
        "too_few": {f"{p:g}": enough_for(p) for p in PERCENTILES if p not in values},
        "mean_ms": round(float(samples.mean()), 4),
        "min_ms": round(float(samples.min()), 4),
        "max_ms": round(float(samples.max()), 4),
        "jitter_ms": round(float(samples.std()), 4),
        "throughput": round(1000.0 * batch / float(samples.mean()), 2),
        "drift": asdict(drift(samples)),
        "outliers": asdict(outliers(samples)),
    }


def interval_bounds() -> tuple[float, float]:
    """Percentiles of the bootstrap distribution that bound the interval."""
    outside = 50 * (1 - CONFIDENCE)
    return outside, 100 - outside


def resamples(samples: np.ndarray, seed: int, count: int = RESAMPLES) -> np.ndarray:
    """Bootstrap series, (count, n): runs of neighbouring samples drawn with replacement."""
    n = len(samples)
    length = max(1, n // BLOCKS)
    starts = np.random.default_rng(seed).integers(0, n - length + 1, (count, -(-n // length)))
    index = (starts[:, :, None] + np.arange(length)).reshape(count, -1)[:, :n]
    return samples[index]


def drift(samples: np.ndarray) -> Drift:
    """Compare the beginning of the series with its end; see :class:`Drift`."""
    n = len(samples)
    if n < 8:  # a quarter of fewer is a single sample
        return Drift(0.0, 0.0, False)
    quarter = n // 4
    change = float(np.median(samples[-quarter:]) / np.median(samples[:quarter]) - 1)
    rho = float(np.corrcoef(_ranks(samples), np.arange(n))[0, 1]) if np.ptp(samples) else 0.0
    flagged = abs(rho) * np.sqrt(n - 1) > DRIFT_Z and abs(change) >= DRIFT_EFFECT
    return Drift(round(change, 4), round(rho, 4), bool(flagged))


def _ranks(samples: np.ndarray) -> np.ndarray:
    """Ranks, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(samples, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def outliers(samples: np.ndarray) -> Outliers:
    """Find slow samples far from the median, on the scale of the median absolute deviation."""
    median = float(np.median(samples))
    deviation = float(np.median(np.abs(samples - median)))
    if deviation == 0:
        return Outliers(0, 0.0, None, ())
    above = median + OUTLIER_Z * deviation / 0.6745  # a normal's deviation is 0.6745 of its standard deviation
    found = np.flatnonzero(samples > above)
    return Outliers(len(found), round(len(found) / len(samples), 4), round(above, 4), tuple(found[:10].tolist()))
