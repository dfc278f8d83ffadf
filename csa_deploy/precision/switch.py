"""One graph in which every INT8 layer can be switched on and off at run time.

To know what a layer's INT8 costs in accuracy one quantizes that layer alone; to search, many subsets. Instead of a
graph and a session for each, every quantized tensor is chosen by a Where, and the choice is an input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from csa_deploy.precision.placement import Layer, Placement
from csa_deploy.precision.qdq import insert_qdq

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
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        placement: Placement,
        thresholds: Mapping[str, float],
        *,
        threads: int | None = None,
    ) -> None:
        quantized = insert_qdq(model, placement, thresholds)
        self.layers = quantized.layers
        self.kept = quantized.kept
        self._index = {layer.name: i for i, layer in enumerate(self.layers)}
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        switchable = _with_switches(model, quantized.model, self.layers)
        self._session = ort.InferenceSession(
            switchable.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._output = self._session.get_outputs()[0].name

    def run(self, feeds: Mapping[str, np.ndarray], int8: Collection[str]) -> np.ndarray:
        """The first output with the named layers in INT8."""
        switches = np.zeros(len(self.layers), np.bool_)
        for name in int8:
            switches[self._index[name]] = True
        return np.asarray(self._session.run([self._output], {**feeds, _SWITCHES: switches})[0])


def _with_switches(exact: onnx.ModelProto, quantized: onnx.ModelProto, layers: tuple[Layer, ...]) -> onnx.ModelProto:
    """Add the FP32 weights back to the quantized graph, and a Where before every quantized input."""
    view = ir.from_proto(quantized)
    graph = view.graph
    weights = {t.name: t for t in exact.graph.initializer}
    switches = ir.Value(name=_SWITCHES, shape=ir.Shape([len(layers)]), type=ir.TensorType(ir.DataType.BOOL))
    graph.inputs.append(switches)
    nodes = {node.name: node for node in graph}
    for number, layer in enumerate(layers):
        node = nodes[layer.name]
        index = _constant(graph, f"{_SWITCHES}_{number}", ir.tensor(np.asarray(number, np.int64)))
        chosen = ir.node("Gather", [switches, index], {"axis": 0})
        graph.insert_before(node, chosen)
        for position in (*layer.activations, *((1,) if layer.weight else ())):
            value = node.inputs[position]
            assert value is not None
            dequantize = value.producer()
            assert dequantize is not None
            if position in layer.activations:
                quantize = dequantize.inputs[0].producer() if dequantize.inputs[0] is not None else None
                assert quantize is not None
                plain = quantize.inputs[0]
            else:
                name = str(layer.weight)
                known = graph.initializers.get(name)
                plain = known or _constant(graph, name, ir.serde.deserialize_tensor(weights[name]))
            where = ir.node("Where", [chosen.outputs[0], value, plain])
            graph.insert_before(node, where)
            node.replace_input_with(position, where.outputs[0])
    return ir.to_proto(view)


def _constant(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    tensor.name = name
    shape = ir.Shape(tensor.numpy().shape)
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
