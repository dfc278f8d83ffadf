"""What a graph says about itself: opset, precision, stored tensors, constants; and the way to add one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx

from csa_deploy.graph.operators import ONNX_DOMAINS, QUANTIZED

if TYPE_CHECKING:
    import onnx_ir as ir


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators that a model uses; 0 where it states none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS), default=0)


def node_opset(node: ir.Node) -> int:
    """Version of ONNX's own operators that a node of a main graph is of; 1 in a body."""
    import onnx_ir as ir  # a third of the time of `check`, which does without it

    graph = node.graph
    return graph.opset_imports.get("", 1) if isinstance(graph, ir.Graph) else 1


@dataclass(frozen=True)
class StatedTypes:
    """What the types in a graph say about its precision.

    Attributes:
        quantized: whether it has operators of :data:`QUANTIZED`.
        half: whether a stored tensor or a value with a stated type is FP16.
    """

    quantized: bool
    half: bool

    @property
    def precision(self) -> Literal["fp32", "fp16", "int8"]:
        """``int8`` with quantized values, ``fp16`` with halves, else ``fp32``."""
        return "int8" if self.quantized else "fp16" if self.half else "fp32"


def stated_types(model: onnx.ModelProto) -> StatedTypes:
    """What a graph's own types say about its precision."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    half = onnx.TensorProto.FLOAT16
    return StatedTypes(
        any(node.op_type in QUANTIZED for node in model.graph.node),
        any(tensor.data_type == half for tensor in all_tensors(model))
        or any(value.type.tensor_type.elem_type == half for value in values),
    )


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor of a model: initializers and attributes, also in subgraphs and local functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_tensors(graph)


def constants_of(graph: ir.Graph) -> list[ir.TensorProtocol]:
    """Values of the initializers and of the Constant nodes of the main graph."""
    weights = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    return weights + [a.as_tensor() for n in graph if n.op_type == "Constant" and (a := n.attributes.get("value"))]


def is_constant(value: ir.Value) -> bool:
    """Whether a value is an initializer or made by a Constant node."""
    maker = value.producer()
    return value.is_initializer() or (maker is not None and maker.op_type == "Constant")


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of a constant that no input can override, or None.

    ``onnx_ir.convenience.get_const_tensor`` takes such an initializer for a constant, raises on a malformed node, and
    gives the tensor of a Constant node another name, which then stands in the file as well.
    """
    if value is None or value.is_graph_input():
        return None
    maker = value.producer()
    if maker is None:
        return value.const_value
    attribute = maker.attributes.get("value") if maker.op_type == "Constant" and not maker.domain else None
    return attribute.as_tensor() if attribute is not None else None


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer, or of what a rewrite has computed ahead, that no input can override; or None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def weight_array(value: ir.Value | None) -> np.ndarray:
    """The array of a value that is known to be an initializer."""
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def add_initializer(
    graph: ir.Graph, name: str, array: np.ndarray | np.generic, dtype: ir.DataType | None = None
) -> ir.Value:
    """Store an array in a graph as an initializer, which is returned.

    Args:
        name: which the graph does not have yet.
        dtype: element type where the array's own does not say it (as of 4-bit numbers).
    """
    import onnx_ir as ir

    tensor = ir.tensor(np.asarray(array), dtype, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def remove_unused_initializers(graph: ir.Graph) -> None:
    """Remove initializers that nobody reads; one that a caller may override stays, or its input would be required."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
