"""The binomial distribution, exactly: what intervals of shares and of percentiles rest on."""

from __future__ import annotations

import math

import numpy as np


def distribution(total: int, share: float) -> np.ndarray:
    """P(X = k) for k = 0..total, X binomial with the success probability ``share``."""
    if share <= 0.0 or share >= 1.0:
        return np.eye(total + 1)[total if share >= 1.0 else 0]
    count = np.arange(total)
    # Each from the one before; factorials of many samples would overflow.
    steps = np.log((total - count) / (count + 1)) + math.log(share) - math.log1p(-share)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def at_least(hits: int, total: int, share: float) -> float:
    """P(X >= hits) for X binomial(total, share)."""
    if share <= 0.0 or share >= 1.0:
        return float(hits <= 0 or (share >= 1.0 and hits <= total))
    return min(1.0, float(distribution(total, share)[max(hits, 0) :].sum()))


def at_most(hits: int, total: int, share: float) -> float:
    """P(X <= hits) for X binomial(total, share), 0 < share < 1, of ``hits + 1`` terms: ``total`` may be any number."""
    count = np.arange(hits)
    steps = np.log((total - count) / (count + 1)) + math.log(share) - math.log1p(-share)
    return min(1.0, float(np.exp(total * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps)])).sum()))


def ranks_around(total: int, share: float, outside: float) -> tuple[int, int]:
    """Ranks, from 1 on, of the sorted samples between which the quantile ``share`` lies.

    Each end is passed with a chance of at most ``outside``; this holds for samples of any distribution, if they are
    independent. David and Nagaraja, "Order Statistics" (2003), section 7.1.

    Returns:
        The two ranks; 0 and ``total + 1`` where so few samples have no such end.
    """
    below = np.cumsum(distribution(total, share))  # P(at most k samples lie below the quantile)
    low = int(np.searchsorted(below, outside, side="right"))
    above = np.cumsum(distribution(total, 1 - share))  # the same from the other end
    return low, total + 1 - int(np.searchsorted(above, outside, side="right"))
