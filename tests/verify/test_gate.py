"""A budget passes, fails, or is not measured: never passed for not measured."""

from __future__ import annotations

import math

import pytest

from csa_deploy.verify.gate import Check, judge, verdict
from csa_deploy.verify.intervals import paired_difference, share
from csa_deploy.verify.summary import BOOTSTRAP, EXACT, EXTREME, PAIRED, Estimate


@pytest.mark.parametrize(
    ("metric", "bound", "value", "passed"),
    [
        ("snr_db", 40.0, 40.0, True),
        ("snr_db", 40.0, 39.999, False),
        ("snr_db", 40.0, math.inf, True),
        ("snr_db", 40.0, -math.inf, False),
        ("max_abs_error", 0.1, 0.1, True),
        ("max_abs_error", 0.1, 0.11, False),
        ("max_abs_error", 0.1, math.inf, False),
        ("cosine", 0.9, math.nan, False),
        ("max_abs_error", 0.1, math.nan, False),
        ("top1", 0.9, None, None),
    ],
)
def test_a_bound(metric: str, bound: float, value: float | None, passed: bool | None) -> None:
    check = Check("y", metric, bound, value)
    assert check.passed is passed and check.to_json()["passed"] is passed


@pytest.mark.parametrize(
    ("value", "sure", "state"),
    [
        (0.99, 0.95, "pass"),
        (0.99, 0.9, "pass"),
        (0.99, 0.89, "undecided"),
        (0.89, 0.8, "fail"),
        (0.99, None, "undecided"),
    ],
)
def test_the_unfavourable_end_of_the_interval_decides(value: float, sure: float | None, state: str) -> None:
    check = Check("y", "top1_agreement", 0.9, value, sure, BOOTSTRAP)
    assert check.state == state
    assert (check.passed is True) == (state == "pass")
    assert bool(check.why) == (state == "undecided")


def test_undecided_says_how_many_samples_would_do() -> None:
    assert "at least 368 samples" in Check("y", "top1_agreement", 0.99, 1.0, 0.9, BOOTSTRAP).why


def test_the_number_of_samples_that_would_do_is_enough_and_no_more() -> None:
    for count, state in ((367, "undecided"), (368, "pass")):
        check = Check("y", "top1_agreement", 0.99, 1.0, share(count, count)[0], EXACT, samples=count)
        assert check.state == state and check.needed == (368 if state == "undecided" else None)
    few = Check("y", "top1_drop", 0.005, 0.0, paired_difference(0, 0, 20)[1], PAIRED, samples=20)
    assert few.needed is not None and f"at least {few.needed} samples are needed, as long as none changes" in few.why
    for count, state in ((few.needed - 1, "undecided"), (few.needed, "pass")):
        sure = paired_difference(0, 0, count)[1]
        assert Check("y", "top1_drop", 0.005, 0.0, sure, PAIRED, samples=count).state == state


def test_what_was_measured_tells_how_many_more_are_needed() -> None:
    """A bound at half the distance of the interval's end needs four times the samples."""
    check = Check("y", "snr_db", 45.0, 50.0, 40.0, BOOTSTRAP, samples=30)
    assert check.needed == 120 and "about 120 samples like these" in check.why
    some = Check("y", "top1_drop", 0.005, 0.0, 0.02, PAIRED, samples=1000)  # as many lost as gained
    assert some.needed == 16000 and "about" in some.why
    assert Check("y", "snr_db", 45.0, 45.0, 40.0, BOOTSTRAP, samples=30).needed is None


def test_which_end_is_unfavourable_depends_on_the_bound() -> None:
    estimates = {"top1_drop": Estimate(0.0, (-0.02, 0.02), BOOTSTRAP), "top1": Estimate(0.9, (0.8, 0.95), BOOTSTRAP)}
    drop, top1 = judge("y", estimates, "fp16", {"top1_drop": 0.01, "top1": 0.79}, classifier=True)
    assert (drop.sure, drop.state) == (0.02, "undecided") and (top1.sure, top1.state) == (0.8, "pass")


def test_what_was_not_measured_says_why() -> None:
    estimates = {"cosine": Estimate(1.0, None, EXTREME)}
    cosine, top1 = judge("y", estimates, "fp16", {"cosine": 0.9, "top1": 0.5}, classifier=True)
    assert cosine.passed and top1.passed is None and "no labels" in top1.reason and top1.asked
    assert "no classification" in judge("y", estimates, "fp16", {"top1": 0.5}, classifier=False)[0].reason


def test_verdicts() -> None:
    good, bad = Check("y", "cosine", 0.9, 1.0), Check("y", "cosine", 0.9, 0.1)
    default, asked = Check("y", "top1", 0.9, None), Check("y", "top1", 0.9, None, asked=True)
    assert verdict([good, default]) == "pass"  # a default that does not apply does not count
    assert verdict([good, asked]) == "undecided"
    assert verdict([good, bad]) == "fail"
    assert verdict([default]) == verdict([]) == "undecided"
    assert verdict([good], non_finite=True) == "fail"
