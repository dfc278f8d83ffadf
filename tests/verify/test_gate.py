"""A budget passes, fails, or is not measured: never passed for not measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from csa_deploy.config import make_config
from csa_deploy.metrics.estimates import BOOTSTRAP, COUNT, EXACT, EXTREME, PAIRED
from csa_deploy.metrics.intervals import paired_difference, share
from csa_deploy.metrics.metric import Estimate
from csa_deploy.metrics.table import default_budget, estimates_of
from csa_deploy.verify.gate import Check, applicable, judge, verdict


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
    assert check.passed is passed and check.held().passed is passed


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
@pytest.mark.shows("MEA-27", "ERR-22")
def test_the_unfavourable_end_of_the_interval_decides(value: float, sure: float | None, state: str) -> None:
    check = Check("y", "top1_agreement", 0.9, value, sure, BOOTSTRAP)
    assert check.state == state
    assert (check.passed is True) == (state == "pass")
    assert bool(check.why) == (state == "undecided")


AGREES = {"top1_agreement": Estimate(1.0, (0.9, 1.0), EXACT)}  # what an output with classes has at least


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
    drop, top1 = judge("y", estimates, {"top1_drop": 0.01, "top1": 0.79})
    assert (drop.sure, drop.state) == (0.02, "undecided") and (top1.sure, top1.state) == (0.8, "pass")


@pytest.mark.shows("MEA-30")
def test_what_was_not_measured_says_why() -> None:
    estimates = {"cosine": Estimate(1.0, None, EXTREME)}
    cosine, top1 = judge("y", {**estimates, **AGREES}, {"cosine": 0.9, "top1": 0.5}, asked=["top1"])
    assert cosine.passed and top1.passed is None and "no labels" in top1.reason and top1.asked
    assert "no classification" in judge("y", estimates, {"top1": 0.5})[0].reason


def test_verdicts() -> None:
    good, bad = Check("y", "cosine", 0.9, 1.0), Check("y", "cosine", 0.9, 0.1)
    default, asked = Check("y", "top1", 0.9, None), Check("y", "top1", 0.9, None, asked=True)
    assert verdict([good, default]) == "pass"  # a default that does not apply does not count
    assert verdict([good, asked]) == "undecided"
    assert verdict([good, bad]) == "fail"
    assert verdict([default]) == verdict([]) == "undecided"
    assert verdict([good], non_finite=True) == "fail"


@pytest.mark.parametrize("bound", [default_budget("fp16")["top1_drop"], 0.0051])
@pytest.mark.shows("MEA-30", "ERR-25")
def test_a_bound_that_equals_the_default_counts_when_it_was_asked_for(bound: float) -> None:
    config = make_config({"budget": [f"fp16.top1_drop={bound}"]})
    stored = make_config({"budget": config.to_json()["budget"]})  # as the workspace keeps it
    for asked in (config.asked("fp16"), stored.asked("fp16")):
        (check,) = judge("y", AGREES, {"top1_drop": bound}, asked=asked)
        assert check.asked and verdict([Check("y", "cosine", 0.9, 1.0), check]) == "undecided"
    assert make_config({}).asked("fp16") == () and make_config({}).to_json()["budget"] == {}


def test_points_are_decimals() -> None:
    """0.7 / 100 is less than 0.007."""
    for points in range(1, 1000):
        budget = make_config({"budget": [f"top1-drop={points / 10}"]}).budget
        assert budget["int8"]["top1_drop"] == points / 1000


@pytest.mark.parametrize(
    ("metric", "bound", "held"),
    [
        ("top1_agreement", 1.0, True),
        ("top1_agreement", 0.999, False),
        ("pixel_agreement", 1.0, True),
        ("top1_drop", 0.0, True),
        ("top1_drop", 0.001, False),
        ("mean_iou_agreement", 0.0, False),
    ],
)
def test_what_no_number_of_samples_shows_is_counted_and_says_so(metric: str, bound: float, held: bool) -> None:
    value = 0.0 if metric == "top1_drop" else 1.0
    estimates = {metric: Estimate(value, (-0.1, 0.1) if value == 0 else (0.9, 1.0), EXACT)}
    (check,) = judge("y", estimates, {metric: bound}, samples=50)
    assert (check.method == COUNT) == held
    if held:
        assert check.state == "pass" and "counted on these 50 samples" in check.why
        worse = {metric: Estimate(0.02 if value == 0 else 0.98, (-0.1, 0.2), EXACT)}
        assert judge("y", worse, {metric: bound}, samples=50)[0].state == "fail"


@pytest.mark.shows("MEA-27")
def test_a_value_that_is_the_bound_is_undecided_and_no_number_of_samples_is_named() -> None:
    check = Check("y", "top1_drop", 0.005, 5 / 1000, paired_difference(5, 0, 1000)[1], PAIRED, samples=1000)
    assert check.state == "undecided" and check.needed is None and "is the bound itself" in check.why


def test_a_gain_is_not_called_no_change() -> None:
    """As many as 3 of 100 gained, none lost: still undecided, and not for want of a change."""
    low, high = paired_difference(0, 3, 100)
    check = Check("y", "top1_drop", 0.001, -0.03, high, PAIRED, samples=100)
    assert low < -0.03 < high and check.state == "undecided" and "as long as none changes" not in check.why


def test_a_bound_that_is_missed_by_little_says_by_how_much() -> None:
    check = Check("y", "snr_db", 20.0, 20.12, 19.2, BOOTSTRAP, samples=30)
    assert "measured 0.12 dB from the bound; the samples only show at least 19.2 dB; about 1,764 samples" in check.why


def test_an_end_that_nothing_bounds_is_no_number_of_samples() -> None:
    check = Check("y", "snr_db", 20.0, 50.0, -math.inf, BOOTSTRAP, samples=30)
    assert check.state == "undecided" and check.needed is None and "do not bound it" in check.why
    few = Check("y", "snr_db", 20.0, 50.0, None, BOOTSTRAP, samples=3000)
    assert "deviate at all" in few.why


def test_what_does_not_apply_is_listed_only_where_it_was_asked_for_and_no_output_has_it() -> None:
    image, boxes = (
        judge(
            name,
            estimates,
            {"mean_iou_agreement": 0.8, "top1_agreement": 0.95, "cosine": 0.9},
            asked=asked,
        )
        for name, estimates, asked in (
            (
                "image",
                {"mean_iou_agreement": Estimate(0.9, (0.85, 0.95), BOOTSTRAP), "cosine": Estimate(1, None, EXTREME)},
                ["mean_iou_agreement"],
            ),
            ("boxes", {"cosine": Estimate(1, None, EXTREME)}, ["mean_iou_agreement"]),
        )
    )
    assert [(c.output, c.metric) for c in applicable([*image, *boxes])] == [
        ("image", "mean_iou_agreement"),
        ("image", "cosine"),
        ("boxes", "cosine"),
    ]
    assert verdict(applicable([*image, *boxes])) == "pass"
    alone = applicable([*boxes, *boxes])
    assert [c.metric for c in alone].count("mean_iou_agreement") == 1 and verdict(alone) == "undecided"
    unlabelled = judge("y", AGREES, {"top1_drop": 0.005})
    assert applicable(unlabelled) == unlabelled


def test_equal_values_of_a_map_meet_the_bound_that_they_are() -> None:
    ones = np.ones(30)
    columns = {
        "finite": ones,
        "max_abs_error": ones,
        "mean_abs_error": ones,
        "mean_abs_reference": ones,
        "cosine": ones,
        "signal": ones,
        "noise": ones,
        "low": -ones,
        "high": ones,
        "mean_iou": 0.003 * ones,
    }
    (check,) = judge("y", estimates_of(columns), {"mean_iou_agreement": 0.003}, samples=30)
    assert check.state == "pass"
