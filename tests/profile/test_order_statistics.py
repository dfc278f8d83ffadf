"""Intervals of percentiles against scipy's binomial distribution, and their coverage by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kendalltau, norm, spearmanr

from csa_deploy.binomial import at_least, distribution, ranks_around
from csa_deploy.profile.comparison import Ratio, compare_samples
from csa_deploy.profile.gates import limit_gates
from csa_deploy.profile.statistics import drift, enough_to_pass, independent, interval, summarise
from csa_deploy.records.profile import PERCENTILE_OF

OUTSIDE = 0.005


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20_000), st.floats(1e-4, 1 - 1e-4))
@pytest.mark.shows("MEA-32")
def test_the_distribution_is_scipys(total: int, share: float) -> None:
    found, expected = distribution(total, share), binom.pmf(np.arange(total + 1), total, share)
    assert np.abs(found - expected).max() < 1e-9
    hits = int(total * share)
    assert at_least(hits, total, share) == pytest.approx(binom.sf(hits - 1, total, share), abs=1e-9)


def test_edges_of_the_distribution() -> None:
    assert distribution(3, 0.0).tolist() == [1, 0, 0, 0] and distribution(3, 1.0).tolist() == [0, 0, 0, 1]
    assert distribution(0, 0.5).tolist() == [1.0]
    assert [at_least(k, 3, p) for k, p in ((0, 0.0), (1, 0.0), (3, 1.0), (0, 0.5))] == [1.0, 0.0, 1.0, 1.0]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6000), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]), st.sampled_from([0.005, 0.025, 0.1]))
def test_ranks_leave_out_no_more_than_stated_and_could_not_be_nearer(total: int, share: float, outside: float) -> None:
    """The quantile lies below the r-th sample when fewer than r of all lie below the quantile."""
    low, high = ranks_around(total, share, outside)
    assert binom.cdf(low - 1, total, share) <= outside + 1e-9 < binom.cdf(low, total, share) + 2e-9
    assert high == total + 1 or binom.sf(high - 1, total, share) <= outside + 1e-9
    assert binom.sf(high - 2, total, share) > outside - 1e-9


@pytest.mark.parametrize(("percentile", "need"), [(50.0, 8), (90.0, 51), (95.0, 104), (99.0, 528), (99.9, 5296)])
def test_the_samples_that_an_upper_end_needs(percentile: float, need: int) -> None:
    assert enough_to_pass(percentile) == need
    assert binom.pmf(need, need, percentile / 100) <= OUTSIDE < binom.pmf(need - 1, need - 1, percentile / 100)
    samples = np.random.default_rng(0).random(need)
    assert interval(samples, percentile, need)[1] == samples.max()
    assert (interval(samples[1:], percentile, need - 1) or (0, None))[1] is None


def test_by_hand() -> None:
    """Of eight samples all lie on one side of the median in 2 of 256 cases; of nine in 2 of 512."""
    eight = np.array([5.0, 1, 8, 3, 2, 7, 6, 4])
    assert interval(eight, 50.0, 8) == (1.0, 8.0) and interval(eight[:7], 50.0, 7) is None
    assert interval(np.arange(1.0, 17), 50.0, 16) == (3.0, 14.0)  # P(X <= 2) = 137/65536, P(X <= 3) = 697/65536


def chain(draw: np.random.Generator, n: int, correlation: float) -> np.ndarray:
    """Log-normal latencies around 1 ms with 3 % spread, neighbours correlated (a first-order process)."""
    noise = draw.standard_normal(n) * math.sqrt(1 - correlation**2)
    state, found = draw.standard_normal(), np.empty(n)
    for i in range(n):
        state = correlation * state + noise[i]
        found[i] = state
    return np.exp(0.03 * found)


@pytest.mark.parametrize(("correlation", "n"), [(0.5, 400), (0.9, 1000)])
def test_a_correlated_series_counts_as_fewer_samples(correlation: float, n: int) -> None:
    """By theory as n (1 - r) / (1 + r); never as many more, and not as a small part of that."""
    draw = np.random.default_rng(0)
    found = np.array([independent(chain(draw, n, correlation)) for _ in range(40)])
    theory = n * (1 - correlation) / (1 + correlation)
    assert 0.6 * theory < np.median(found) < 1.1 * theory
    assert (found > 2 * theory).sum() <= 2


def test_independent_samples_are_counted_as_they_are() -> None:
    draw = np.random.default_rng(1)
    whole = [independent(draw.lognormal(size=n)) == n for n in (100, 528, 2000) for _ in range(40)]
    assert sum(whole) >= 0.95 * len(whole)
    assert independent(np.full(50, 3.0)) == 50 and independent(np.array([1.0])) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=8, max_size=60))
def test_the_drifts_correlation_is_scipys(values: list[int]) -> None:
    samples = np.asarray(values, float)
    expected = spearmanr(samples, np.arange(len(samples))).statistic if np.ptp(samples) else 0.0
    assert drift(samples).rank_correlation == pytest.approx(expected, abs=1e-4)
    if kendalltau(samples, np.arange(len(samples))).pvalue > 0.5:  # another trend test, far from any trend
        assert not drift(samples).flagged


def test_a_series_without_enough_independent_samples_decides_nothing_and_says_so() -> None:
    draw = np.random.default_rng(2)
    slow = chain(draw, 100, 0.98)
    (gate,) = limit_gates({"a": {"p50_ms": 2.0}}, {"a": summarise(slow)}, {})
    assert gate.verdict == "undecided" and "neighbours are so alike that the 100 timed ones count as" in gate.reason
    assert compare_samples(slow, 2 * slow) is None


def test_an_interval_without_upper_end_fails_but_never_passes() -> None:
    latency = {"a": summarise(np.random.default_rng(3).random(100) + 10)}
    fast, slow = (limit_gates({"a": {"p99_ms": bound}}, latency, {})[0] for bound in (100.0, 5.0))
    assert (fast.verdict, slow.verdict) == ("undecided", "fail") and slow.high is None


def test_a_change_that_exactly_meets_the_smallest_that_counts_counts_both_ways() -> None:
    for percent in range(1, 60):
        up, down = 1 + percent / 100, round(1 / (1 + percent / 100), 5)
        effect = percent / 100
        assert Ratio(50, 10, 10 * up, round(up, 5), 1.001, 2.0, 0.99, effect).outcome == "slower"
        assert Ratio(50, 10 * up, 10, down, 0.1, 0.999, 0.99, effect).outcome == "faster"


def missed(draw: Callable[[], np.ndarray], percentile: float, truth: float, runs: int) -> tuple[float, float]:
    """How often the truth lies below and above the interval."""
    below = above = 0
    for _ in range(runs):
        low, high = summarise(draw()).intervals_ms[f"{percentile:g}"] or (None, None)
        below += low is not None and truth < low
        above += high is not None and truth > high
    return below / runs, above / runs


# Of 1,000 runs with a chance of 0.5 %, more than 12 miss once in 300 such tests.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("correlation", "n", "most"),
    [(0.0, 8, 0.012), (0.0, 20, 0.012), (0.0, 100, 0.012), (0.0, 500, 0.012), (0.5, 100, 0.012), (0.9, 100, 0.02)],
)
@pytest.mark.shows("MEA-32")
def test_coverage_of_the_median(correlation: float, n: int, most: float) -> None:
    draw = np.random.default_rng(4)
    below, above = missed(lambda: chain(draw, n, correlation), 50.0, 1.0, 1000)
    assert max(below, above) <= most, (below, above)


@pytest.mark.slow
@pytest.mark.parametrize(("percentile", "n"), [(90.0, 51), (95.0, 104), (95.0, 400), (99.0, 528), (99.0, 2000)])
@pytest.mark.parametrize("slow", [0.0, 0.02])
@pytest.mark.shows("MEA-32", "ERR-26")
def test_a_violated_tail_limit_passes_as_seldom_as_stated(percentile: float, n: int, slow: float) -> None:
    """The true percentile lies just above the limit; one in fifty inferences may be three times as slow."""
    draw = np.random.default_rng(5)
    share = percentile / 100
    truth = (
        math.exp(0.03 * norm.ppf(share / (1 - slow)))
        if share < 1 - slow
        else 3 * math.exp(0.03 * norm.ppf((share - (1 - slow)) / slow))
    )
    name = f"p{percentile:g}_ms"
    passed = 0
    for _ in range(600):
        samples = draw.lognormal(0, 0.03, n) * np.where(draw.random(n) < slow, 3.0, 1.0)
        gate = limit_gates({"a": {name: truth * (1 - 1e-9)}}, {"a": summarise(samples)}, {})[0]
        passed += gate.verdict == "pass"
    assert passed <= 9, passed  # 0.5 % are 3; more than 9 come once in a thousand such tests


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "n"), [(0.0, 20), (0.0, 100), (0.5, 100), (0.9, 100), (0.9, 200)])
def test_equal_pairs_are_called_different_as_seldom_as_stated(correlation: float, n: int) -> None:
    draw = np.random.default_rng(6)
    different = 0
    for _ in range(500):
        ratio = compare_samples(chain(draw, n, correlation), chain(draw, n, correlation), minimum_effect=1e-9)
        different += ratio is not None and ratio.outcome != "no difference shown"
    assert different <= 11, different  # 1 % are 5


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "n"), [(0.0, 100), (0.5, 100), (0.9, 100), (0.9, 400)])
def test_drift_is_seldom_seen_where_there_is_none(correlation: float, n: int) -> None:
    """One in a thousand is stated; at a correlation of 0.9 it may be one in a hundred."""
    draw = np.random.default_rng(7)
    flagged = sum(drift(chain(draw, n, correlation)).flagged for _ in range(1000))
    assert flagged <= (5 if correlation < 0.9 else 12), flagged


def test_every_percentile_is_between_its_ends() -> None:
    got = summarise(np.random.default_rng(8).lognormal(size=6000))
    for percentile in PERCENTILE_OF.values():
        low, high = got.intervals_ms[f"{percentile:g}"]
        assert low < got.percentiles_ms[f"{percentile:g}"] < high
