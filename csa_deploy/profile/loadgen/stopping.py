"""Early stopping as MLPerf defines it: how many queries show a percentile of the latency at 99 % confidence.

A run shows that a share ``p`` of all queries holds a bound when as few exceptions as it has, or fewer, would be a
chance below 1 % if the share were no more than ``p`` (inference_rules.adoc, appendix "Early Stopping").
"""

from __future__ import annotations

import math

import numpy as np

from csa_deploy.binomial import at_least, at_most, distribution

_ALPHA = 0.01
"""1 minus the confidence."""


def is_shown(queries: int, over: int, share: float) -> bool:
    """Whether ``queries``, of which ``over`` lie above a bound, show that a share of all lies at or below it."""
    return queries > over and at_most(over, queries, 1 - share) < _ALPHA


def is_broken(queries: int, over: int, share: float) -> bool:
    """Whether they show the contrary: so many would be a chance below 1 % if the share held."""
    return over > 0 and at_least(over, queries, 1 - share) < _ALPHA


def needed(over: int, share: float) -> int:
    """The fewest queries that show a share with so many above the bound."""
    low, high = over, over + 1
    while not is_shown(high, over, share):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_shown(middle, over, share) else (middle, high)
    return high


def estimate(latencies: np.ndarray, share: float) -> float | None:
    """Upper bound of a percentile, as the load generator states it; None where the queries are too few.

    It takes the ``t``-th highest latency, with ``t`` the most exceptions at which so many queries show the share.
    """
    queries = len(latencies)
    allowed = int(np.searchsorted(np.cumsum(distribution(queries, 1 - share)), _ALPHA)) - 1
    return float(np.sort(latencies)[queries - allowed]) if allowed >= 1 else None


def percentile_of(latencies: np.ndarray, share: float) -> float:
    """A percentile as the load generator counts it: the sample of rank ``floor(n * share)``, from 0 on."""
    return float(np.sort(latencies)[math.floor(len(latencies) * share)])
