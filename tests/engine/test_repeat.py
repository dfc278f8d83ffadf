"""Several builds side by side."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from csa_deploy.engine.build import build
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.repeat import Ran, Spread, require_identical, spread_of
from csa_deploy.errors import BuildFailedError


@pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="TensorRT-RTX is not installed")
def test_builds_of_tensorrt_rtx_are_the_same(conv_fp32: Path, tmp_path: Path) -> None:
    plan = BuildPlan(backend="tensorrt-rtx", compute_capabilities=("8.6",))
    results = [build(conv_fp32, tmp_path / f"{i}.engine", plan) for i in range(2)]
    spread = spread_of(results, [], "no CUDA device")
    assert spread.identical
    require_identical(spread, "conv")
    assert spread.to_json()["output_difference"] is None
    assert spread.tactics is None  # the inspector needs a device

    for index, tactics in enumerate((("a", "b"), ("a", "c"))):
        layers = [{"Name": f"layer{k}", "TacticName": tactic} for k, tactic in enumerate(tactics)]
        (tmp_path / f"{index}.json").write_text(json.dumps({"Layers": layers}))
    other = [replace(result, inspection=tmp_path / f"{i}.json") for i, result in enumerate(results)]
    assert spread_of(other, [], "").tactics == {"layer1": ("b", "c")}


def test_how_far_they_spread() -> None:
    runs = tuple(Ran({"y": np.array([0.0, value])}, ms) for value, ms in ((1.0, 5.0), (1.5, 4.0), (0.75, 4.5)))
    spread = Spread(("a", "b", "a"), (1.0, 2.0, None), {"conv": ("t1", "t2")}, runs)
    shown = spread.to_json()
    assert (shown["output_difference"], shown["median_ms_spread"], shown["identical"]) == (0.75, 1.0, False)
    with pytest.raises(BuildFailedError, match="2 different engines in 3 builds; 1 layers got other tactics"):
        require_identical(spread, "net")
