"""Small ONNX graphs for the engine tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[Any]]],
    outputs: dict[str, tuple[int, Sequence[Any]]],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 18,
) -> Path:
    """Write an ONNX file; inputs and outputs as name -> (element type, shape)."""
    domains = {node.domain for node in nodes} - {""}
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def conv_graph(path: Path, dtype: type = np.float32, batch: int | str = 1) -> Path:
    """x -> Conv '/net/conv' -> Relu -> y; FP16 inside and FP32 outside when ``dtype`` is float16."""
    conv = helper.make_node("Conv", ["h", "w"], ["c"], name="/net/conv", pads=[1] * 4)
    half = dtype == np.float16
    first = helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16) if half else None
    nodes = [first, conv] if first else [conv]
    nodes += [helper.make_node("Relu", ["c"], ["r"], name="/net/relu")]
    nodes += [helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT, name="/net/out")]
    if not half:
        conv.input[0] = "x"
    weights = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(dtype)}
    shape = {"x": (TensorProto.FLOAT, [batch, 3, 8, 8])}, {"y": (TensorProto.FLOAT, [batch, 4, 8, 8])}
    return save_graph(path, nodes, *shape, weights)


def lrn_graph(path: Path) -> Path:
    """A network that the safety scope refuses."""
    spec = (TensorProto.FLOAT, [1, 3, 8, 8])
    return save_graph(path, [helper.make_node("LRN", ["x"], ["y"], name="/net/lrn", size=3)], {"x": spec}, {"y": spec})
