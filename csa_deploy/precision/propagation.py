"""Estimates what each layer's INT8 does to the outputs, from one run of the network per sample.

The graph computes, beside every node, the node again with one input rounded to 8 bits (how much of an error's energy
passes through it) and, where the node is an INT8 layer, in its INT8 form (how much error it makes). Going back from the
output, energies of errors add up: what a tensor's error does to the output is the sum over its readers of what passes
through each times what that one's output does.

An error that is spread like noise loses energy wherever a layer averages; one that follows the signal passes as the
signal does. Rounding is between the two, so the estimate is their geometric mean. Second-order effects and the sign
with which errors of several paths meet are left out; how well it ranks is in docs/precision.md.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from csa_deploy.graph.operators import Trait, having
from csa_deploy.graph.shapes import inferred
from csa_deploy.precision.activations import Feeds, open_session
from csa_deploy.precision.qdq import quantize_weight
from csa_deploy.precision.thresholds import INT8_LEVELS
from csa_deploy.records.precision import Layer

_PREFIX = "error_energy"
_PERMUTES = having(Trait.PERMUTES)  # energies stay as they are
# What follows the signal passes these as the signal does; a sum or a saturating function treats it as any error.
_FOLLOWS = having(Trait.LINEAR | Trait.HOMOGENEOUS) | {"Clip"}


@dataclass(frozen=True)
class _Passage:
    """One input of one node: names of the energies of the error put in, of that coming out, and of both signals."""

    source: str
    target: str
    op: str
    error_in: str = ""
    error_out: str = ""


@dataclass
class _Instrumented:
    """The graph with energies as outputs.

    Attributes:
        nodes: of the graph, in order.
        passages: in the graph's order; those without energies only move values.
        made: name of the energy of the error that a layer makes, and the tensor it is in, by layer.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    passages: list[_Passage] = field(default_factory=list)
    made: dict[str, tuple[str, str]] = field(default_factory=dict)
    energies: list[str] = field(default_factory=list)
    _count: int = 0

    def add(self, op: str, *inputs: str) -> str:
        """A node; returns the name of its output."""
        self._count += 1
        name = f"{_PREFIX}_{self._count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name))
        return name

    def constant(self, array: np.ndarray) -> str:
        """An initializer; returns its name."""
        self._count += 1
        name = f"{_PREFIX}_{self._count}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def energy(self, tensor: str) -> str:
        """Sum of squares of a tensor, among the outputs."""
        self._count += 1
        name = f"{_PREFIX}_{self._count}"
        self.nodes.append(helper.make_node("ReduceSumSquare", [tensor], [name], name=name, keepdims=0))
        self.energies.append(name)
        return name

    def again(self, node: onnx.NodeProto, inputs: Mapping[int, str]) -> list[str]:
        """A node again with other inputs; names of its outputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        self._count += 1
        copy.name = f"{_PREFIX}_{self._count}"
        copy.output[:] = [f"{copy.name}_{output}" if output else "" for output in node.output]
        for index, name in inputs.items():
            copy.input[index] = name
        self.nodes.append(copy)
        return list(copy.output)


def propagated(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    thresholds: Mapping[str, float],
    samples: Iterable[Feeds],
    *,
    threads: int | None = None,
) -> dict[str, float]:
    """Energy of the error with one layer in INT8, relative to the output's, by layer: the largest of all FP32 outputs.

    Args:
        model: FP32 graph.
        layers: to estimate; each of their activations has a threshold.
        thresholds: by activation.
        samples: network inputs of the graph's batch size.
        threads: of ONNX Runtime.
    """
    graph, signals = _instrument(model, layers, thresholds)
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    del observed.graph.node[:], observed.graph.output[:]
    observed.graph.node.extend(graph.nodes)
    observed.graph.initializer.extend(graph.initializers)
    names = graph.energies
    observed.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    session = open_session(observed, threads)
    total = sum(np.asarray(session.run(names, feeds), np.float64) for feeds in samples)
    energy = dict(zip(names, np.asarray(total).tolist(), strict=True))
    level = {tensor: energy[name] for tensor, name in signals.items()}
    found = dict.fromkeys(graph.made, 0.0)
    for output in (value.name for value in model.graph.output if value.name in level):
        like_noise = _arriving(graph.passages, energy, level, output, follows=False)
        like_signal = _arriving(graph.passages, energy, level, output, follows=True)
        for layer, (name, tensor) in graph.made.items():
            share = math.sqrt(like_noise[tensor] * like_signal[tensor])
            found[layer] = max(found[layer], energy[name] / (level[output] or 1.0) * share)
    return found


def _arriving(
    passages: Sequence[_Passage],
    energy: Mapping[str, float],
    level: Mapping[str, float],
    output: str,
    *,
    follows: bool,
) -> Mapping[str, float]:
    """Share of the energy of a tensor's error that arrives at the output, by tensor."""
    arriving: dict[str, float] = defaultdict(float, {output: 1.0})
    for passage in reversed(passages):
        if not passage.error_in:
            share = 1.0
        elif follows and passage.op in _FOLLOWS:
            share = level[passage.target] / (level[passage.source] or 1.0)
        else:
            share = energy[passage.error_out] / (energy[passage.error_in] or 1.0)
        arriving[passage.source] += share * arriving[passage.target]
    return arriving


