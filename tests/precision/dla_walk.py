"""What DLA wants of a graph with Q/DQ, checked over the bare protobuf: another way than the placement's own."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

Q, DQ = "QuantizeLinear", "DequantizeLinear"
SAME = {
    *("MaxPool", "AveragePool", "GlobalMaxPool", "Concat", "Reshape", "Transpose", "Slice", "Flatten", "Squeeze"),
    *("Unsqueeze", "Identity", "Split", "Relu", "Clip"),
}
OPERANDS = {"Add", "Sub", "Max", "Min"}


class Walk:
    """A graph with Q/DQ, and the scale of each of its tensors as the nodes around it state it."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.maker = {name: node for node in graph.node for name in node.output}
        self.readers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.outputs = {value.name for value in graph.output}
        self.inputs = {value.name for value in graph.input}
        self.nodes = [node for node in graph.node if node.op_type not in (Q, DQ, "Cast")]

    def is_weight(self, name: str) -> bool:
        """A constant, or one behind a DequantizeLinear."""
        node = self.maker.get(name)
        return name in self.constants or (node is not None and node.op_type == DQ and node.input[0] in self.constants)

    def scale_before(self, name: str) -> float | None:
        """Scale of what a node reads: of the DequantizeLinear that makes it."""
        node = self.maker.get(name)
        if node is None or node.op_type != DQ:
            return None
        array = self.constants[node.input[1]]
        assert array.size == 1, f"{name}: an activation is quantized by tensor"
        pair = self.maker[node.input[0]]
        assert pair.op_type == Q and self.constants[pair.input[1]] == array, f"{name}: a pair of one scale"
        for one in (node, pair):
            assert not len(one.input) > 2 or not self.constants[one.input[2]].any(), f"{name}: a zero point"
        return float(array)

    def scale_behind(self, name: str) -> float | None:
        """Scale of what a node writes: the one by which all who read it quantize it."""
        found = {float(self.constants[r.input[1]]) if r.op_type == Q else None for r in self.readers[name]}
        return found.pop() if len(found) == 1 and name not in self.outputs else None

    def scales(self, node: NodeProto) -> tuple[list[float | None], list[float | None]]:
        """Of all computed tensors that a node reads and writes."""
        read = [self.scale_before(name) for name in node.input if name and not self.is_weight(name)]
        return read, [self.scale_behind(name) for name in node.output if name]

    def problems(self, node: NodeProto) -> list[str]:
        """What DLA does not find at a node."""
        read, written = self.scales(node)
        found = [f"{node.name}: a tensor without scale: {read} -> {written}"] if None in (*read, *written) else []
        nearest = node.op_type == "Resize" and helper.get_node_attr_value(node, "mode") == b"nearest"
        if (node.op_type in SAME or nearest) and len({*read, *written}) > 1:
            found.append(f"{node.name}: {node.op_type} with {read} -> {written}")
        if node.op_type in OPERANDS and len(set(read)) > 1:
            found.append(f"{node.name}: {node.op_type} of {read}")
        if node.op_type in ("Conv", "ConvTranspose"):
            weight = self.maker.get(node.input[1])
            if weight is None or weight.op_type != DQ or self.constants[weight.input[0]].dtype != np.int8:
                found.append(f"{node.name}: its weight is not INT8")
        return found

    def all_problems(self, but: frozenset[str] = frozenset()) -> list[str]:
        """At every node, but for those named: the GPU runs them."""
        return [problem for node in self.nodes if node.name not in but for problem in self.problems(node)]
