"""A model of nodes, as tests write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


def model_of(
    nodes: Iterable[NodeProto],
    inputs: Mapping[str, Sequence[int]],
    outputs: Iterable[str],
    constants: Mapping[str, Any],
    *,
    kind: int = TensorProto.FLOAT,
    opset: int = 21,
) -> ModelProto:
    """Nodes without a name get one; shapes of what is computed are inferred, and each has to fit."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    for number, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model
