from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.tensorrt import TensorRT
from csa_deploy.engine.tensorrt_rtx import TensorRTRTX
from csa_deploy.errors import UsageError
from csa_deploy.records.build import RestrictedFlag
from csa_deploy.trtexec.builder import implausible


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "trt"}, "unknown backend 'trt' | fix: use one of auto, tensorrt, tensorrt-rtx"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"optimization_level": 6}, "unknown optimization level 6 | fix: use one of 0, 1, 2, 3, 4, 5"),
        ({"workspace_mib": 0}, "workspace_mib is 0"),
        ({"time_limit_s": -1.0}, "time_limit_s is -1.0"),
        ({"compute_capabilities": ("sm_86",)}, "'sm_86' is no compute capability"),
        ({"compute_capabilities": ("current", "8.6")}, "'current' is combined with others"),
    ],
)
def test_wrong_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        BuildPlan(**options)
    assert message in str(caught.value)


def test_json_names_no_folder() -> None:
    data = json.dumps(BuildPlan(timing_cache=Path("/somewhere/t.cache"), compute_capabilities=("8.6",)).to_json())
    assert json.loads(data)["timing_cache"] == "t.cache"
    assert "somewhere" not in data


def test_plans_and_results_import_nothing_heavy() -> None:
    code = (
        "import sys, csa_deploy.engine.plan, csa_deploy.engine.result, csa_deploy.engine.build; "
        "print([m for m in ('numpy', 'onnx', 'torch', 'polygraphy', 'tensorrt_rtx', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def flag(**changes: Any) -> RestrictedFlag:
    fields = {"builder": "TensorRT 10.3", "requested": True, "accepted": True, "acts": True}
    return RestrictedFlag.told(**{**fields, "evidence": "restricted-build", **changes})


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, "restricted-build", "checked the network and accepted it (level restricted-build)"),
        ({"acts": False}, None, "accepts the safety-scope flag and ignores it"),
        ({"accepted": False}, None, "has no safety-scope flag"),
        ({"requested": False}, None, "not requested"),
        ({"skipped": "Safety scope check skipped"}, None, "skipped the check (Safety scope check skipped)"),
    ],
)
@pytest.mark.shows("MEA-06", "ERR-04")
def test_a_level_needs_a_flag_that_acts(changes: dict[str, Any], level: str | None, words: str) -> None:
    assert flag(**changes).level == level
    assert words in flag(**changes).statement
    assert flag(**changes).to_json()["level"] == level


@pytest.mark.parametrize(
    ("version", "acts"), [("10.0.1.6", True), ("10.15.1.29", True), ("10.16.0", False), ("11.4.1", False)]
)
@pytest.mark.shows("MEA-06")
def test_flag_acts_in_tensorrt_up_to_10_15(version: str, acts: bool) -> None:
    assert TensorRT().restricted_acts(version) is acts


@pytest.mark.parametrize(("version", "acts"), [("1.4.0.76", True), ("1.5.0", False), ("1.7.1.116", False)])
def test_flag_acts_in_rtx_up_to_1_4(version: str, acts: bool) -> None:
    assert TensorRTRTX().restricted_acts(version) is acts


@pytest.mark.parametrize(
    ("size", "weights", "stripped", "said"),
    [
        (11, 0, False, "is a file of 11 bytes"),
        (511, 0, True, "is a file of 511 bytes"),
        (512, 0, False, ""),
        (1000, 8001, False, "cannot hold 8001 weights"),
        (1000, 8000, False, ""),  # a bit for each: no format stores less
        (1000, 800_000, True, ""),
    ],
)
@pytest.mark.shows("MEA-44")
def test_a_file_that_is_surely_no_engine(tmp_path: Path, size: int, weights: int, stripped: bool, said: str) -> None:
    tensors = [onnx.numpy_helper.from_array(np.zeros(weights, "f4"), "w")] if weights else []
    graph = onnx.helper.make_graph([], "g", [], [], tensors)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "g.onnx")
    (tmp_path / "e").write_bytes(bytes(size))
    assert said in implausible(tmp_path / "e", tmp_path / "g.onnx", stripped=stripped)
    assert bool(said) == bool(implausible(tmp_path / "e", tmp_path / "g.onnx", stripped=stripped))
