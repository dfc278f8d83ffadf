"""Writes INT8 into a graph: QuantizeLinear and DequantizeLinear where TensorRT fuses them, with given ranges.

ONNX Runtime's quantizer (``onnxruntime.quantization.QDQQuantizer``, 1.32) was tried for this and is not used: it writes
nodes out of topological order, stores shared biases once per use, needs 5 s where this needs 0.3 s (the search
inserts hundreds of times), and cannot make scales that FP16 represents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from csa_deploy.graph.facts import add_initializer, remove_unused_initializers
from csa_deploy.graph.names import Names
from csa_deploy.graph.shapes import editable, infer_shapes
from csa_deploy.precision.qdq_placement import QdqPlacement
from csa_deploy.precision.thresholds import INT8_LEVELS
from csa_deploy.records.precision import Layer

_ZERO = "int8_zero"
_SMALLEST = float(np.finfo(np.float32).tiny)
_SMALLEST_HALF = float(np.finfo(np.float16).smallest_subnormal)
_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight in INT8: values of the weight's shape, one scale per output channel, and that axis."""

    values: np.ndarray
    scales: np.ndarray
    axis: int

    def dequantized(self) -> np.ndarray:
        """The FP32 weight that the INT8 one stands for."""
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return self.values.astype(np.float32) * self.scales.reshape(shape)


@dataclass(frozen=True)
class Adjustments:
    """What INT8 layers take instead of plainly rounded weights and their own biases; other layers keep theirs.

    Attributes:
        weights: by name of the weight and its output-channel axis.
        biases: by node, FP32 of shape (output channels,); a node without a bias gets one.
    """

    weights: Mapping[tuple[str, int], QuantizedWeight] = field(default_factory=dict)
    biases: Mapping[str, np.ndarray] = field(default_factory=dict)

    def weight(self, name: str, exact: np.ndarray, axis: int, *, half_scales: bool = False) -> QuantizedWeight:
        """The INT8 form of a weight: the adjusted one, or the plainly rounded one."""
        return self.weights.get((name, axis)) or quantize_weight(exact, axis, half_scales=half_scales)


NOTHING = Adjustments()


@dataclass(frozen=True)
class QdqResult:
    """A graph with Q/DQ.

    Attributes:
        model: the graph; the argument of :func:`insert_qdq` is never changed.
        layers: nodes that run in INT8.
        kept: nodes that could and do not, with the reason.
        scales: by quantized activation.
    """

    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    kept: dict[str, str]
    scales: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the model."""
        return {"int8": [asdict(layer) for layer in self.layers], "kept": self.kept, "scales": self.scales}


def quantize_weight(weight: np.ndarray, axis: int, *, half_scales: bool = False) -> QuantizedWeight:
    """Symmetric INT8 with one scale per channel of ``axis``; -128 is not used."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others)
    # A channel of zeros may have any scale above zero.
    scales = _representable(np.where(largest > 0, largest, 1.0) / INT8_LEVELS, half_scales)
    shape = [1] * weight.ndim
    shape[axis] = -1
    values = np.clip(np.rint(weight / scales.reshape(shape)), -INT8_LEVELS, INT8_LEVELS).astype(np.int8)
    return QuantizedWeight(values, scales, axis)


def _representable(scales: np.ndarray, half: bool) -> np.ndarray:
    """Scales in FP32, none of them zero; with ``half`` rounded up to what FP16 represents, at most its largest."""
    if not half:
        return np.maximum(scales, _SMALLEST).astype(np.float32)
    scales = np.clip(scales, _SMALLEST_HALF, _LARGEST_HALF)
    rounded = scales.astype(np.float16)
    return np.where(rounded < scales, np.nextafter(rounded, np.float16(np.inf)), rounded).astype(np.float32)


def insert_qdq(
    model: onnx.ModelProto,
    placement: QdqPlacement,
    thresholds: Mapping[str, float],
    *,
    kept: Mapping[str, str] | None = None,
    half_scales: bool = False,
    adjustments: Adjustments = NOTHING,
) -> QdqResult:
    """Insert Q/DQ around the layers of ``placement``.

    Activations are symmetric per tensor, weights symmetric per output channel, zero points 0; biases stay in
    floating point, and so do layers with an activation that has no threshold (zero on every calibration image) or whose
    scale ``half_scales`` cannot represent.

    Args:
        model: FP32 graph; not changed.
        placement: what to quantize.
        thresholds: largest value that INT8 represents, by activation, above zero.
        kept: layers to leave in floating point, with the reason.
        half_scales: make scales that FP16 represents, for a graph that :func:`to_fp16` types afterwards.
        adjustments: weights and biases of INT8 layers that are not the plain ones.
    """
    reasons = dict(placement.refused) | dict(kept or {})
    layers = []
    view = editable(model)
    for layer in placement.layers:
        if layer.name in reasons:
            continue
        if reason := _hazard(layer, thresholds, view.graph, half_scales):
            reasons[layer.name] = reason
            continue
        layers.append(layer)
    writer = _Writer(view.graph, thresholds, half_scales, adjustments)
    nodes = {node.name: node for node in view.graph}
    for layer in layers:
        writer.quantize(nodes[layer.name], layer)
    for layer in layers:
        writer.quantize_results(nodes[layer.name], layer)
    RemoveUnusedNodesPass()(view)
    remove_unused_initializers(view.graph)
    infer_shapes(view)
    return QdqResult(ir.to_proto(view), tuple(layers), reasons, writer.scales)


