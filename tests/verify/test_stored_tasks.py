"""Stored task metrics: judged anew, and two runs held against each other, without running anything."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from csa_deploy.api.runs import compare_stored, judge_stored
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.pipeline import run_stages
from csa_deploy.source import load_source
from csa_deploy.verify.results import stored_results
from csa_deploy.workspace import Workspace
from tests.tasks.squares import DECODE, detector, pictures


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A detector held against itself, and against one whose classes are swapped."""
    place = tmp_path_factory.mktemp("stored")
    (place / "heads.py").write_text(DECODE)
    data = pictures(place)
    onnx.save(detector(), place / "squares.onnx")
    for name, swapped in (("a", False), ("b", True)):
        (place / f"{name}-graph").mkdir()
        onnx.save(detector(swapped=swapped), place / f"{name}-graph" / "other.onnx")
        given = {"network": str(place / "squares.onnx"), "data": str(data), "task": "detection", "precision": ["fp32"]}
        given |= {"decode": f"{place / 'heads.py'}:decode", "candidate": [str(place / f"{name}-graph" / "other.onnx")]}
        config, workspace = make_config({**given, "localize": False, "threads": 1}), Workspace(place / name)
        with workspace.locked():
            run_stages(["verify"], Context(config, load_source(config.network), workspace))
    return place / "a", place / "b"


def test_stored_average_precision_is_judged_anew(runs: tuple[Path, Path]) -> None:
    """On both sides of the bound."""
    right, wrong = (stored_results(run) for run in runs)
    assert judge_stored(right).verdict == "pass" and judge_stored(wrong).verdict == "fail"
    data = judge_stored(wrong, budget=["fp32.map_drop=0.02"]).to_json()
    checks = next(c["checks"] for c in data["candidates"] if c["label"] == "other.onnx")
    found = next(check for check in checks if check["metric"] == "map_drop")
    assert found["bound"] == 0.02 and found["state"] == "fail" and found["value"] > 0.3


def test_two_runs_are_compared_by_average_precision(runs: tuple[Path, Path]) -> None:
    rows = compare_stored(*runs).accuracy.rows
    (change,) = [row for row in rows if row.label == "other.onnx" and row.metric == "map"]
    assert change.outcome == "worse" and change.difference < -0.3
    again = compare_stored(runs[0], runs[0]).accuracy.rows
    (same,) = [row for row in again if (row.label, row.metric) == ("other.onnx", "map")]
    assert same.outcome == "no difference shown"
