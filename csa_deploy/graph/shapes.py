"""Shapes and element types of every value of a graph, without copying weights."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass


def infer_shapes(graph_model: ir.Model) -> None:
    """Run ONNX shape inference over a model in place; values it cannot infer keep what they declare."""
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(graph_model)


def inferred(model: onnx.ModelProto) -> ir.Model:
    """An IR view of ``model`` with every inferable shape; it shares the weights and leaves ``model`` alone."""
    view = ir.from_proto(model)
    infer_shapes(view)
    return view


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape as integers, or None where any axis is unknown."""
    if value is None or value.shape is None:
        return None
    dims = tuple(value.shape.dims)
    return tuple(int(d) for d in dims if isinstance(d, int)) if all(isinstance(d, int) for d in dims) else None
