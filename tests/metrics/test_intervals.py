"""Intervals against scipy, brute force and published values, and by their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from csa_deploy.metrics.distance import snr
from csa_deploy.metrics.estimates import MOSTLY_ONE
from csa_deploy.metrics.intervals import (
    FEW_DEVIATE,
    FEWEST,
    log_ratio_interval,
    mcnemar,
    mean_interval,
    mostly_one,
    paired_difference,
    samples_for_share,
    samples_without_change,
    share,
)
from csa_deploy.metrics.table import METRICS, estimates_of


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
@pytest.mark.shows("MEA-27")
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


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1))
@pytest.mark.shows("MEA-28")
def test_clopper_pearson_is_scipys(total: int, part: float) -> None:
    hits = round(part * total)
    expected = stats.binomtest(hits, total).proportion_ci(0.95, "exact")
    assert share(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
@pytest.mark.shows("MEA-28")
def test_mcnemar_is_scipys_binomial_test(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained, 0.5).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 600))
@pytest.mark.shows("MEA-28")
def test_bonett_price_by_the_published_formula(lost: int, gained: int, rest: int) -> None:
    total = lost + gained + rest
    if not total:
        return
    p12, p21 = (lost + 1) / (total + 2), (gained + 1) / (total + 2)
    error = math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (total + 2))
    low, high = stats.norm.interval(0.95, p12 - p21, error)
    assert paired_difference(lost, gained, total) == pytest.approx((max(low, -1), min(high, 1)), abs=1e-9)


@pytest.mark.parametrize("bound", [0.005, 0.01, 0.0007, 0.3])
def test_the_samples_that_a_drop_needs(bound: float) -> None:
    needed = samples_without_change(bound)
    assert needed is not None and paired_difference(0, 0, needed)[1] <= bound
    assert needed == 1 or paired_difference(0, 0, needed - 1)[1] > bound
    assert samples_without_change(0.0) is None


def brute_force(values: np.ndarray, resamples: int) -> tuple[float, float]:
    """The bootstrap-t as it is defined, one resample after another, with other draws."""
    draw, count = np.random.default_rng(99), len(values)
    found = []
    for _ in range(resamples):
        again = values[draw.integers(0, count, count)]
        found.append((again.mean() - values.mean()) / (again.std() / math.sqrt(count)))
    low, high = np.quantile(found, [0.025, 0.975])
    error = values.std() / math.sqrt(count)
    return values.mean() - high * error, values.mean() - low * error


@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_the_mean_by_brute_force(spread: float) -> None:
    values = np.random.default_rng(1).lognormal(0, spread, 60)
    expected = brute_force(values, 20_000)
    width = expected[1] - expected[0]
    assert mean_interval(values) == pytest.approx(expected, abs=0.15 * width)


def test_the_mean_of_normal_samples_is_students() -> None:
    values = np.random.default_rng(2).normal(3.0, 1.0, 300)
    expected = stats.t.interval(0.95, 299, values.mean(), stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))


def test_with_many_samples_it_is_scipys_bca() -> None:
    values = np.random.default_rng(3).lognormal(0, 0.5, 1500)
    expected = stats.bootstrap((values,), np.mean, n_resamples=2000, method="BCa", rng=0).confidence_interval
    assert mean_interval(values) == pytest.approx(tuple(expected), abs=0.1 * (expected[1] - expected[0]))


def test_a_ratio_with_many_samples_is_scipys_bca() -> None:
    draw = np.random.default_rng(4)
    signal, noise = draw.lognormal(0, 0.2, 800), draw.lognormal(-5, 0.5, 800)

    def logarithm(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.log(a.sum(axis=axis) / b.sum(axis=axis))

    expected = stats.bootstrap(
        (signal, noise), logarithm, paired=True, n_resamples=2000, method="BCa", rng=0
    ).confidence_interval
    found = log_ratio_interval([signal], [noise])
    assert found == pytest.approx(tuple(expected), abs=0.1 * (expected[1] - expected[0]))
    assert log_ratio_interval([noise], [signal]) == pytest.approx((-found[1], -found[0]))


def test_a_ratio_does_not_depend_on_units() -> None:
    draw = np.random.default_rng(5)
    signal, noise = draw.lognormal(0, 1, 50), draw.lognormal(0, 1, 50)
    first, scaled = log_ratio_interval([signal], [noise]), log_ratio_interval([1e80 * signal], [1e-90 * noise])
    shift = 170 * math.log(10)
    assert scaled == pytest.approx((first[0] + shift, first[1] + shift), abs=1e-6)


def test_too_few_samples_have_no_interval() -> None:
    values = np.random.default_rng(6).lognormal(0, 1, FEWEST)
    assert mean_interval(values) is not None and mean_interval(values[1:]) is None
    assert log_ratio_interval([values], [values[::-1]]) is not None
    assert log_ratio_interval([values[1:]], [values[:0:-1]]) is None


@pytest.mark.parametrize("deviate", [1, FEW_DEVIATE - 1])
def test_a_few_samples_with_all_the_error_have_no_interval(deviate: int) -> None:
    noise = np.zeros(500)
    noise[:deviate] = 1.0
    assert log_ratio_interval([np.ones(500)], [noise]) is None and mean_interval(noise) is None
    noise[:FEW_DEVIATE] = 1.0
    assert log_ratio_interval([np.ones(500)], [noise]) is not None and mean_interval(noise) is not None


def test_equal_values_have_an_interval_of_no_width_and_equal_data_give_equal_intervals() -> None:
    assert mean_interval(np.full(40, 0.3)) == (0.3, 0.3)
    values = np.random.default_rng(7).lognormal(0, 1, 40)
    assert mean_interval(values) == mean_interval(values.copy())


@pytest.mark.parametrize("count", [1, 10, 368, 36887])
def test_maps_that_all_agree_show_what_as_many_hits_show(count: int) -> None:
    found = mostly_one(np.ones(count))
    assert found is not None and found[1] == 1.0
    assert found[0] == pytest.approx(stats.binomtest(count, count).proportion_ci(0.95, "exact").low, abs=1e-9)
    assert (found[0] >= 0.9999) == (count == 36887)


def test_a_few_maps_that_deviate_count_as_misses_until_there_are_enough() -> None:
    values = np.ones(200)
    values[: FEW_DEVIATE - 1] = 0.99
    assert mostly_one(values) == (share(200 - FEW_DEVIATE + 1, 200)[0], 1.0)
    values[FEW_DEVIATE - 1] = 0.99
    assert mostly_one(values) is None


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
    found = estimates_of(columns(50, 1e-4))["snr_db"]
    assert found.interval is not None and found.interval[0] < found.value < found.interval[1]
    assert found.value == pytest.approx(snr(50.0, float(columns(50, 1e-4)["noise"].sum())))
    assert estimates_of(columns(50, 0.0))["snr_db"].interval == (math.inf, math.inf)
    assert estimates_of(columns(FEWEST - 1, 1e-4))["snr_db"].interval is None
    assert estimates_of(columns(FEWEST - 1, 0.0))["snr_db"].interval is None  # so few identical ones show nothing


@pytest.mark.shows("MEA-27", "ERR-22")
def test_ten_maps_that_agree_do_not_pass_what_thousands_would_have_to_show() -> None:
    found = estimates_of({**columns(10, 1e-4), "pixel_agreement": np.ones(10), "mean_iou": np.ones(10)})
    for metric in ("pixel_agreement", "mean_iou_agreement"):
        assert found[metric].method == MOSTLY_ONE and found[metric].value == 1.0
        assert found[metric].interval == pytest.approx((0.69150, 1.0), abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.data())
@pytest.mark.shows("MEA-28", "ERR-23")
def test_a_drop_is_counted_and_meets_the_bound_that_it_is(total: int, data: st.DataObject) -> None:
    """The difference of two shares is not: 0.990 - 0.985 is above 0.005."""
    right = data.draw(st.integers(0, total))
    lost = data.draw(st.integers(0, right))
    reference, candidate = np.arange(total) < right, np.arange(total) < right - lost
    found = METRICS["top1_drop"].estimate({"reference_top1": reference.astype(float), "top1": candidate.astype(float)})
    assert found.value == lost / total and found.value <= float(f"{lost / total!r}")


def missed(kind: str, count: int, runs: int) -> float:
    """How often the end that passes a bound lies on the wrong side of the truth."""
    draw, wrong = np.random.default_rng(8), 0
    for _ in range(runs):
        if kind == "maps":  # 2 % of the maps have 10 % of their positions wrong
            values = 1 - 0.1 * (draw.random(count) < 0.02)
            found = mostly_one(values) or mean_interval(values)
            wrong += found is not None and found[0] > 0.998
            continue
        spread = float(kind)
        noise = draw.lognormal(0, spread, count) if spread else draw.normal(1, 0.3, count)
        truth = math.exp(spread**2 / 2)
        energies = log_ratio_interval([np.ones(count)], [noise])
        wrong += energies is not None and energies[0] > -math.log(truth)
    return wrong / runs


# Stated: 2.5 %. Of 400 runs more than 20 miss once in 500 such tests; skewed data miss more often, see docs/verify.md.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count", "most"),
    [
        ("0", 20, 0.06),
        ("0", 200, 0.05),
        ("0.5", 20, 0.07),
        ("0.5", 200, 0.05),
        ("1", 20, 0.10),
        ("1", 200, 0.065),
        ("maps", 10, 0.01),
        ("maps", 50, 0.01),
        ("maps", 200, 0.05),
        ("maps", 1000, 0.05),
    ],
)
@pytest.mark.shows("MEA-27", "ERR-22")
def test_the_passing_end_is_seldom_wrong(kind: str, count: int, most: float) -> None:
    assert missed(kind, count, 400) <= most


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.0), (0.01, 0.01), (0.02, 0.01), (0.05, 0.02)])
@pytest.mark.parametrize("count", [100, 1000])
def test_coverage_of_paired_differences(lost: float, gained: float, count: int) -> None:
    draw = np.random.default_rng(9)
    counts = draw.multinomial(count, [lost, gained, 1 - lost - gained], 4000)
    ends = [paired_difference(int(a), int(b), count) for a, b, _ in counts]
    assert np.mean([low <= lost - gained <= high for low, high in ends]) >= 0.94
