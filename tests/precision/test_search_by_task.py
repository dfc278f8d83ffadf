"""The INT8 search holds a budget of the task: layers go back until mean IoU does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import csa_deploy as csa

SIDE, CLASSES = 12, 3


def _segmenter() -> Any:
    """A map of three classes whose last convolution has one channel that INT8 cannot tell from the others."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(6, 3, 3, 3)).astype(np.float32)
    last = rng.normal(size=(CLASSES, 6, 1, 1)).astype(np.float32)
    tensors = {"a": first, "b": last, "o": np.full(6, 900.0, np.float32), "p": -900.0 * last.sum(axis=(1, 2, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "a", "o"], ["h"], "body", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "b", "p"], ["y"], "head"),
    ]
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, SIDE, SIDE]) for n, c in (("x", 3), ("y", CLASSES))
    ]
    constants = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import onnxruntime

    rng, folder = np.random.default_rng(1), tmp_path_factory.mktemp("masks")
    session = onnxruntime.InferenceSession(_segmenter().SerializeToString(), providers=["CPUExecutionProvider"])
    images = rng.normal(size=(32, 3, SIDE, SIDE)).astype(np.float32)
    masks = np.concatenate([session.run(None, {"x": image[None]})[0].argmax(axis=1) for image in images])
    np.savez(folder / "masks.npz", x=images, masks=masks)
    return folder / "masks.npz"


def test_layers_go_back_until_mean_iou_holds(data: Path) -> None:
    """The activation of 900 and more leaves INT8 steps that are larger than what tells the classes apart."""
    loose = {"int8": {"snr_db": -100.0, "cosine": -1.0, "mean_iou_drop": 1.0}}
    strict = {"int8": {**loose["int8"], "mean_iou_drop": 0.01}}
    how = {"calib": str(data), "task": "segmentation", "techniques": "none"}
    left, held = (csa.quantize(_segmenter(), budget=budget, **how) for budget in (loose, strict))
    searches = [found.report.to_json()["precisions"]["int8"]["search"] for found in (left, held)]
    assert searches[0]["returned"] == [] and searches[0]["pareto"][0]["metrics"]["mean_iou_drop"] > 0.05
    assert searches[1]["returned"] and searches[1]["budget"]["mean_iou_drop"] == 0.01
    chosen = next(p for p in searches[1]["pareto"] if p["returned"] == len(searches[1]["returned"]))
    assert chosen["metrics"]["mean_iou_drop"] <= 0.01 and chosen["holds"]
