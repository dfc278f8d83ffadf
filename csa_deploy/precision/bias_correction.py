"""Bias correction: takes out of a layer's bias the mean error that rounding its weights and inputs causes.

For a layer y = W x + b with quantized weights W' and inputs x', the mean error over images and positions is
W' E[x'] - W E[x] per output channel (Nagel et al., 2019, section 4.2, here with the measured means of the inputs and
with the rounding and clipping of the inputs included). Both means are those of the FP32 network, so that corrections of
successive layers do not count an error twice. Positions that padding reaches are treated as the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from csa_deploy.graph.shapes import editable, infer_shapes, inferred, static_shape
from csa_deploy.precision.activations import Feeds, open_session
from csa_deploy.precision.placement import Layer, Placement
from csa_deploy.precision.qdq import NOTHING, Adjustments
from csa_deploy.precision.thresholds import LEVELS


@dataclass(frozen=True)
class _Means:
    """Mean per channel of an activation, and of it after rounding to INT8."""

    exact: np.ndarray
    rounded: np.ndarray


def corrected_biases(
    model: onnx.ModelProto,
    placement: Placement,
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
    layers = [layer for layer in placement.layers if layer.weight and layer.activations[0] in thresholds]
    means = _measure(model, layers, thresholds, samples, threads, progress)
    nodes = {node.name: node for node in inferred(model).graph}
    found = {}
    for layer in layers:
        bias = _corrected(nodes[layer.name], layer, means[layer.activations[0]], adjustments)
        if bias is not None:
            found[layer.name] = bias
    return found


def _measure(
    model: onnx.ModelProto,
    layers: list[Layer],
    thresholds: Mapping[str, float],
    samples: Iterable[Feeds],
    threads: int | None,
    progress: Callable[[int], None] | None,
) -> dict[str, _Means]:
    """Means of the inputs of ``layers``, computed in ONNX Runtime: one number per channel comes out."""
    names = list(dict.fromkeys(layer.activations[0] for layer in layers))
    session = open_session(_instrumented(model, {name: thresholds[name] for name in names}), threads)
    outputs = [f"{name}{suffix}" for name in names for suffix in ("_mean", "_int8_mean")]
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
    return {name: _Means(next(found) / count, next(found) / count) for name in names}


def _instrumented(model: onnx.ModelProto, thresholds: Mapping[str, float]) -> onnx.ModelProto:
    """The graph with the channel means of some activations, exact and rounded to INT8, as its outputs."""
    view = editable(model)
    infer_shapes(view)
    graph = view.graph
    values = {v.name: v for v in (*graph.inputs, *(o for node in graph for o in node.outputs))}
    zero = _constant(graph, "bias_correction_zero", np.int8(0))
    graph.outputs.clear()
    for name, threshold in thresholds.items():
        value = values[name]
        rank = len(static_shape(value) or ())
        channel = 1 if rank == 4 else rank - 1
        axes = _constant(graph, f"{name}_mean_axes", np.asarray([a for a in range(rank) if a != channel], np.int64))
        scale = _constant(graph, f"{name}_mean_scale", np.float32(threshold / LEVELS))
        quantized = ir.node("QuantizeLinear", [value, scale, zero])
        rounded = ir.node("DequantizeLinear", [quantized.outputs[0], scale, zero])
        graph.extend([quantized, rounded])
        for source, suffix in ((value, "_mean"), (rounded.outputs[0], "_int8_mean")):
            out = ir.Value(name=f"{name}{suffix}", type=ir.TensorType(ir.DataType.FLOAT))
            graph.append(_mean(view, source, axes, out))
            graph.outputs.append(out)
    return ir.to_proto(view)


def _mean(view: ir.Model, source: ir.Value, axes: ir.Value, out: ir.Value) -> ir.Node:
    if view.opset_imports[""] >= 18:  # from here on the axes are an input
        return ir.node("ReduceMean", [source, axes], {"keepdims": 0}, outputs=[out])
    assert axes.const_value is not None
    listed = axes.const_value.numpy().tolist()
    return ir.node("ReduceMean", [source], {"axes": listed, "keepdims": 0}, outputs=[out])


def _corrected(node: ir.Node, layer: Layer, means: _Means, adjustments: Adjustments) -> np.ndarray | None:
    """The bias of a layer; None where its operator takes none or its bias is computed."""
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if node.op_type not in ("Conv", "Gemm") or weight is None or weight.const_value is None:
        return None
    if bias is not None and bias.const_value is None:
        return None
    exact = weight.const_value.numpy()
    rounded = adjustments.weight(str(weight.name), exact, layer.axis).dequantized()
    error = _response(node, layer, rounded, means.rounded) - _response(node, layer, exact, means.exact)
    old = bias.const_value.numpy() if bias is not None and bias.const_value is not None else np.zeros(len(error))
    return (old - error).astype(np.float32)


def _response(node: ir.Node, layer: Layer, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Mean output per channel for a mean input per channel."""
    weight = weight.astype(np.float64)
    if node.op_type == "Gemm":
        return weight @ mean if layer.axis == 0 else mean @ weight
    outputs, per_group = weight.shape[:2]
    groups: int = node.attributes.get_int("group", 1) or 1
    inputs = np.repeat(mean.reshape(groups, per_group), outputs // groups, axis=0)
    return (weight.reshape(outputs, per_group, -1).sum(axis=2) * inputs).sum(axis=1)


def _constant(graph: ir.Graph, name: str, array: np.ndarray | np.generic) -> ir.Value:
    tensor = ir.tensor(np.asarray(array), name=name)
    shape = ir.Shape(np.asarray(array).shape)
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
