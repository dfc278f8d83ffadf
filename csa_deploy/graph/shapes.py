"""Shapes and element types of every value of a graph, without copying weights."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveInitializersFromInputsPass, ShapeInferencePass

from csa_deploy.errors import UsageError

_OPTIONAL_INPUTS = 4

# The pass below would take a sequence for a tensor of the sequence's element type.
_NO_TENSORS = ("Sequence", "Optional")


def editable(model: onnx.ModelProto) -> ir.Model:
    """An IR model to rewrite: it shares the bytes of the weights with ``model``, but nothing done to it shows there.

    Before IR version 4 every weight had to be listed as an input as well; that list is dropped, so that weights are
    constants, and the version raised.

    Raises:
        UsageError: the model holds sparse initializers, which the IR leaves out.
    """
    require_dense(model)
    view = ir.from_proto(model)
    for graph in view.graphs():
        for value in graph.initializers.values():
            value.const_value = _own(value.const_value)
    for node in ir.traversal.RecursiveGraphIterator(view.graph):
        if node.op_type == "Constant" and (attribute := node.attributes.get("value")) is not None:
            node.attributes["value"] = ir.AttrTensor("value", _own(attribute.as_tensor()))
    if view.ir_version < _OPTIONAL_INPUTS:
        RemoveInitializersFromInputsPass()(view)
        view.ir_version = _OPTIONAL_INPUTS
    return view


def require_dense(model: onnx.ModelProto) -> None:
    """Raise UsageError for sparse initializers: a rewritten graph would lack them."""
    if model.graph.sparse_initializer:
        raise UsageError("sparse initializers are not supported", fix="export the model with dense weights")


def _own(tensor: Any) -> Any:
    """``tensor`` under a name of its own: renaming one that wraps a protobuf message renames the message."""
    if isinstance(tensor, ir.TensorProtoTensor) and not tensor.dtype.is_string() and tensor.dtype.bitwidth >= 8:
        return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    return tensor


def infer_shapes(model: ir.Model) -> None:
    """Run ONNX shape inference over a model in place; values it cannot infer keep what they declare."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    if not any(word in node.op_type for node in nodes for word in _NO_TENSORS):
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def inferred(model: onnx.ModelProto) -> ir.Model:
    """An IR view of ``model`` with every inferable shape; it shares the weights and leaves ``model`` alone."""
    view = ir.from_proto(model)
    infer_shapes(view)
    return view


def stored_bytes(tensor: ir.TensorProtocol) -> int:
    """Bytes of a tensor's values; text counts as none."""
    return 0 if tensor.dtype.is_string() else tensor.nbytes


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape as integers, or None where any axis is unknown."""
    if value is None or value.shape is None:
        return None
    dims = tuple(value.shape.dims)
    return tuple(int(d) for d in dims if isinstance(d, int)) if all(isinstance(d, int) for d in dims) else None
