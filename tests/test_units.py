"""Numbers with their units."""

from __future__ import annotations

from typing import Any

import pytest

from csa_deploy import units


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (units.percent, 0.98765, "98.77 %"),
        (units.decibel, 68.06, "68.1 dB"),
        (units.decibel, float("inf"), "identical"),
        (units.decibel, "inf", "identical"),
        (units.scientific, 0.00123, "1.2e-03"),
        (units.milliseconds, 1.2345, "1.23 ms"),
        (units.size, 594_000, "580.1 KiB"),
        (units.size, 2**21, "2.0 MiB"),
        (units.duration, 4.26, "4.3 s"),
        (units.duration, 125.9, "2 min 5 s"),
        (units.giga, 4_069_200_384, "4.069 G"),
        (units.giga, 11_210_000, "11.21 M"),
        (units.giga, 3_210, "3.21 k"),
    ],
)
def test_units(function: Any, value: Any, text: str) -> None:
    assert function(value) == text
    assert function(None) == "-"


@pytest.mark.parametrize(("number", "text"), [(0, "0 findings"), (1, "1 finding"), (1200, "1,200 findings")])
def test_counted(number: int, text: str) -> None:
    assert units.counted(number, "finding") == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("top1_drop", 0.01, "1.00 %"),
        ("snr_db", "inf", "identical"),
        ("cosine", 0.9987654321, "0.998765"),
        ("cosine", None, "-"),
    ],
)
def test_metric(name: str, value: Any, text: str) -> None:
    assert units.metric(value, name) == text
