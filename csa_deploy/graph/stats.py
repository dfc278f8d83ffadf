"""Operations, parameters and multiply-accumulates of an ONNX graph."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir

from csa_deploy.graph.shapes import editable, infer_shapes, inferred, static_shape, stored_bytes
from csa_deploy.units import giga

_WEIGHT = {"QLinearConv": 3, "QLinearMatMul": 3}  # second operand's place among the inputs, where it is not 1
_CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv", "DeformConv")
_RECURRENT = ("LSTM", "GRU", "RNN")
_COUNTED = (*_CONVOLUTIONS, "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "Einsum", *_RECURRENT)
_UNCOUNTED = ("Conv", "MatMul", "Gemm", "LSTM", "GRU", "Attention", "Einsum")
"""In the name of an operator that is not counted: it multiplies, nobody knows how often."""


@dataclass(frozen=True)
class GraphStatistics:
    """What a graph consists of.

    Attributes:
        ops: nodes of the main graph by operator, in alphabetical order.
        parameters: elements of all floating-point and 8-bit initializers and constants, shared ones once. Running
            statistics of BatchNormalization are among them, so folding lowers the number.
        macs: multiply-accumulates of convolutions, matrix products and recurrent layers in the main graph, for the
            graph's batch; None where one of them is not known.
        macs_unknown: nodes that multiply, whose shapes could not be inferred or whose operator is not ONNX's.
        weight_bytes: bytes of all initializers and constants of the main graph.
    """

    ops: dict[str, int]
    parameters: int
    macs: int | None
    macs_unknown: tuple[str, ...]
    weight_bytes: int

    @property
    def nodes(self) -> int:
        """Nodes of the main graph."""
        return sum(self.ops.values())

    @property
    def work(self) -> str:
        """The multiply-accumulates in words."""
        unknown = len(self.macs_unknown)
        return f"{giga(self.macs)} multiply-accumulates" + (f" (unknown for {unknown} nodes)" if unknown else "")

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the number of nodes."""
        return {"nodes": self.nodes, **dataclasses.asdict(self)}


def graph_statistics(model: onnx.ModelProto) -> GraphStatistics:
    """Count a model's operations, parameters, multiply-accumulates and bytes."""
    graph = inferred(model).graph
    macs, unknown = _macs(graph)
    if unknown:
        macs, unknown = _macs(_folded(model))
    tensors = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    tensors += [a.as_tensor() for n in graph if n.op_type == "Constant" and (a := n.attributes.get("value"))]
    return GraphStatistics(
        ops=dict(sorted(Counter(node.op_type for node in graph).items())),
        parameters=sum(t.size for t in tensors if _is_parameter(t.dtype)),
        macs=None if unknown else macs,
        macs_unknown=tuple(unknown),
        weight_bytes=sum(map(stored_bytes, tensors)),
    )


def _macs(graph: ir.Graph) -> tuple[int, list[str]]:
    """Multiply-accumulates of the nodes of known shapes, and the names of the others."""
    counts = {node: node_macs(node) for node in graph if multiplies(node)}
    unknown = [node.name or node.op_type for node, count in counts.items() if count is None]
    return sum(count or 0 for count in counts.values()), unknown


def multiplies(node: ir.Node) -> bool:
    """Whether a node multiplies and accumulates, as far as its name tells."""
    if node.domain in ("", "ai.onnx") and node.op_type in _COUNTED:
        return True
    return any(word in node.op_type for word in _UNCOUNTED)


def _folded(model: onnx.ModelProto) -> ir.Graph:
    """The graph with its shape arithmetic computed, which shows shapes that inference alone does not find."""
    from csa_deploy.graph.rules import constants

    view = editable(model)
    constants.RULE.apply(view)
    infer_shapes(view)
    return view.graph


def _is_parameter(dtype: ir.DataType) -> bool:
    return dtype.is_floating_point() or (not dtype.is_string() and dtype.bitwidth == 8)


def node_macs(node: ir.Node) -> int | None:
    """Multiply-accumulates of one node, or None where a shape is missing or the operator is not known."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _COUNTED:
        return None
    if node.op_type == "Einsum":
        return _einsum_macs(node)
    second = _WEIGHT.get(node.op_type, 1)
    data, weight = (static_shape(value) for value in (node.inputs[0], node.inputs[second]))
    if data is None or weight is None:
        return None
    if node.op_type in _RECURRENT:
        return _recurrent_macs(node, data, weight)
    out = static_shape(node.outputs[0])
    if out is None:
        return None
    if node.op_type in _CONVOLUTIONS:
        return math.prod(out) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(data) * math.prod(weight[1:])
    transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transA", 0))
    return math.prod(out) * (data[0] if transposed else data[-1])


def _recurrent_macs(node: ir.Node, data: tuple[int, ...], weight: tuple[int, ...]) -> int | None:
    """Of input (T, B, I) or, with layout 1, (B, T, I): each step of each sequence multiplies all weights once."""
    hidden = static_shape(node.inputs[2])
    return None if hidden is None else data[0] * data[1] * (math.prod(weight) + math.prod(hidden))


def _einsum_macs(node: ir.Node) -> int | None:
    """The product of all letters' sizes; of more than two operands the order decides, and nobody knows it."""
    terms = node.attributes.get_string("equation", "").replace(" ", "").partition("->")[0].split(",")
    shapes = [static_shape(value) for value in node.inputs]
    if len(terms) == 1:
        return 0
    if len(terms) != 2 or "." in "".join(terms) or None in shapes or len(shapes) != 2:
        return None
    letters, lengths = "".join(terms), [size for shape in shapes for size in shape or ()]
    return math.prod(dict(zip(letters, lengths, strict=True)).values()) if len(letters) == len(lengths) else None
