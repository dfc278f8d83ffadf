"""``evaluate`` by a task: the same numbers from a PyTorch module and from its graph, and those of the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from tests.tasks.squares import DECODE, detector, pictures

pytest.importorskip("pycocotools")
MODULE = """
import numpy as np, torch
from pathlib import Path
from torch import nn


class Squares(nn.Module):
    example_inputs = {"x": torch.zeros(1, 3, 64, 64)}

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 16, 8, 4)
        weight = torch.zeros(2, 3, 16, 16)
        weight[0, 0] = weight[1, 1] = 40 / 256
        self.load_state_dict({"conv.weight": weight, "conv.bias": torch.full((2,), -30.0)})
        rows, columns = np.divmod(np.arange(64), 8)
        centres = (np.stack([columns, rows], axis=1) + 0.5) * 8
        self.grid = torch.tensor(np.concatenate([centres - 8, centres + 8], axis=1)[None], dtype=torch.float32)

    def forward(self, x):
        scores = torch.sigmoid(self.conv(x).flatten(2).transpose(1, 2))
        return {"boxes": self.grid + 0 * x.sum(dim=(1, 2, 3))[:, None, None], "scores": scores}


def make():
    return Squares()
"""


def test_a_module_and_its_graph_reach_the_same(typed: Any, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODULE)
    (tmp_path / "heads.py").write_text(DECODE)
    save(detector(), tmp_path / "squares.onnx")
    pictures(tmp_path)
    found = []
    for network in ("net.py:make", "squares.onnx"):
        how = ("--data", "squares.npz", "--task", "detection", "--decode", "heads.py:decode")
        done = typed(tmp_path, "evaluate", network, *how, "--json")
        assert done.code == 0, done.err
        found.append(json.loads(done.out))
    first, second = (one["metrics"] for one in found)
    assert first.keys() == second.keys() == {"map", "map50"}
    assert first["map"]["value"] == second["map"]["value"] == pytest.approx(1.0)
    assert found[0]["by_class"] == found[1]["by_class"] and len(found[0]["by_class"]) == 2
    assert [row["name"] for row in found[0]["by_size"]] == ["all", "small", "medium", "large"]


def test_mean_iou_of_a_graph_is_that_of_its_masks(typed: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores, masks = rng.random((25, 3, 8, 10), np.float32), rng.integers(0, 3, (25, 8, 10))
    np.savez(tmp_path / "masks.npz", x=scores, masks=masks)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 8, 10]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", infos[:1], infos[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "same.onnx")
    done = typed(tmp_path, "evaluate", "same.onnx", "--data", "masks.npz", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    found = scores.argmax(axis=1)
    ious = [((found == k) & (masks == k)).sum() / ((found == k) | (masks == k)).sum() for k in range(3)]
    assert result["metrics"]["mean_iou"]["value"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert [row["value"] for row in result["by_class"]] == pytest.approx(ious, abs=1e-12)
    low, high = result["metrics"]["mean_iou"]["interval"]
    assert low < np.mean(ious) < high
    text = typed(tmp_path, "evaluate", "same.onnx", "--data", "masks.npz")
    assert "mean_iou" in text.out and "95 % interval" in text.out


def test_data_without_targets_is_refused(typed: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=np.zeros((2, 3, 64, 64), np.float32))
    (tmp_path / "heads.py").write_text(DECODE)
    save(detector(), tmp_path / "squares.onnx")
    how = ("--data", "plain.npz", "--task", "detection", "--decode", "heads.py:decode")
    done = typed(tmp_path, "evaluate", "squares.onnx", *how)
    assert done.code == 2 and "no labels to evaluate against" in done.err and "Traceback" not in done.err
