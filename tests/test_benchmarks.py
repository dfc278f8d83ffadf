"""Benchmarks are run by hand: here each that takes seconds runs once in its smallest form."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import page
from benchmarks.pairs import NotMeasured, Ratio, measure

DIGITS = "csa_digits"
SMALLEST: dict[str, dict[str, Any]] = {
    "startup": {"PAIRS": 1},
    "errata": {"PAIRS": 1, "BLOCKS": 2},
    "check_scaling": {"PAIRS": 1, "SIZES": (4, 8)},
    "graphs": {"NETWORKS": ((DIGITS, 1),)},
    "stages": {"NETWORKS": (DIGITS,)},
    "report": {"PAIRS": 1, "NETWORKS": (DIGITS, DIGITS)},
    "calibration": {"PAIRS": 1, "NETWORK": DIGITS, "MANY": 4, "FEW": 2, "SIZES": (2, 4)},
    "cluster": {"PAIRS": 1, "SAMPLES": 200, "NETWORKS": 1, "SINGLE": 50, "COMPARED": 10},
    "int8_arithmetic": {"PAIRS": 1, "NETWORKS": {DIGITS: ()}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_runs_in_its_smallest_form(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = import_module(f"benchmarks.{name}")
    for constant, value in SMALLEST[name].items():
        monkeypatch.setattr(module, constant, value)
    if hasattr(module, "PICTURE"):
        monkeypatch.setattr(module, "PICTURE", tmp_path / "picture.svg")
    found = module.run()
    rows = [row for row in found if isinstance(row, Ratio)]
    assert rows and {row.what for row in found if not isinstance(row, Ratio)} <= {"Model Optimizer"}
    for row in rows:
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


def test_the_page_holds_what_is_kept_of_every_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {
        "startup": [Ratio.of("seconds", "ours", "theirs", [(3.0, 2.0), (1.0, 4.0)])],
        "report": [Ratio.of("MiB", "many", "few", [(5.0, 4.0)]), NotMeasured("a peer", "not installed")],
    }
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    for name, rows in found.items():
        monkeypatch.setattr(import_module(f"benchmarks.{name}"), "run", lambda rows=rows: rows)
        benchmarks.main([name])
    text = (tmp_path / "page.md").read_text()
    assert "| seconds | ours | theirs | 2 | 3 | 0.875 | 0.250 to 1.500 | 2 |" in text
    assert "| MiB | many | few | 5 | 4 | 1.250 | - | 1 |\n| a peer | not measured: not installed |||||||" in text
    assert text.index("## startup") < text.index("## report")
