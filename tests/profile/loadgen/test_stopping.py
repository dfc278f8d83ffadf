"""Early stopping, against scipy's binomial distribution and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from csa_deploy.profile.loadgen.stopping import estimate, is_broken, is_shown, needed, percentile_of

SHARES = (0.9, 0.97, 0.99, 0.999)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("over", [0, 1, 2, 7, 40])
def test_shown_from_the_count_on_that_the_binomial_distribution_says(share: float, over: int) -> None:
    least = needed(over, share)
    assert binom.cdf(over, least, 1 - share) < 0.01 <= binom.cdf(over, least - 1, 1 - share)
    assert is_shown(least, over, share) and not is_shown(least - 1, over, share)


@pytest.mark.parametrize("over", [0, 3])
def test_a_percentile_of_many_nines_needs_no_memory(over: int) -> None:
    share = 1 - 1e-9
    least = needed(over, share)
    below, above = (binom.cdf(over, least + step, 1 - share) for step in (1000, -1000))
    assert least > 10**9 and below < 0.01 < above


def test_counts_that_mlperf_publishes() -> None:
    """One exception: 64 queries for p90, 662 for p99, 6,636 for p99.9 (mlperf.conf of Inference and Automotive)."""
    assert [needed(1, share) for share in (0.9, 0.99, 0.999)] == [64, 662, 6636]
    assert needed(0, 0.999) == 4603


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("queries", [1, 10, 150, 9000])
def test_broken_where_so_many_would_be_no_chance(share: float, queries: int) -> None:
    for over in {0, 1, 2, 5, queries // 10, queries // 5, queries}:
        expected = binom.sf(over - 1, queries, 1 - share) < 0.01
        assert is_broken(queries, over, share) == expected, over
        assert not (is_broken(queries, over, share) and is_shown(queries, over, share))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("queries", [63, 64, 661, 662, 6635, 6636, 8000])
def test_the_bound_is_the_highest_latency_that_may_be_an_exception(share: float, queries: int) -> None:
    latencies = np.random.default_rng(queries).lognormal(size=queries)
    allowed = [t for t in range(1, 60) if binom.cdf(t, queries, 1 - share) < 0.01]
    if queries > 60 / (1 - share) * 0.5:  # more exceptions than were tried
        allowed = [t for t in range(1, queries) if binom.cdf(t, queries, 1 - share) < 0.01]
    expected = np.sort(latencies)[queries - max(allowed)] if allowed else None
    assert estimate(latencies, share) == expected


def test_a_percentile_is_one_of_the_samples() -> None:
    latencies = np.arange(1000.0)[::-1]
    assert percentile_of(latencies, 0.999) == 999 and percentile_of(latencies, 0.5) == 500
    assert percentile_of(np.array([3.0]), 0.999) == 3
