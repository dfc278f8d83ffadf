"""The cosine of outputs that are nearly zero, against vectors turned by the worst error of an energy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csa_deploy.metrics.estimates import QUIET, smallest_cosine
from csa_deploy.metrics.metric import Pair
from csa_deploy.metrics.samples import errors


def value(want: np.ndarray, got: np.ndarray) -> float:
    rows = [errors(Pair(w, g, None, True, True)) for w, g in zip(want, got, strict=True)]
    return smallest_cosine(*(np.array([row[c] for row in rows]) for c in ("finite", "cosine", "signal", "noise")))


def usual(first: np.ndarray) -> np.ndarray:
    """The output in question, and four of energy 1."""
    return np.stack([first, *np.eye(len(first))[:4]])


@given(part=st.floats(1e-6, 0.999), seed=st.integers(0, 2**32 - 1))
def test_it_is_the_worst_that_such_an_error_does_to_an_output_of_the_floor(part: float, seed: int) -> None:
    """At the floor: no error of the energy turns further, and one turns as far."""
    draw = np.random.default_rng(seed)
    want = draw.standard_normal(6)
    want *= np.sqrt(QUIET) / np.linalg.norm(want)
    across = draw.standard_normal(6)
    across -= (across @ want) / (want @ want) * want
    across /= np.linalg.norm(across)
    stated = value(usual(want * 1e-6), usual(want * 1e-6 + across * np.sqrt(part * QUIET)))
    assert stated == pytest.approx(np.sqrt(1 - part), rel=1e-9)
    for angle in np.linspace(0, np.pi, 181):
        error = np.sqrt(part * QUIET) * (np.cos(angle) * want / np.linalg.norm(want) + np.sin(angle) * across)
        turned = (want + error) @ want / (np.linalg.norm(want + error) * np.linalg.norm(want))
        assert turned >= np.sqrt(1 - part) - 1e-9
    worst = -np.sqrt(part) * want / np.linalg.norm(want) + np.sqrt(1 - part) * across
    turned = want + np.sqrt(part * QUIET) * worst
    assert turned @ want / (np.linalg.norm(turned) * np.linalg.norm(want)) == pytest.approx(np.sqrt(1 - part), rel=1e-6)


def test_rounding_on_an_empty_output_is_no_turn() -> None:
    empty = np.zeros(6)
    assert value(usual(empty), usual(empty + 1e-9)) > 1 - 1e-12  # its own cosine is 0
    assert value(usual(empty + 1e-9), usual(empty - 1e-9)) > 1 - 1e-12  # and here -1


def test_an_error_of_the_size_of_the_floor_still_fails() -> None:
    empty, loud = np.full(6, 1e-9), np.array([0.0, 0.1001, 0, 0, 0, 0])
    assert value(usual(empty), usual(loud)) == pytest.approx(1 / np.sqrt(6), rel=1e-6)  # its own
    assert value(usual(empty), usual(-empty - loud)) < 0


@pytest.mark.parametrize(("energy", "stated"), [(QUIET / 0.99, np.sqrt(1 - 0.5 * 0.99)), (QUIET * 0.99, np.sqrt(0.5))])
def test_both_sides_of_the_floor(energy: float, stated: float) -> None:
    """An error of half the floor, placed to turn an output of this energy as far as it can."""
    noise = 0.5 * QUIET
    want, error = np.zeros(6), np.zeros(6)
    want[5] = np.sqrt(energy)
    error[5], error[4] = -noise / np.sqrt(energy), np.sqrt(noise * (1 - noise / energy))
    assert value(usual(want), usual(want + error)) == pytest.approx(stated, rel=1e-9)


def test_all_samples_alike_are_judged_by_their_own() -> None:
    draw = np.random.default_rng(3)
    want = draw.standard_normal((9, 7))
    got = want + 0.2 * draw.standard_normal((9, 7))
    own = [w @ g / np.linalg.norm(w) / np.linalg.norm(g) for w, g in zip(want, got, strict=True)]
    assert value(want, got) == pytest.approx(min(own), abs=1e-15)
    assert value(np.zeros((3, 4)), np.ones((3, 4))) == 0.0  # no usual energy: nothing is excused
