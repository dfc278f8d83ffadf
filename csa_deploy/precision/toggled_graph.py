"""One graph in which every INT8 layer can be switched on and off at run time.

To know what a layer's INT8 costs in accuracy one quantizes that layer alone; to search, many subsets. Instead of a
graph and a session for each, every layer is an If with the layer in both forms, and the choice is an input. Weights are
constants in both, so that ONNX Runtime keeps its fast convolutions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial

import numpy as np
import onnx
from onnx import helper, numpy_helper

from csa_deploy.graph.interface import graph_sampling
from csa_deploy.precision.activations import open_session
from csa_deploy.precision.qdq import NOTHING, Adjustments
from csa_deploy.precision.qdq_placement import QdqPlacement
from csa_deploy.precision.thresholds import INT8_LEVELS
from csa_deploy.records.precision import Layer

_SWITCHES = "int8_switches"


class Switchable:
    """A network in ONNX Runtime, with INT8 layers to switch.

    Everything that is not INT8 computes in FP32, and ONNX Runtime may fuse it: this compares choices. What is written
    in the end is measured as it is written.

    Args:
        model: FP32 graph.
        placement: the layers.
        thresholds: by activation.
        threads: of ONNX Runtime.
        adjustments: weights and biases of the INT8 forms that are not the plain ones.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        placement: QdqPlacement,
        thresholds: Mapping[str, float],
        *,
        threads: int | None = None,
        adjustments: Adjustments = NOTHING,
    ) -> None:
        self.layers = tuple(
            layer
            for layer in placement.layers
            if all(t in thresholds for t in (*layer.activations.values(), *layer.results))
        )
        self._index = {layer.name: i for i, layer in enumerate(self.layers)}
        self._sampling = graph_sampling(model)
        self._session = open_session(_with_switches(model, self.layers, thresholds, adjustments), threads)
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: Mapping[str, np.ndarray], int8: Collection[str]) -> dict[str, np.ndarray]:
        """All outputs, by samples, with the named layers in INT8."""
        switches = np.zeros(len(self.layers), np.bool_)
        for name in int8:
            switches[self._index[name]] = True
        found = self._session.run(self.outputs, {**feeds, _SWITCHES: switches})
        return self._sampling.samples({n: np.asarray(array) for n, array in zip(self.outputs, found, strict=True)})


def _with_switches(
    model: onnx.ModelProto, layers: tuple[Layer, ...], thresholds: Mapping[str, float], adjustments: Adjustments
) -> onnx.ModelProto:
    """The graph with every layer replaced by an If between its INT8 and its FP32 form."""
    switchable = onnx.ModelProto()
    switchable.CopyFrom(model)
    graph = switchable.graph
    weights = {t.name: t for t in graph.initializer}
    graph.initializer.append(numpy_helper.from_array(np.asarray(0, np.int8), f"{_SWITCHES}_zero"))
    graph.input.append(helper.make_tensor_value_info(_SWITCHES, onnx.TensorProto.BOOL, [len(layers)]))
    by_name = {layer.name: (number, layer) for number, layer in enumerate(layers)}
    int8_form = partial(_int8_form, graph, thresholds, weights, adjustments)
    nodes = []
    for node in graph.node:
        if node.name not in by_name:
            nodes.append(node)
            continue
        number, layer = by_name[node.name]
        index, switch = f"{_SWITCHES}_{number}", f"{_SWITCHES}_{number}_on"
        graph.initializer.append(numpy_helper.from_array(np.asarray(number, np.int64), index))
        nodes.append(helper.make_node("Gather", [_SWITCHES, index], [switch]))
        branches = {"then_branch": int8_form(node, layer), "else_branch": [node]}
        bodies = {key: _body(body, f"{node.name}_{key}", node.output) for key, body in branches.items()}
        nodes.append(helper.make_node("If", [switch], list(node.output), name=node.name, **bodies))
    del graph.node[:]
    graph.node.extend(nodes)
    return switchable


def _int8_form(
    graph: onnx.GraphProto,
    thresholds: Mapping[str, float],
    weights: Mapping[str, onnx.TensorProto],
    adjustments: Adjustments,
    node: onnx.NodeProto,
    layer: Layer,
) -> list[onnx.NodeProto]:
    """The node behind Q/DQ, with the values that its INT8 weight stands for."""
    form, made = onnx.NodeProto(), []
    form.CopyFrom(node)

    def pair(tensor: str, read: str, output: str, stem: str) -> list[onnx.NodeProto]:
        scale = numpy_helper.from_array(np.asarray(thresholds[tensor] / INT8_LEVELS, np.float32), f"{stem}_scale")
        graph.initializer.append(scale)
        constants = [scale.name, f"{_SWITCHES}_zero"]
        quantize = helper.make_node("QuantizeLinear", [read, *constants], [f"{stem}_int8"])
        return [quantize, helper.make_node("DequantizeLinear", [f"{stem}_int8", *constants], [output])]

    for position, tensor in layer.activations.items():
        stem = f"{_SWITCHES}_{node.name}_{position}"
        made += pair(tensor, tensor, f"{stem}_dq", stem)
        form.input[position] = f"{stem}_dq"
    behind = []
    for position, tensor in enumerate(node.output):
        if tensor in layer.results:
            stem = f"{_SWITCHES}_{node.name}_out_{position}"
            form.output[position] = f"{stem}_float"
            behind += pair(tensor, form.output[position], tensor, stem)
    if layer.weight:
        exact = numpy_helper.to_array(weights[layer.weight])
        rounded = adjustments.weight(layer.weight, exact, layer.axis).dequantized()
        graph.initializer.append(numpy_helper.from_array(rounded, f"{_SWITCHES}_{node.name}_weight"))
        form.input[1] = f"{_SWITCHES}_{node.name}_weight"
    if layer.name in adjustments.biases:
        bias = numpy_helper.from_array(adjustments.biases[layer.name], f"{_SWITCHES}_{node.name}_bias")
        graph.initializer.append(bias)
        form.input[2:] = [bias.name]
    return [*made, form, *behind]


def _body(nodes: list[onnx.NodeProto], name: str, outputs: Iterable[str]) -> onnx.GraphProto:
    """A branch; its outputs have names of their own, as values of a graph and its branches must differ."""
    copies = []
    renamed = {output: f"{name}_{output}" for output in outputs}
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.output[:] = [renamed.get(output, output) for output in node.output]
        copies.append(copy)
    values = [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None) for output in renamed.values()]
    return helper.make_graph(copies, name, [], values)
