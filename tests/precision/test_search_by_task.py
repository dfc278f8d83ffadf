"""The INT8 search holds a budget of the task: layers go back until mean IoU or average precision does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import csa_deploy as csa
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.pipeline import run_stages
from csa_deploy.source import load_source
from csa_deploy.workspace import Workspace
from tests.tasks.squares import DECODE, detector, pictures

LIFT = 400.0
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


def _blunt(detector: onnx.ModelProto) -> onnx.ModelProto:
    """The same detector with pictures lifted by 400 before its head, which the head's bias takes away again.

    In FP32 nothing changes; in INT8 the head's input has steps of 3, larger than what tells squares from ground.
    """
    tensors = {t.name: t for t in detector.graph.initializer}
    weight, bias = (numpy_helper.to_array(tensors[name]) for name in ("weight", "bias"))
    lifted = numpy_helper.from_array((bias - LIFT * weight.sum(axis=(1, 2, 3))).astype(np.float32), "bias")
    tensors["bias"].CopyFrom(lifted)
    size = weight.shape[-1]
    new = {"eye": np.eye(3, dtype=np.float32)[:, :, None, None], "up": np.full(3, LIFT, np.float32)}
    detector.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in new.items())
    head = detector.graph.node[0]
    head.input[0] = "lifted"
    pads = next(attribute for attribute in head.attribute if attribute.name == "pads")
    pads.ints[:] = [0] * 4
    side = size // 4
    padding = numpy_helper.from_array(np.asarray([0, 0, side, side, 0, 0, side, side]), "pads")
    detector.graph.initializer.append(padding)
    detector.graph.node.insert(0, helper.make_node("Conv", ["padded", "eye", "up"], ["lifted"], "/body/conv"))
    detector.graph.node.insert(0, helper.make_node("Pad", ["x", "pads"], ["padded"], "/body/pad"))
    return detector


def test_the_head_goes_back_until_average_precision_holds(tmp_path: Path) -> None:
    """Nothing names heads to the search: it finds the one that INT8 spoils, and leaves the body alone."""
    (tmp_path / "heads.py").write_text(DECODE)
    decode = f"{tmp_path / 'heads.py'}:decode"
    loose = {"int8": {"snr_db": -100.0, "cosine": -1.0, "map_drop": 1.0}}
    strict = {"int8": {**loose["int8"], "map_drop": 0.01}}
    how = {"calib": str(pictures(tmp_path, 32)), "task": "detection", "decode": decode, "techniques": "none"}
    left, held = (csa.quantize(_blunt(detector()), budget=budget, **how) for budget in (loose, strict))
    searches = [found.report.to_json()["precisions"]["int8"]["search"] for found in (left, held)]
    assert searches[0]["returned"] == [] and searches[0]["pareto"][0]["metrics"]["map_drop"] > 0.05
    assert searches[1]["returned"] == ["/head/conv"] and searches[1]["not_judged"] == {}
    chosen = next(p for p in searches[1]["pareto"] if p["returned"] == 1)
    assert chosen["metrics"]["map_drop"] <= 0.01 and chosen["holds"]


@pytest.mark.slow
def test_the_search_of_the_detector_in_the_box_is_driven_by_average_precision(tmp_path: Path) -> None:
    """24 training scenes, ranges by minmax, which lose some; a bound below what all of INT8 loses takes layers back."""
    config = {"precision": ["int8"], "calib": "scenes:train", "calib_samples": 24, "data": "scenes", "samples": 20}
    config |= {"techniques": "none", "exporter": "torchscript", "network": "csa_detection", "calib_method": "minmax"}
    searches = []
    for bound in (1.0, None):
        if bound is None:  # half of what is lost without it
            bound = searches[0]["pareto"][0]["metrics"]["map_drop"] / 2
            if bound <= 0:
                pytest.skip("with these weights INT8 loses nothing on 24 scenes")
        budget = {"int8": {"map_drop": bound, "snr_db": -100.0, "cosine": -1.0}}
        workspace = Workspace(tmp_path / f"{bound:.5f}")
        with workspace.locked():
            context = Context(make_config({**config, "budget": budget}), load_source("csa_detection"), workspace)
            run_stages(["precision"], context)
        searches.append(workspace.record("precision")["precisions"]["int8"]["search"])
    assert searches[0]["returned"] == [] and searches[1]["returned"]
    chosen = next(p for p in searches[1]["pareto"] if p["returned"] == len(searches[1]["returned"]))
    assert chosen["holds"] and chosen["metrics"]["map_drop"] <= searches[1]["budget"]["map_drop"]
