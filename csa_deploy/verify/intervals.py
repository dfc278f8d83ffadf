"""Confidence intervals, all two-sided at 95 %: how sure a metric is, given the samples that it was measured on.

Sources: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
Biometrika 26 (1934); Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions
based on paired data", J. Educ. Behav. Stat. 37 (2012); McNemar, Psychometrika 12 (1947), in its exact form; Efron's
percentile bootstrap (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from csa_deploy.binomial import at_least

LEVEL = 0.95
_TAIL = (1 - LEVEL) / 2
_Z = 1.959963984540054  # quantile of the normal distribution at 1 - _TAIL
_HALVINGS = 60
_AT_ONCE = 200_000  # numbers in memory while resampling
RESAMPLES = 1000
FEWEST = 10
"""Samples from which a bootstrap says anything: fewer do not show the spread of the data."""

Interval = tuple[float, float]


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


def bootstrap(
    columns: Mapping[str, np.ndarray], statistic: Callable[[Mapping[str, np.ndarray]], np.ndarray]
) -> Interval | None:
    """Percentile bootstrap over samples; None below :data:`FEWEST` samples.

    Args:
        columns: values per sample, each of shape (N,).
        statistic: from the resampled sums of the columns, each of shape (resamples,), to the statistic.
    """
    names, table = list(columns), np.stack(list(columns.values()), axis=1).astype(np.float64)
    if len(table) < FEWEST:
        return None
    draw = np.random.RandomState(0)  # its streams never change, so equal data give equal intervals
    step = max(1, _AT_ONCE // table.size)
    counts = [min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step)]
    sums = np.concatenate([table[draw.randint(0, len(table), (n, len(table)))].sum(axis=1) for n in counts])
    found = statistic({name: sums[:, i] for i, name in enumerate(names)})
    low, high = np.sort(found)[[math.floor(_TAIL * RESAMPLES), math.ceil((1 - _TAIL) * RESAMPLES) - 1]]
    return float(low), float(high)


def _solve(increasing: Callable[[float], float], wanted: float) -> float:
    """The lower end of the place where an increasing function on 0..1 reaches a value, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < wanted else (low, middle)
    return low