def _instrument(
    model: onnx.ModelProto, layers: Sequence[Layer], thresholds: Mapping[str, float]
) -> tuple[_Instrumented, dict[str, str]]:
    """The graph with energies, and the name of the energy of each FP32 activation."""
    view = inferred(model).graph
    made = [v for node in view for v in node.outputs if node.op_type != "Constant"]
    tensors = {str(v.name) for v in (*view.inputs, *made) if v.dtype == ir.DataType.FLOAT and not v.is_initializer()}
    by_name = {layer.name: layer for layer in layers}
    weights = {t.name: t for t in model.graph.initializer}
    graph = _Instrumented()
    signals = {v.name: graph.energy(v.name) for v in model.graph.input if v.name in tensors}
    zero = graph.constant(np.asarray(0, np.int8))
    rounded: dict[str, tuple[str, str]] = {}
    for node in model.graph.node:
        graph.nodes.append(node)
        signals.update({name: graph.energy(name) for name in node.output if name in tensors})
        sources = {index: name for index, name in enumerate(node.input) if name in tensors}
        for name in sources.values():
            if name not in rounded:
                rounded[name] = _rounded(graph, name, thresholds, zero)
        _pass(graph, node, sources, rounded, tensors)
        if layer := by_name.get(node.name):
            inputs = {index: rounded[name][0] for index, name in layer.activations.items()}
            if layer.weight:
                exact = numpy_helper.to_array(weights[layer.weight])
                inputs[1] = graph.constant(quantize_weight(exact, layer.axis).dequantized())
            got = graph.again(node, inputs)[0]
            graph.made[node.name] = graph.energy(graph.add("Sub", got, node.output[0])), node.output[0]
    return graph, signals


def _rounded(graph: _Instrumented, tensor: str, thresholds: Mapping[str, float], zero: str) -> tuple[str, str]:
    """A tensor rounded to 8 bits, and the energy of that error; over its own range where it has no threshold."""
    if tensor in thresholds:
        scale = graph.constant(np.asarray(thresholds[tensor] / INT8_LEVELS, np.float32))
    else:
        smallest = graph.constant(np.asarray(np.finfo(np.float32).tiny * INT8_LEVELS, np.float32))
        peak = helper.make_node("ReduceMax", [graph.add("Abs", tensor)], [f"{_PREFIX}_{tensor}_peak"], keepdims=0)
        graph.nodes.append(peak)
        levels = graph.constant(np.asarray(INT8_LEVELS, np.float32))
        scale = graph.add("Div", graph.add("Max", peak.output[0], smallest), levels)
    again = graph.add("DequantizeLinear", graph.add("QuantizeLinear", tensor, scale, zero), scale, zero)
    return again, graph.energy(graph.add("Sub", again, tensor))


def _pass(
    graph: _Instrumented,
    node: onnx.NodeProto,
    sources: Mapping[int, str],
    rounded: Mapping[str, tuple[str, str]],
    tensors: set[str],
) -> None:
    """How much of an error in each input comes out of a node; control flow is taken to pass all of it."""
    moves = node.op_type in _PERMUTES or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
    for index, source in sources.items():
        got = [] if moves else graph.again(node, {index: rounded[source][0]})
        for number, target in enumerate(node.output):
            if target not in tensors:
                continue
            if moves:
                graph.passages.append(_Passage(source, target, node.op_type))
                continue
            error = graph.energy(graph.add("Sub", got[number], target))
            graph.passages.append(_Passage(source, target, node.op_type, rounded[source][1], error))