def _hazard(layer: Layer, thresholds: Mapping[str, float], graph: ir.Graph, half: bool) -> str:
    """Why a layer gets no scale; an empty string if nothing speaks against it."""
    sizes: dict[str, float] = {}
    named = {f"input '{t}'": t for t in layer.activations.values()} | {f"output '{t}'": t for t in layer.results}
    for what, tensor in named.items():
        sizes[what] = size = thresholds.get(tensor, 0.0)
        if not 0.0 < size < np.inf:
            return f"its {what} was zero on every calibration image"
    if half and layer.weight is not None and (value := graph.initializers[layer.weight].const_value) is not None:
        sizes[f"weight '{layer.weight}'"] = float(np.abs(value.numpy()).max(initial=0.0))
    large = next((what for what, size in sizes.items() if half and size / INT8_LEVELS > _LARGEST_HALF), None)
    return f"its {large} reaches {sizes[large]:.3g}, whose INT8 scale FP16 cannot represent" if large else ""


class _Writer:
    """Adds Q/DQ nodes to a graph in place; a tensor gets one pair, whoever reads it."""

    def __init__(
        self, graph: ir.Graph, thresholds: Mapping[str, float], half_scales: bool, adjustments: Adjustments
    ) -> None:
        self._half, self._adjustments = half_scales, adjustments
        self.scales: dict[str, float] = {}
        self._graph = graph
        self._thresholds = thresholds
        self._activations: dict[str, ir.Value] = {}
        self._weights: dict[tuple[str, int], ir.Value] = {}
        self._names = Names(graph)
        self._zero = self._constant(_ZERO, np.int8(0))

    def quantize(self, node: ir.Node, layer: Layer) -> None:
        """Put Q/DQ before the inputs of a node."""
        for index in layer.activations:
            value = node.inputs[index]
            assert value is not None
            node.replace_input_with(index, self._activation(value))
        if layer.weight is not None:
            weight = node.inputs[1]
            assert weight is not None
            node.replace_input_with(1, self._weight(node, weight, layer.axis))
        if layer.name in self._adjustments.biases:
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            bias = self._adjustments.biases[layer.name]
            node.replace_input_with(2, self._constant(f"{layer.name}_corrected_bias", bias))

    def quantize_results(self, node: ir.Node, layer: Layer) -> None:
        """Put Q/DQ behind the outputs of a node, for all who read them, the caller of the network among them."""
        for value in [value for value in node.outputs if value.name in layer.results]:
            name, output = str(value.name), self._activation(value)
            quantize = output.producer().inputs[0].producer()  # type: ignore[union-attr]
            for user, index in tuple(value.uses()):
                if user is not quantize:
                    user.replace_input_with(index, output)
            if value.is_graph_output():
                value.name, output.name = self._names.unused(f"{name}_float"), name
                outputs = self._graph.outputs
                outputs[outputs.index(value)] = output

    def _activation(self, value: ir.Value) -> ir.Value:
        name = str(value.name)
        if name not in self._activations:
            scale = float(_representable(np.asarray(self._thresholds[name] / INT8_LEVELS), self._half))
            self.scales[name] = scale
            constant = self._constant(f"{name}_scale", np.float32(scale))
            quantize = self._node(
                "QuantizeLinear", [value, constant, self._zero], f"{name}_int8", ir.DataType.INT8, value
            )
            dequantize = self._node(
                "DequantizeLinear", [quantize.outputs[0], constant, self._zero], f"{name}_dq", value.dtype, value
            )
            maker = value.producer()
            if maker is None:
                self._graph.insert_before(self._graph[0], [quantize, dequantize])
            else:
                self._graph.insert_after(maker, [quantize, dequantize])
            self._activations[name] = dequantize.outputs[0]
        return self._activations[name]

    def _weight(self, node: ir.Node, value: ir.Value, axis: int) -> ir.Value:
        name = str(value.name)
        if (name, axis) not in self._weights:
            assert value.const_value is not None
            quantized = self._adjustments.weight(name, value.const_value.numpy(), axis, half_scales=self._half)
            stem = name if (name, 1 - axis) not in self._weights else f"{name}_axis{axis}"
            inputs = [
                self._constant(f"{stem}_int8", quantized.values),
                self._constant(f"{stem}_scale", quantized.scales),
                self._constant(f"{stem}_zero", np.zeros(len(quantized.scales), np.int8)),
            ]
            dequantize = self._node("DequantizeLinear", inputs, f"{stem}_dq", value.dtype, value, axis=axis)
            self._graph.insert_before(node, dequantize)
            self._weights[name, axis] = dequantize.outputs[0]
        return self._weights[name, axis]

    def _constant(self, name: str, array: Any) -> ir.Value:
        return add_initializer(self._graph, self._names.unused(name), np.asarray(array))

    def _node(
        self,
        op: str,
        inputs: list[ir.Value],
        name: str,
        dtype: ir.DataType | None,
        like: ir.Value,
        **attributes: int,
    ) -> ir.Node:
        name = self._names.unused(name)
        output = ir.Value(name=name, shape=like.shape, type=ir.TensorType(dtype or ir.DataType.FLOAT))
        maker = like.producer()
        return ir.node(
            op,
            inputs,
            attributes or None,
            name=self._names.unused(f"{name}_node"),
            outputs=[output],
            metadata_props=dict(maker.metadata_props) if maker else None,
        )
