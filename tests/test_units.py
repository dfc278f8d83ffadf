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
        (units.giga, 4_069_200_384, "4.069 G"),
        (units.giga, 11_210_000, "11.21 M"),
    ],
)
def test_units(function: Any, value: Any, text: str) -> None:
    assert function(value) == text
    assert function(None) == "-"
