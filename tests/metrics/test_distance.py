"""The one definition of each distance, against exact arithmetic and scipy, and at its edges."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine as scipy_cosine

from csa_deploy.export.compare import max_error
from csa_deploy.metrics.distance import cosine, decibels, exactly, mean, snr

positive = st.floats(min_value=1e-300, max_value=1e300)


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [
        (0.0, 0.0, math.inf),  # both zero: equal
        (1.0, 0.0, math.inf),
        (0.0, 1.0, -math.inf),
        (1e4, 1.0, 40.0),
        (1e-300, 1e300, -6000.0),  # the quotient itself would be 0, and its logarithm an error
        (1e300, 1e-300, 6000.0),  # and here infinite: "identical"
        (5e-324, 5e-324, 0.0),
        (math.inf, 1.0, -math.inf),
        (1.0, math.inf, -math.inf),
        (math.nan, 1.0, -math.inf),
        (math.nan, 0.0, -math.inf),  # never "identical"
        (1.0, math.nan, -math.inf),
        (math.inf, 0.0, -math.inf),
    ],
)
def test_edges_of_the_signal_to_noise_ratio(signal: float, noise: float, expected: float) -> None:
    assert snr(signal, noise) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(positive, positive)
@pytest.mark.shows("MEA-28")
def test_the_ratio_of_exact_fractions(signal: float, noise: float) -> None:
    ratio = Fraction(signal) / Fraction(noise)
    exact = 10 * (math.log10(ratio.numerator) - math.log10(ratio.denominator))
    assert snr(signal, noise) == pytest.approx(exact, abs=1e-8)


def test_arrays_are_measured_like_numbers() -> None:
    signal, noise = np.array([[1.0], [0.0], [math.nan]]), np.array([0.0, 2.0, math.inf])
    found = decibels(signal, noise)
    assert found.tolist() == [[snr(s, n) for n in noise.tolist()] for s in signal.ravel().tolist()]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=20))
@pytest.mark.shows("MEA-28")
def test_cosine_is_scipys(pairs: list[tuple[float, float]]) -> None:
    want, got = (np.array(side) for side in zip(*pairs, strict=True))
    if min(np.linalg.norm(want), np.linalg.norm(got)) < 1e-100:
        return
    assert cosine(want, got) == pytest.approx(1 - scipy_cosine(want, got), abs=1e-9)
    assert -1.0 <= cosine(want, got) <= 1.0


def test_edges_of_the_cosine() -> None:
    zero, tiny = np.zeros(3), np.array([3e-200, 4e-200, 0.0])
    assert cosine(zero, zero) == 1.0 and cosine(zero, tiny) == cosine(tiny, zero) == 0.0
    assert cosine(tiny, 2 * tiny) == pytest.approx(1.0)  # their squares are 0
    assert cosine(tiny, -tiny) == pytest.approx(-1.0)
    assert cosine(1e200 * np.ones(4), np.ones(4)) == pytest.approx(1.0)  # their squares are infinite
    assert math.isnan(cosine(np.array([math.nan, 1.0]), np.ones(2)))
    assert math.isnan(cosine(np.ones(2), np.array([math.inf, 1.0])))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 1000))
def test_the_mean_of_equal_values_is_that_value(count: int, thousandths: int) -> None:
    assert mean(np.full(count, thousandths / 1000)) == thousandths / 1000


def test_a_mean_of_what_is_not_finite() -> None:
    assert mean([1.0, math.inf]) == math.inf and math.isnan(mean([1.0, math.nan]))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 40))
def test_whole_numbers_keep_their_distance(number: int, distance: int) -> None:
    """Python's own integers are the oracle; FP64 loses distances from 2^53 on."""
    number = min(number, 2**63 - 1 - distance)
    for kind, shift in (("i8", 0), ("u8", 2**63)):
        first, second = (np.array([value + shift], kind) for value in (number, number + distance))
        assert max_error(first, second) == float((exactly(second) - exactly(first))[0]) == distance
