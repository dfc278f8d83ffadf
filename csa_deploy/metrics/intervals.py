"""Confidence intervals, all two-sided at 95 %: how sure a metric is, given the samples that it was measured on.

Sources: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
Biometrika 26 (1934); Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions
based on paired data", J. Educ. Behav. Stat. 37 (2012); McNemar, Psychometrika 12 (1947), in its exact form; Efron,
"Nonparametric standard errors and confidence intervals", Canadian J. Stat. 9 (1981), for the bootstrap-t; Hesterberg,
"What teachers should know about the bootstrap", The American Statistician 69 (2015), for the expanded percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np

from csa_deploy.binomial import at_least
from csa_deploy.metrics.metric import Interval

LEVEL = 0.95
_TAIL = (1 - LEVEL) / 2
_Z = 1.959963984540054  # quantile of the normal distribution at 1 - _TAIL
_HALVINGS = 60
_NOTHING = 1e-9  # a relative error below it is rounding
_AT_ONCE = 200_000  # numbers in memory while resampling
RESAMPLES = 1000
FEWEST = 20
"""Samples from which a bootstrap says anything: fewer do not show the spread and the skewness of the data."""
FEW_DEVIATE = 10
"""Samples that must deviate at all before a bootstrap knows by how much: of fewer, a resample may hold none."""


def share(hits: int, total: int) -> Interval:
    """Clopper-Pearson interval of a share: it never covers less than it states, also near 0 and 1."""
    low = 0.0 if hits == 0 else _solve(lambda p: at_least(hits, total, p), _TAIL)
    high = 1.0 if hits == total else 1 - _solve(lambda p: at_least(total - hits, total, p), _TAIL)
    return low, high


def samples_for_share(bound: float) -> int | None:
    """Fewest samples, all of them hits, that show a share of at least ``bound``; None where no number does."""
    return math.ceil(math.log(_TAIL) / math.log(bound)) if 0 < bound < 1 else None


def paired_difference(lost: int, gained: int, total: int) -> Interval:
    """Bonett-Price interval of (lost - gained) / total for the same samples under two conditions.

    Args:
        lost: samples that only the first got right.
        gained: samples that only the second got right.
        total: all samples.
    """
    first, second = (lost + 1) / (total + 2), (gained + 1) / (total + 2)
    spread = _Z * math.sqrt((first + second - (first - second) ** 2) / (total + 2))
    return max(-1.0, first - second - spread), min(1.0, first - second + spread)


def samples_without_change(bound: float) -> int | None:
    """Fewest samples, none of them changed, that show a difference of at most ``bound``; None where no number does."""
    return max(1, math.ceil(_Z * math.sqrt(2) / bound) - 2) if bound > 0 else None


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p-value for "as many are lost as gained"."""
    discordant = lost + gained
    return min(1.0, 2 * at_least(max(lost, gained), discordant, 0.5)) if discordant else 1.0


def mean_interval(values: np.ndarray) -> Interval | None:
    """Bootstrap-t interval of a mean; None below :data:`FEWEST` samples.

    The error of each resample is measured in its own standard error: that follows skewed data, of which percentiles of
    the resampled means know too little. None as well where some values are not 0, but fewer than :data:`FEW_DEVIATE`.
    """
    if len(values) < FEWEST or 0 < np.count_nonzero(values) < FEW_DEVIATE:
        return None
    centre, moved = float(np.mean(values)), np.asarray(values, np.float64) - np.mean(values)
    if not np.ptp(values):
        return float(values[0]), float(values[0])
    sums = _resampled(np.stack([moved, moved**2], axis=1)) / len(values)
    errors = np.sqrt(np.maximum(sums[:, 1] - sums[:, 0] ** 2, 0.0) / len(values))
    return _studentised(centre, float(np.std(values)) / math.sqrt(len(values)), sums[:, 0], errors)


def log_ratio_interval(above: Sequence[np.ndarray], below: Sequence[np.ndarray]) -> Interval | None:
    """Bootstrap-t interval of log(product of the sums ``above`` / product of the sums ``below``).

    As many arrays above as below, a value of at least 0 per sample each; None below :data:`FEWEST` samples, or where
    an array has fewer than :data:`FEW_DEVIATE` values that are not 0.
    """
    table = np.stack([*above, *below], axis=1).astype(np.float64)
    signs = np.asarray([1.0] * len(above) + [-1.0] * len(below))
    totals = table.sum(axis=0)
    if len(table) < FEWEST or (np.count_nonzero(table, axis=0) < FEW_DEVIATE).any():
        return None
    table = table / totals  # each column sums to 1: the logarithm of a resampled sum is its change
    first, second = np.triu_indices(len(signs))
    weights = signs[first] * signs[second] * np.where(first == second, 1.0, 2.0)
    sums = _resampled(np.concatenate([table, table[:, first] * table[:, second]], axis=1))
    centre = float((signs * np.log(totals)).sum())
    error = math.sqrt(float(((table @ signs) ** 2).sum()))
    if error < _NOTHING:
        return centre, centre
    with np.errstate(divide="ignore", invalid="ignore"):
        logs, products = np.log(sums[:, : len(signs)]), sums[:, len(signs) :]
        scale = sums[:, first] * sums[:, second]
        errors = np.sqrt(np.maximum((products / scale) @ weights, 0.0))
        return _studentised(centre, error, logs @ signs, errors)


