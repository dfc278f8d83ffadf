"""Streaming histograms and the thresholds made of them."""

import json

import numpy as np
import pytest

from csa_deploy.precision.histogram import BINS, Histogram, Scratch, step_of
from csa_deploy.precision.thresholds import METHODS, threshold


def filled(*parts: np.ndarray) -> Histogram:
    histogram, scratch = Histogram(), Scratch()
    for part in parts:
        assert histogram.add(part.astype(np.float32), scratch)
    return histogram


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((4, 50_000)).astype(np.float32) * np.array(
        [[0.01], [1], [7], [0.3]]
    )


@pytest.mark.shows("MEA-19")
def test_counts_are_those_of_a_histogram_over_the_final_range(values):
    histogram = filled(*values)
    edges = np.arange(BINS + 1) * histogram.width
    expected, _ = np.histogram(np.abs(values.astype(np.float32)), edges)
    assert np.array_equal(histogram.counts, expected)
    assert histogram.total == values.size
    assert histogram.amax == np.abs(values.astype(np.float32)).max()


def test_neither_order_nor_batching_changes_a_count(values):
    forward, backward, whole = filled(*values), filled(*values[::-1]), filled(values)
    for other in (backward, whole):
        assert np.array_equal(forward.counts, other.counts)
        assert (forward.exponent, forward.amax) == (other.exponent, other.amax)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_counts_taken_apart_are_those_taken_together(values, order):
    parts = [filled(values[:2]), filled(values[2:]), Histogram(), filled(np.zeros(3))]
    whole = Histogram()
    for index in (*order, 2, 3):
        whole.take(parts[index])
    together = filled(values, np.zeros(3))
    assert np.array_equal(whole.counts, together.counts)
    assert (whole.exponent, whole.amax) == (together.exponent, together.amax)
    assert all(part.total == 0 and part.exponent is None for part in parts)


def test_what_a_histogram_states_makes_it_again_and_that_of_other_fields_is_refused(values):
    for histogram in (filled(values), Histogram()):
        again = Histogram.of(histogram.counts, json.loads(json.dumps(histogram.stated())))
        assert np.array_equal(again.counts, histogram.counts) and len(vars(again)) == 1 + len(histogram.stated())
        assert (again.exponent, again.amax) == (histogram.exponent, histogram.amax)
        for stated in (histogram.stated()[:-1], [*histogram.stated(), 0]):
            with pytest.raises(ValueError, match=r"zip\(\) argument"):
                Histogram.of(histogram.counts, stated)


def test_of_large_samples_every_nth_value_counts_and_the_largest_of_all():
    images = np.random.default_rng(1).standard_normal((2, 8, 128, 128)).astype(np.float32)
    images[1, 7, 127, 126] = -9.0
    whole, apart, step = filled(images), filled(images[1:], images[:1]), step_of(8 * 128 * 128)
    assert step > 2 and whole.total == 2 * -(-8 * 128 * 128 // step)
    assert {number % 128 for number in range(0, 8 * 128 * 128, step)} == set(range(128))
    assert whole.amax == apart.amax == 9.0 and np.array_equal(whole.counts, apart.counts)
    assert whole.clipped(1.0) == pytest.approx((np.abs(images) > 1.0).mean(), abs=0.01)


def test_zeros_before_the_first_value_are_counted():
    histogram = filled(np.zeros(5), np.ones(3), np.zeros(2))
    assert histogram.counts[0] == 7
    assert histogram.total == 10


def test_a_tensor_of_zeros_has_no_threshold():
    assert all(threshold(filled(np.zeros(9)), method) == 0.0 for method in METHODS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_reported(bad):
    assert not Histogram().add(np.asarray([1.0, bad, 2.0], np.float32), Scratch())


def test_tiny_values_do_not_overflow_the_scaling():
    histogram = filled(np.full(4, 1e-42))
    assert histogram.total == 4
    assert np.isfinite(threshold(histogram, "mse"))


def test_minmax_clips_nothing_and_percentile_clips_what_it_says(values):
    histogram = filled(values)
    assert threshold(histogram, "minmax") == histogram.amax
    cut = threshold(histogram, "percentile")
    share = (np.abs(values) > cut).mean()
    assert share == pytest.approx(1e-4, abs=2e-5)
    assert histogram.clipped(cut) == pytest.approx(share, abs=2e-5)


def test_mse_finds_the_smallest_error(values):
    histogram = filled(values)

    def error(limit: float) -> float:
        scale = limit / 127
        return float(((np.clip(np.rint(values / scale), -127, 127) * scale - values) ** 2).mean())

    best = error(threshold(histogram, "mse"))
    assert best <= 1.02 * min(error(limit) for limit in histogram.amax * np.linspace(0.05, 1, 60))
