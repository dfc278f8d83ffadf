"""A budget passes, fails, or is not measured: never passed for not measured."""

from __future__ import annotations

import math

import pytest

from csa_deploy.verify.gate import Check, judge
from csa_deploy.verify.stage import verdict


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


def test_what_was_not_measured_says_why() -> None:
    budget = {"cosine": 0.9, "top1": 0.5}
    cosine, top1 = judge("y", {"cosine": 1.0}, budget, classifier=True)
    assert cosine.passed and top1.passed is None and "no labels" in top1.reason
    assert "no classification" in judge("y", {"cosine": 1.0}, budget, classifier=False)[1].reason


def test_verdicts() -> None:
    good, bad, open_ = Check("y", "cosine", 0.9, 1.0), Check("y", "cosine", 0.9, 0.1), Check("y", "top1", 0.9, None)
    assert verdict([good, open_], {}) == "pass"
    assert verdict([good, bad], {}) == "fail"
    assert verdict([open_], {}) == "undecided"
    assert verdict([], {}) == "undecided"
    assert verdict([good], {"y": ["s0"]}) == "fail"