def drawn(count: int) -> np.ndarray:
    """How often each sample is taken when drawn with replacement, (resamples, samples)."""
    return np.concatenate(list(_draws(count)))


def _draws(count: int) -> Iterator[np.ndarray]:
    draw = np.random.RandomState(0)  # its streams never change, so equal data give equal intervals
    step = max(1, _AT_ONCE // count)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        taken = draw.randint(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(taken.ravel(), minlength=rows * count).reshape(rows, count)


def _resampled(table: np.ndarray) -> np.ndarray:
    """Sums of the columns over samples drawn with replacement, (resamples, columns)."""
    return np.concatenate([times @ table for times in _draws(len(table))])


def _studentised(centre: float, error: float, moved: np.ndarray, errors: np.ndarray) -> Interval:
    """From the changes of a statistic in resamples, and their standard errors, to its interval."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = moved / np.where(errors > _NOTHING * error, errors, 0.0)
    # 0 / 0, or infinite by infinite: such a resample says nothing about either side.
    low, high = (np.sort(np.where(np.isnan(found), worst, found)) for worst in (-math.inf, math.inf))
    first, last = math.floor(_TAIL * RESAMPLES), math.ceil((1 - _TAIL) * RESAMPLES) - 1
    return centre - error * float(high[last]), centre - error * float(low[first])


def resampled(rows: np.ndarray, statistic: Callable[[np.ndarray], float], *, additive: bool) -> np.ndarray:
    """A statistic of samples drawn with replacement, (resamples,); the same draws for the same number of samples.

    Args:
        rows: what is known of each sample, (samples, numbers).
        statistic: of such rows, any number of them.
        additive: whether it looks at the sums of the columns alone: then it gets them as one row.
    """
    if additive:
        return np.asarray([statistic(sums[None]) for sums in _resampled(rows)])
    every = np.arange(len(rows))
    return np.asarray([statistic(rows[np.repeat(every, t)]) for times in _draws(len(rows)) for t in times])


def unusual(rows: np.ndarray) -> int:
    """How many rows are not the one that is there most often."""
    return len(rows) - int(np.unique(rows, axis=0, return_counts=True)[1].max())


def percentiles(values: np.ndarray, samples: int, deviate: int, certain: float) -> Interval | None:
    """Interval by the percentiles of resampled values, expanded as Student's t is wider than the normal distribution.

    Args:
        values: the statistic's, of resamples.
        samples: how many there are; None below :data:`FEWEST`.
        deviate: how many of them are unlike the others, or moved; None below :data:`FEW_DEVIATE`.
        certain: the value where none does.
    """
    if samples < FEWEST or 0 < deviate < FEW_DEVIATE:
        return None
    if not deviate:
        return certain, certain
    tail = NormalDist().cdf(-math.sqrt(samples / (samples - 1)) * student(samples - 1))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def pivotal(values: np.ndarray, samples: int, deviate: int, value: float) -> Interval | None:
    """Interval of percentiles mirrored at the value itself; arguments as of :func:`percentiles`.

    Statistics that are no mean, as mean IoU and mAP, are biased on resamples, which lack some samples and repeat
    others: mirrored the bias goes out instead of counting twice (Davison and Hinkley, "Bootstrap methods and their
    application", 1997, section 5.2).
    """
    found = percentiles(values, samples, deviate, value)
    return (2 * value - found[1], 2 * value - found[0]) if found else None


def student(freedom: int) -> float:
    """Quantile of Student's t at the level of all intervals; Abramowitz and Stegun 26.7.5, to 1e-5 from 19 on."""
    z, f = _Z, float(freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / f**power for power, term in enumerate(terms, 1))


def mostly_one(values: np.ndarray) -> Interval | None:
    """Interval of a mean of values in 0..1 of which few are below 1; None where more are, see :data:`FEW_DEVIATE`.

    A sample that deviates loses at most all, so the mean is at least the share of those that do not: Clopper-Pearson.
    """
    whole = int((values >= 1.0).sum())
    return (share(whole, len(values))[0], 1.0) if len(values) - whole < FEW_DEVIATE else None


def _solve(increasing: Callable[[float], float], wanted: float) -> float:
    """The lower end of the place where an increasing function on 0..1 reaches a value, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < wanted else (low, middle)
    return low
