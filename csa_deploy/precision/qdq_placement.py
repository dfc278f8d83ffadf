"""Where TensorRT wants Q/DQ: what runs in INT8 and which tensors and weights that needs.

TensorRT fuses a convolution with the Q/DQ pairs on its data input and on its weights, and a pooling with that on its
input; it moves quantization through max pooling, reshape and transpose by itself, so none is placed there. An addition
of a residual block joins the layer that makes one of its inputs, whose sums it then takes unrounded; the other input,
the skip branch, is the one to quantize (NVIDIA's tensorflow-quantization toolkit, "Custom Q/DQ insertion case"). With
TensorRT-RTX's builder a pair on both gives the same kernels and rounds once more for nothing. Nothing is placed on
gates (Sigmoid and the products that they control): TensorRT computes them in FP16 or FP32, and a pair there would be a
conversion for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import onnx
import onnx_ir as ir

from csa_deploy.errors import UsageError
from csa_deploy.graph.facts import is_constant, opset_of
from csa_deploy.graph.operators import ONNX_DOMAINS, POOLS, QUANTIZED, WEIGHTED
from csa_deploy.graph.shapes import inferred
from csa_deploy.records.precision import Layer

# Operator -> axis of the output channels in its weight; Gemm's depends on transB.
_OUTPUTS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
OLDEST_OPSET = 13


@dataclass(frozen=True)
class SharedScale:
    """Tensors with one scale.

    Attributes:
        members: their names.
        deciding: those whose ranges it has to hold; the others are cut off to it.
    """

    members: tuple[str, ...]
    deciding: tuple[str, ...]


@dataclass(frozen=True)
class QdqPlacement:
    """All nodes that can run in INT8, in the graph's order, why the other candidates cannot, and shared scales."""

    layers: tuple[Layer, ...]
    refused: dict[str, str] = field(default_factory=dict)
    scales: tuple[SharedScale, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """Activations to quantize, each once."""
        return tuple(dict.fromkeys(t for layer in self.layers for t in (*layer.activations.values(), *layer.results)))

    def without(self, names: Iterable[str]) -> QdqPlacement:
        """The placement with the named nodes left in floating point."""
        names = frozenset(names)
        return replace(self, layers=tuple(layer for layer in self.layers if layer.name not in names))

    def shared(self, thresholds: Mapping[str, float]) -> dict[str, float]:
        """Thresholds by tensor, the largest of those that share a scale for all of them."""
        made = dict(thresholds)
        for group in self.scales:
            known = [thresholds[name] for name in group.deciding if name in thresholds]
            made |= dict.fromkeys((name for name in group.members if name in thresholds), max(known, default=1.0))
        return made


def place(model: onnx.ModelProto) -> QdqPlacement:
    """Decide what runs in INT8.

    Raises:
        UsageError: the graph is quantized already, its opset has no per-channel Q/DQ, or nothing can be quantized.
    """
    opset = opset_of(model)
    if opset < OLDEST_OPSET:
        raise UsageError(
            f"opset {opset} has no per-channel QuantizeLinear", fix=f"export with opset {OLDEST_OPSET} or later"
        )
    graph = inferred(model).graph
    if found := next((node for node in graph if node.op_type in QUANTIZED), None):
        raise UsageError(
            f"the graph is quantized already: node '{found.name}' is a {found.op_type}",
            fix="give the floating-point graph",
        )
    layers, refused = [], {}
    for node in graph:
        layer = _layer(node)
        if isinstance(layer, Layer):
            layers.append(layer)
        elif layer:
            refused[node.name or node.op_type] = layer
    if not any(layer.weight for layer in layers):
        raise UsageError("no convolution or matrix product that could run in INT8", fix="quantization has no use here")
    return QdqPlacement(tuple(layers), refused)


def _layer(node: ir.Node) -> Layer | str | None:
    """The INT8 form of a node, the reason why it has none, or None for a node that stays floating-point anyway."""
    if node.domain not in ONNX_DOMAINS or not node.name:
        return None
    if node.op_type in WEIGHTED:
        return weighted(node)
    if node.op_type in POOLS and node.inputs[0] is not None:
        return Layer(node.name, node.op_type, {0: str(node.inputs[0].name)})
    if node.op_type == "Add" and _is_residual(node):
        joined = _joined(node)
        skipped = {i: str(v.name) for i, v in enumerate(node.inputs) if v is not None and i != joined}
        return Layer(node.name, "Add", skipped)
    return None


def _joined(node: ir.Node) -> int | None:
    """The input of an addition whose layer takes the addition in: what it makes is read by nobody else.

    Of two such layers it is the later one; the other has to be done by then. None where no layer makes an input.
    """
    found = [
        (index, maker)
        for index, value in enumerate(node.inputs)
        if value is not None
        and (maker := value.producer()) is not None
        and maker.op_type in WEIGHTED
        and len(value.uses()) == 1
        and not value.is_graph_output()
    ]
    if len(found) == 2 and node.graph is not None:
        order = {other: place for place, other in enumerate(node.graph)}
        found.sort(key=lambda pair: order[pair[1]])
    return found[-1][0] if found else None


def weighted(node: ir.Node) -> Layer | str:
    """The INT8 form of a node with weights, or why it has none."""
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None or not weight.is_initializer() or weight.is_graph_input():
        return "its weight is not a constant of the graph"
    if is_constant(data):
        return "its input is a constant"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype}, not FP32"
    transposed: int = node.attributes.get_int("transB", 0) or 0
    axis = 0 if transposed else _OUTPUTS[node.op_type]
    if node.op_type == "MatMul" and (weight.shape is None or len(weight.shape) != 2):
        return "its weight is no matrix"
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        return "TensorRT has no INT8 form of a grouped transposed convolution"
    return Layer(str(node.name), node.op_type, {0: str(data.name)}, str(weight.name), axis)


def _is_residual(node: ir.Node) -> bool:
    """Whether an Add joins two activations of one shape."""
    first, second = node.inputs
    if first is None or second is None or is_constant(first) or is_constant(second):
        return False
    return first.shape is not None and first.shape == second.shape and first.dtype == ir.DataType.FLOAT
