"""Intervals against published values and by their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from csa_deploy.verify.intervals import FEWEST, bootstrap, mcnemar, paired_difference, samples_for_share, share
from csa_deploy.verify.summary import snr, summarise


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.30850),
        (10, 10, 0.69150, 1.0),
        (5, 10, 0.18709, 0.81291),
        (81, 263, 0.25269, 0.36764),
        (999, 1000, 0.994441, 0.999975),
    ],
)
def test_clopper_pearson(hits: int, total: int, low: float, high: float) -> None:
    assert share(hits, total) == pytest.approx((low, high), abs=2e-4)


@pytest.mark.parametrize("truth", [0.5, 0.9, 0.99])
def test_coverage_is_never_below_what_is_stated(truth: float) -> None:
    draw = np.random.default_rng(0)
    hits = draw.binomial(50, truth, 400)
    intervals = {int(h): share(int(h), 50) for h in set(hits)}
    covered = np.mean([intervals[int(h)][0] <= truth <= intervals[int(h)][1] for h in hits])
    assert covered >= 0.93  # 0.95 within the noise of 400 draws


def test_the_samples_that_a_bound_needs() -> None:
    needed = samples_for_share(0.99)
    assert needed is not None
    assert share(needed, needed)[0] >= 0.99 > share(needed - 1, needed - 1)[0]
    assert samples_for_share(1.0) is None and samples_for_share(0.0) is None


def test_mcnemar_is_exact() -> None:
    assert mcnemar(0, 0) == 1.0 and mcnemar(5, 5) == 1.0
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(9, 1) == mcnemar(1, 9)


def test_paired_difference_is_centred_and_shrinks() -> None:
    low, high = paired_difference(0, 0, 1000)
    assert low == -high and 0.0 < high < 0.004
    low, high = paired_difference(30, 10, 1000)
    assert low < 0.02 < high and low > 0.0


def test_bootstrap() -> None:
    draw = np.random.default_rng(1)
    values = draw.standard_normal(400) + 3
    found = bootstrap({"x": values}, lambda sums: sums["x"] / 400)
    assert found is not None
    low, high = found
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.15)
    assert bootstrap({"x": values}, lambda sums: sums["x"] / 400) == found
    assert bootstrap({"x": values[: FEWEST - 1]}, lambda sums: sums["x"]) is None


def columns(count: int, noise: float) -> dict[str, np.ndarray]:
    ones = np.ones(count)
    draw = np.random.default_rng(0).uniform(0.5, 1.5, count)
    return {
        "finite": ones,
        "max_abs_error": draw,
        "mean_abs_error": draw,
        "mean_abs_reference": ones,
        "cosine": ones,
        "signal": ones,
        "noise": noise * draw,
        "low": -ones,
        "high": ones,
    }


def test_noise_has_an_interval_and_no_noise_has_none_to_doubt() -> None:
    found = summarise(columns(50, 1e-4))["snr_db"]
    assert found.interval is not None and found.interval[0] < found.value < found.interval[1]
    assert found.value == pytest.approx(snr(50.0, float(columns(50, 1e-4)["noise"].sum())))
    assert summarise(columns(50, 0.0))["snr_db"].interval == (math.inf, math.inf)
    assert summarise(columns(3, 1e-4))["snr_db"].interval is None
