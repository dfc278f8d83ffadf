"""Faults in a head, planted one at a time: the metric of the task breaks its budget, and the module is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import csa_deploy as csa
from csa_deploy.errors import UsageError

from .squares import DECODE, detector, pictures

pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    (folder / "heads.py").write_text(DECODE)
    pictures(folder)
    return folder


def compared(folder: Path, candidate: Any, **settings: Any) -> Any:
    settings = {"task": "detection", "decode": f"{folder}/heads.py:decode", **settings}
    return csa.compare(detector(), {"candidate": candidate}, data=folder / "squares.npz", **settings)


def checks(found: Any) -> dict[str, Any]:
    return {check.metric: check for check in found.report.candidates[0].checks}


def metrics(found: Any) -> dict[str, float]:
    return {name: v for o in found.outputs for name, v in o.metrics.items() if "map" in name or "agreement" in name}


def test_the_same_network_loses_nothing(folder: Path) -> None:
    found = compared(folder, detector())
    assert metrics(found)["map"] == pytest.approx(1.0) and metrics(found)["map_drop"] == 0.0
    assert metrics(found)["detection_agreement"] == 1.0
    assert checks(found)["map_drop"].state == "pass" and found.verdict == "pass"


@pytest.mark.parametrize(
    ("fault", "module"),
    [
        ({"swapped": True}, "/head/conv"),
        ({"stride": 9}, "/boxes/add"),
        ({"sigmoid": False}, "/head/sigmoid"),
        ({"form": "xywh"}, "/boxes/add"),
    ],
)
@pytest.mark.shows("MEA-31", "ERR-22")
def test_a_fault_is_caught_by_the_metric_of_the_task(folder: Path, fault: dict[str, Any], module: str) -> None:
    found = compared(folder, detector(**fault), localize=True)
    assert metrics(found)["map_drop"] > 0.3
    assert checks(found)["map_drop"].state == "fail" and found.verdict == "fail"
    assert metrics(found)["detection_agreement"] < 0.9
    (blamed,) = found.report.localization
    assert blamed.culprits == (module,)


def test_a_decode_function_that_gives_something_else_is_one_line(folder: Path) -> None:
    (folder / "wrong.py").write_text("def decode(outputs):\n    return outputs['boxes'], outputs['scores'], 0\n")
    with pytest.raises(UsageError, match=r"wrong.py:decode: it returned \(64, 4\), \(64, 2\), \(\)") as caught:
        compared(folder, detector(), decode=f"{folder}/wrong.py:decode")
    assert caught.value.exit_code == 2


def test_detection_without_a_way_to_boxes_says_how(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"decode='heads\.py:decode'"):
        compared(folder, detector(), decode=None)
