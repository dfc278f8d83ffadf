"""Bias correction: takes out of a layer's bias the mean error that rounding its weights and inputs causes.

For a layer y = W x + b with quantized weights W' and inputs x', the mean error over images and positions is
W' E[x'] - W E[x] per output channel (Nagel et al., 2019, section 4.2, here with the measured means of the inputs and
with the rounding and clipping of the inputs included). Both means are those of the FP32 network, so that corrections of
successive layers do not count an error twice. Positions that padding reaches are treated as the others. Gemm computes
alpha W x + beta b, so what is taken out of b is alpha / beta times that error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from csa_deploy.graph.facts import add_initializer, weight_array
from csa_deploy.graph.shapes import editable, infer_shapes, inferred, static_shape
from csa_deploy.precision.activations import Feeds, open_session
from csa_deploy.precision.qdq import NOTHING, Adjustments
from csa_deploy.precision.qdq_placement import QdqPlacement
from csa_deploy.precision.thresholds import INT8_LEVELS
from csa_deploy.records.precision import Layer

_PREFIX = "csa_deploy_bias_correction"
_Source = tuple[str, int]  # an activation, and the axis that a layer multiplies its weights with


@dataclass(frozen=True)
class _Means:
    """Mean per channel of an activation, and of it after rounding to INT8."""

    exact: np.ndarray
    rounded: np.ndarray


def corrected_biases(
    model: onnx.ModelProto,
    placement: QdqPlacement,
    thresholds: Mapping[str, float],
    samples: Iterable[Feeds],
    *,
    adjustments: Adjustments = NOTHING,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Biases by node that make up for the mean error of INT8; to be quantized with the same thresholds.

    Args:
        model: FP32 graph.
        placement: layers that will be INT8. Those without a bias get one where the operator takes it.
        thresholds: by activation.
        samples: network inputs of the graph's batch size.
        adjustments: weights of the layers that are not plainly rounded.
        threads: of ONNX Runtime.
        progress: called with the number of samples done.
    """
    nodes = {node.name: node for node in inferred(model).graph}
    # Correctable first: a sum may quantize its second operand alone.
    layers = [layer for layer in placement.layers if _correctable(nodes[layer.name])]
    layers = [layer for layer in layers if layer.activations.get(0) in thresholds]
    if not layers:
        return {}
    sources = {layer.name: _source(nodes[layer.name], layer) for layer in layers}
    means = _measure(model, list(dict.fromkeys(sources.values())), thresholds, samples, threads, progress)
    return {
        layer.name: _corrected(nodes[layer.name], layer, means[sources[layer.name]], adjustments) for layer in layers
    }


def _correctable(node: ir.Node) -> bool:
    """Whether an operator takes a bias that is a constant or is not there yet, and that has an effect."""
    if node.op_type not in ("Conv", "Gemm") or node.inputs[1] is None or node.inputs[1].const_value is None:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return (bias is None or bias.const_value is not None) and _factors(node)[1] != 0.0


def _source(node: ir.Node, layer: Layer) -> _Source:
    """The input of a layer with its channel axis, which the operator decides."""
    convolves = node.op_type == "Conv"
    return layer.activations[0], 1 if convolves or not node.attributes.get_int("transA", 0) else 0


def _factors(node: ir.Node) -> tuple[float, float]:
    """What an operator multiplies the product and the bias with: Gemm's alpha and beta."""
    if node.op_type != "Gemm":
        return 1.0, 1.0
    return float(node.attributes.get_float("alpha", 1.0)), float(node.attributes.get_float("beta", 1.0))


def _measure(
    model: onnx.ModelProto,
    sources: list[_Source],
    thresholds: Mapping[str, float],
    samples: Iterable[Feeds],
    threads: int | None,
    progress: Callable[[int], None] | None,
) -> dict[_Source, _Means]:
    """Means of activations, computed in ONNX Runtime: one number per channel comes out."""
    observed, outputs = _instrumented(model, sources, thresholds)
    session = open_session(observed, threads)
    sums: list[np.ndarray] | None = None
    count = 0
    for feeds in samples:
        values = [np.asarray(v, np.float64) for v in session.run(outputs, feeds)]
        sums = values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
        count += 1
        if progress:
            progress(count)
    assert sums is not None
    found = iter(sums)
    return {source: _Means(next(found) / count, next(found) / count) for source in sources}


def _instrumented(
    model: onnx.ModelProto, sources: list[_Source], thresholds: Mapping[str, float]
) -> tuple[onnx.ModelProto, list[str]]:
    """The graph with the channel means of activations, exact and rounded to INT8, as its outputs, and their names."""
    view = editable(model)
    infer_shapes(view)
    graph = view.graph
    values = {v.name: v for v in (*graph.inputs, *(o for node in graph for o in node.outputs))}
    zero = add_initializer(graph, f"{_PREFIX}_zero", np.int8(0))
    graph.outputs.clear()
    for number, (name, channel) in enumerate(sources):
        value, stem = values[name], f"{_PREFIX}_{number}"
        rank = len(static_shape(value) or ())
        axes = add_initializer(graph, f"{stem}_axes", np.asarray([a for a in range(rank) if a != channel], np.int64))
        scale = add_initializer(graph, f"{stem}_scale", np.float32(thresholds[name] / INT8_LEVELS))
        quantized = ir.node("QuantizeLinear", [value, scale, zero])
        rounded = ir.node("DequantizeLinear", [quantized.outputs[0], scale, zero])
        graph.extend([quantized, rounded])
        for source, suffix in ((value, "exact"), (rounded.outputs[0], "rounded")):
            out = ir.Value(name=f"{stem}_{suffix}", type=ir.TensorType(ir.DataType.FLOAT))
            graph.append(_mean(view, source, axes, out))
            graph.outputs.append(out)
    return ir.to_proto(view), [str(value.name) for value in graph.outputs]


def _mean(view: ir.Model, source: ir.Value, axes: ir.Value, out: ir.Value) -> ir.Node:
    if view.opset_imports[""] >= 18:  # from here on the axes are an input
        return ir.node("ReduceMean", [source, axes], {"keepdims": 0}, outputs=[out])
    listed = weight_array(axes).tolist()
    return ir.node("ReduceMean", [source], {"axes": listed, "keepdims": 0}, outputs=[out])


def _corrected(node: ir.Node, layer: Layer, means: _Means, adjustments: Adjustments) -> np.ndarray:
    """The bias of a layer that makes up for its mean error."""
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    assert weight is not None
    exact = weight_array(weight)
    rounded = adjustments.weight(str(weight.name), exact, layer.axis).dequantized()
    error = _response(node, layer, rounded, means.rounded) - _response(node, layer, exact, means.exact)
    alpha, beta = _factors(node)
    old = bias.const_value.numpy() if bias is not None and bias.const_value is not None else np.zeros(len(error))
    return (old - alpha / beta * error).astype(np.float32)


def _response(node: ir.Node, layer: Layer, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Mean output per channel for a mean input per channel."""
    weight = weight.astype(np.float64)
    if node.op_type == "Gemm":
        return weight @ mean if layer.axis == 0 else mean @ weight
    outputs, per_group = weight.shape[:2]
    groups: int = node.attributes.get_int("group", 1) or 1
    inputs = np.repeat(mean.reshape(groups, per_group), outputs // groups, axis=0)
    return (weight.reshape(outputs, per_group, -1).sum(axis=2) * inputs).sum(axis=1)
