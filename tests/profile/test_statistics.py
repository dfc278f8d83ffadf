"""Statistics of latencies, against series of known distribution."""

from __future__ import annotations

import numpy as np
import pytest

from csa_deploy.profile.comparison import compare_samples
from csa_deploy.profile.statistics import summarise


def series(median: float, n: int, seed: int, spread: float = 0.03) -> np.ndarray:
    """Latencies as machines give them: log-normal, one in fifty delayed, neighbours alike."""
    draw = np.random.default_rng(seed)
    noise = spread * draw.standard_normal(n)
    slow = 0.01 * np.repeat(draw.standard_normal(-(-n // 20)), 20)[:n]
    return median * np.exp(noise + slow) * np.where(draw.random(n) < 0.02, 3.0, 1.0)


def test_percentiles_are_those_of_the_samples_and_the_tail_is_kept() -> None:
    samples = np.arange(1, 2001, dtype=float)
    samples[-1] = 1e6
    got = summarise(np.random.default_rng(0).permutation(samples), batch=4)
    assert got.percentiles_ms["50"] == 1000.5
    assert got.percentiles_ms["99.9"] == pytest.approx(np.percentile(samples, 99.9), abs=1e-3)
    assert got.max_ms == 1e6
    assert len(got.samples_ms) == 2000
    assert got.throughput == pytest.approx(4000 / samples.mean(), abs=0.01)
    assert not got.drift.flagged


@pytest.mark.parametrize(("n", "missing"), [(50, {"99": 100, "99.9": 1000}), (100, {"99.9": 1000}), (1000, {})])
def test_a_percentile_needs_samples_above_it(n: int, missing: dict[str, int]) -> None:
    got = summarise(series(1.0, n, 0))
    assert got.too_few == missing
    assert [p for p, value in got.percentiles_ms.items() if value is None] == list(missing)
    assert [p for p, value in got.intervals_ms.items() if value is None] == list(missing)


def test_one_sample_is_its_own_median_and_no_interval() -> None:
    got = summarise([3.0])
    assert got.percentiles_ms["50"] == 3.0
    assert got.intervals_ms["50"] is None
    assert got.percentiles_ms["90"] is None
    seven, eight = summarise([3.0, 1.0, 7.0, 2.0, 6.0, 4.0, 5.0]), summarise([3.0, 1.0, 7.0, 2.0, 8.0, 6.0, 4.0, 5.0])
    assert seven.intervals_ms["50"] is None
    low, high = eight.intervals_ms["50"]
    assert (low, high) == (1.0, 8.0) and low < eight.percentiles_ms["50"] < high


def test_the_interval_holds_the_true_median() -> None:
    true = 10.0
    held = sum(
        low <= true * 1.003 and high >= true * 0.997
        for low, high in (summarise(series(true, 200, seed)).intervals_ms["50"] for seed in range(60))
    )
    assert held >= 54


def test_drift_is_flagged_and_noise_is_not() -> None:
    flat = series(10.0, 400, 1)
    rising = flat * np.linspace(1.0, 1.1, 400)
    assert summarise(rising).drift.flagged
    assert summarise(rising).drift.change == pytest.approx(0.075, abs=0.02)
    assert not any(summarise(series(10.0, 400, seed)).drift.flagged for seed in range(20))


def test_outliers_are_counted_not_dropped() -> None:
    samples = np.full(100, 1.0) + np.linspace(0, 0.01, 100)
    samples[[17, 60]] = 9.0
    got = summarise(samples)
    assert got.outliers.count == 2
    assert tuple(got.outliers.first) == (17, 60)
    assert got.max_ms == 9.0


def test_equal_samples_have_no_outliers_and_no_drift() -> None:
    got = summarise([2.0] * 64)
    assert got.outliers.above_ms is None
    assert not got.drift.flagged
    assert got.intervals_ms["50"] == (2.0, 2.0)


def test_a_slow_sample_among_equal_ones_is_an_outlier() -> None:
    """Their median absolute deviation is zero."""
    samples = np.full(64, 2.0)
    samples[40] = 100.0
    assert summarise(samples).outliers.count == 1
    assert summarise(samples).outliers.first == (40,)


def test_what_was_timed_is_kept_to_the_nanosecond() -> None:
    """A limit is held against what is stored: 0.00504 ms is not 0.005 ms."""
    got = summarise([0.0050441] * 20)
    assert got.samples_ms[0] == got.max_ms == got.percentiles_ms["50"] == 0.005044


def outcomes(n: int, runs: int, slowdown: float) -> list[str]:
    """Of pairs of simulated runs with n samples each, the second slower by a share."""
    pairs = ((series(10, n, 2 * s), series(10 * (1 + slowdown), n, 2 * s + 1)) for s in range(runs))
    return [compare_samples(a, b).outcome for a, b in pairs]


# The 99 % interval leaves out at most one equal pair in a hundred; these series are correlated, and count as fewer.
@pytest.mark.parametrize(("n", "runs", "false_alarms", "missed"), [(100, 200, 2, 6), (200, 60, 0, 0)])
def test_noise_is_no_difference_and_five_percent_is_slower(n: int, runs: int, false_alarms: int, missed: int) -> None:
    assert sum(outcome != "no difference shown" for outcome in outcomes(n, runs, 0.0)) <= false_alarms
    slower = outcomes(n, runs, 0.05)
    assert slower.count("slower") >= runs - missed
    assert slower.count("faster") == 0


def test_comparison_is_symmetric_in_its_outcome() -> None:
    a, b = series(10, 300, 5), series(11, 300, 6)
    assert compare_samples(a, b).outcome == "slower"
    assert compare_samples(b, a).outcome == "faster"


def test_a_large_but_uncertain_change_is_no_difference() -> None:
    draw = np.random.default_rng(3)
    a, b = draw.lognormal(0, 0.8, 20), 1.1 * draw.lognormal(0, 0.8, 20)
    assert compare_samples(a, b).outcome == "no difference shown"


def test_a_certain_but_tiny_change_is_no_difference() -> None:
    a = series(10, 5000, 1, spread=0.001)
    ratio = compare_samples(a, a * 1.005)
    assert ratio.low > 1.0 or ratio.ratio > 1.004
    assert ratio.outcome == "no difference shown"


def test_too_few_samples_give_no_comparison() -> None:
    assert compare_samples(series(1, 99, 0), series(1, 99, 1), percentile=99.0) is None
