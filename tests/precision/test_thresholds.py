"""Thresholds against the methods written out in plain NumPy, on distributions that reach their edges."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from csa_deploy.config import make_config
from csa_deploy.options import OPTIONS
from csa_deploy.precision.histogram import BINS, Histogram, Scratch
from csa_deploy.precision.thresholds import METHODS, threshold

CLIPPED = 0.01  # the share that `entropy` may clip


def filled(*parts: np.ndarray) -> Histogram:
    histogram, scratch = Histogram(), Scratch()
    for part in parts:
        assert histogram.add(part.astype(np.float32), scratch)
    return histogram


SHAPES = {
    "normal": lambda draw, n: draw.standard_normal(n),
    "laplace": lambda draw, n: draw.laplace(size=n),
    "relu": lambda draw, n: np.maximum(draw.standard_normal(n), 0),
    "heavy": lambda draw, n: draw.standard_t(2, n),
    "lognormal": lambda draw, n: draw.lognormal(0, 2, n),
    "uniform": lambda draw, n: draw.random(n),
    "sparse": lambda draw, n: np.where(draw.random(n) < 0.01, draw.uniform(5, 9, n), draw.random(n)),
    "background": lambda draw, n: np.where(draw.random(n) < 0.8, 0.4214, draw.uniform(0.5, 2.8, n)),
    "pixels": lambda draw, n: draw.integers(0, 256, n) / 255,
    "two values": lambda draw, n: draw.choice([0.0, 3.0], n),
    "constant": lambda draw, n: np.full(n, 0.3),
    "zeros": lambda draw, n: np.zeros(n),
}


@st.composite
def tensors(draw_from: st.DrawFn) -> np.ndarray:
    """Values of a tensor: shaped, scaled to any size, cut off at any value, of any sign."""
    draw = np.random.default_rng(draw_from(st.integers(0, 2**32 - 1)))
    values = SHAPES[draw_from(st.sampled_from(sorted(SHAPES)))](draw, draw_from(st.sampled_from([1, 7, 900, 4000])))
    values = values * draw_from(st.sampled_from([1e-44, 1e-38, 1e-9, 1.0, 255.0, 6.0, 3e4, 1e30]))
    share = draw_from(st.sampled_from([1.0, 0.99, 0.9, 0.5]))
    largest = np.abs(values).max()
    cut = draw_from(st.sampled_from(["no", "quantile", "few bits"]))
    if cut == "quantile":
        values = np.clip(values, -np.inf, np.quantile(values, share))
    elif cut == "few bits" and largest > 0:  # ReLU6, white pixels: the largest value is a multiple of a bin's width
        edge = 2.0 ** np.floor(np.log2(largest)) * draw_from(st.sampled_from([0.5, 0.75, 1.0, 1.5]))
        values = np.clip(values, -edge, edge)
    return values * draw_from(st.sampled_from([1.0, -1.0]))


def nvidia_entropy(histogram: Histogram, published: bool) -> float:
    """Entropy calibration bin by bin, groups as pytorch-quantization's ``digitize`` over a ``linspace`` assigns them.

    As S. Migacz's slides have it, what lies beyond goes into the last bin of P before it is asked which bins P fills.
    """
    counts = histogram.counts.astype(np.float64)
    if not published:
        counts[0] = counts[1]
    used = np.flatnonzero(np.arange(BINS) * histogram.width <= histogram.amax)[-1] + 1
    if used <= 128 or not counts.any():
        return min(used * histogram.width, histogram.amax)
    best, chosen = np.inf, 0
    for kept in sorted({*range(128, used, 4), used}):
        if not published and histogram.counts[kept:].sum() > CLIPPED * histogram.total:
            continue
        group = np.digitize(np.arange(kept), np.linspace(0, kept, 129)) - 1
        p = counts[:kept].copy()
        p[-1] += counts[kept:].sum()
        filled_bins = np.bincount(group, p > 0, 128)
        q = (np.bincount(group, counts[:kept], 128) / np.maximum(filled_bins, 1))[group] * (p > 0)
        if not q.any():
            continue
        divergence = scipy.stats.entropy(p, q)
        if divergence < best - 1e-13:
            best, chosen = divergence, kept
    return min((chosen + (0.5 if published else 0.0)) * histogram.width, histogram.amax)


@pytest.mark.parametrize("method", ["entropy", "entropy-published"])
@pytest.mark.parametrize("shape", ["normal", "laplace", "relu", "heavy", "sparse", "background", "pixels"])
@pytest.mark.shows("MEA-19")
def test_entropy_equals_the_method_written_out(shape, method):
    histogram = filled(SHAPES[shape](np.random.default_rng(5), 20_000))
    expected = nvidia_entropy(histogram, method == "entropy-published")
    assert threshold(histogram, method) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("method", ["entropy", "entropy-published"])
@pytest.mark.parametrize("largest", [1.0, 6.0, 255.0, 0.99609375])
def test_entropy_of_a_saturated_tensor_keeps_the_bin_of_its_largest_value(largest, method):
    values = np.minimum(np.random.default_rng(0).exponential(largest / 3, 20_000), largest)
    assert (values == largest).mean() > CLIPPED
    histogram = filled(values)
    assert threshold(histogram, method) == nvidia_entropy(histogram, method == "entropy-published")
    assert threshold(histogram, "entropy") == largest


def test_entropy_does_not_cut_at_a_dominating_value():
    background, ink = np.full(8000, 0.4214), np.random.default_rng(0).uniform(0.5, 2.8, 2000)
    histogram = filled(background, ink)
    assert threshold(histogram, "entropy") > 2.5
    assert threshold(histogram, "entropy-published") < 0.5  # what the deviation is for


@settings(max_examples=150, deadline=None)
@given(tensors())
@example(np.asarray([6.0] * 3 + [1.0] * 97))
@example(np.asarray([-1e-45]))
@example(np.asarray([3.4e38, 1.0]))
@example(np.asarray([0.0, 0.0, 2.0]))
def test_every_method_gives_a_threshold_for_every_tensor(values):
    values = values.astype(np.float32)
    histogram = filled(values)
    largest = float(np.abs(values).max())
    exact = np.sort(np.abs(values))
    for method in METHODS:
        found = threshold(histogram, method)
        assert 0.0 <= found <= largest and (found > 0) == (largest > 0)
        clipped = float((exact > found).mean())
        assert histogram.clipped(found) <= float((exact > found - histogram.width).mean())
        assert histogram.clipped(found) >= float((exact > found + histogram.width).mean())
        if method == "minmax":
            assert found == largest
        elif method == "entropy":
            assert clipped <= CLIPPED
        elif method == "percentile":
            wanted = np.percentile(exact, 99.99, method="inverted_cdf")
            assert wanted <= found or found == largest
            assert found <= max(wanted + histogram.width, 0.05 * largest)


def mean_squared_error(values: np.ndarray, limit: float) -> float:
    scale = limit / 127
    rounded = np.clip(np.rint(values / scale), -127, 127) * scale
    return float(((rounded - values) ** 2).mean())


@settings(max_examples=60, deadline=None)
@given(tensors())
@pytest.mark.shows("MEA-19")
def test_mse_is_the_best_of_its_candidates_on_the_values_themselves(values):
    """A value and the centre of its bin differ by half a width at most, and so do their errors."""
    values = values.astype(np.float32).astype(np.float64)
    histogram = filled(values)
    if histogram.amax < 1e-30:  # squares would underflow
        return
    candidates = histogram.amax * np.linspace(0.05, 1, 160)
    best = min(mean_squared_error(values, limit) for limit in candidates)
    found = mean_squared_error(values, threshold(histogram, "mse"))
    assert np.sqrt(found) <= np.sqrt(best) + histogram.width * (1 + 1e-6)


@pytest.mark.parametrize("shape", ["normal", "laplace", "relu", "heavy", "lognormal", "uniform"])
def test_the_candidates_of_mse_are_dense_enough(shape):
    values = SHAPES[shape](np.random.default_rng(1), 20_000)
    histogram = filled(values)
    best = min(mean_squared_error(values, limit) for limit in histogram.amax * np.linspace(0.02, 1, 500))
    assert mean_squared_error(values, threshold(histogram, "mse")) <= 1.03 * best


@settings(max_examples=60, deadline=None)
@given(tensors(), st.integers(1, 5))
def test_a_histogram_holds_the_counts_that_numpy_counts(values, parts):
    values = values.astype(np.float32)
    histogram = filled(*np.array_split(values, min(parts, len(values))))
    assert histogram.amax == np.abs(values).max()
    if histogram.amax == 0.0:
        assert histogram.counts[0] == histogram.total == len(values)
        return
    edges = np.arange(BINS + 1, dtype=np.float64) * histogram.width
    expected, _ = np.histogram(np.abs(values).astype(np.float64), edges)
    assert np.array_equal(histogram.counts, expected)
    assert histogram.amax < edges[-1]


def test_every_method_of_the_options_has_its_function_and_is_told_in_the_help():
    told = OPTIONS["calib_method"].help
    assert METHODS and all(threshold(filled(np.linspace(0.1, 1, 4096)), m) > 0 and m in told for m in METHODS)
    for method in METHODS:
        assert make_config({"calib_method": method}).calib_method == method
