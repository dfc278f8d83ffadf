"""Benchmarks are run by hand: here each that takes seconds runs once in its smallest form."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import pytest

from benchmarks.pairs import Ratio, measure

DIGITS = "csa_digits"
SMALLEST: dict[str, dict[str, Any]] = {
    "startup": {"PAIRS": 1},
    "errata": {"PAIRS": 1, "BLOCKS": 2},
    "check_scaling": {"PAIRS": 1, "SIZES": (4, 8)},
    "graphs": {"NETWORKS": ((DIGITS, 1),)},
    "stages": {"NETWORKS": (DIGITS,)},
    "report": {"PAIRS": 1, "NETWORKS": (DIGITS, DIGITS)},
    "int8_arithmetic": {"PAIRS": 1, "NETWORKS": {DIGITS: ()}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_runs_in_its_smallest_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module(f"benchmarks.{name}")
    for constant, value in SMALLEST[name].items():
        monkeypatch.setattr(module, constant, value)
    rows = module.run()
    assert rows
    for row in rows:
        assert isinstance(row, Ratio)
        assert row.pairs == 1
        assert row.ratio == row.low == row.high == pytest.approx(row.median_a / row.median_b)
        assert min(row.median_a, row.median_b) > 0


def test_a_ratio_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    values = {"A": iter((99.0, 1.0, 8.0, 6.0)), "B": iter((99.0, 2.0, 2.0, 6.0))}
    a, b = (lambda: next(values["A"])), (lambda: next(values["B"]))
    found = measure("seconds", ("A", a), ("B", b), 3)  # the first call of each does not count
    assert (found.median_a, found.median_b) == (6, 2)
    assert (found.ratio, found.low, found.high, found.pairs) == (1, 0.5, 4, 3)
    assert Ratio.of("share", "A", "B", [(0.5, 0)]).ratio == math.inf
