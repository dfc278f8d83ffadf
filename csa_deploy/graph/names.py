"""Names for what is added to a graph, none of which the graph has already, and for nodes without one of their own."""

from __future__ import annotations

import itertools

import onnx
import onnx_ir as ir


class Names:
    """The names of a graph's values and nodes, those of its subgraphs among them."""

    def __init__(self, graph: ir.Graph) -> None:
        nodes = list(ir.traversal.RecursiveGraphIterator(graph))
        values = [*graph.inputs, *graph.initializers.values()]
        values += [value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None]
        self._taken = {str(value.name) for value in values} | {str(node.name) for node in nodes}

    def unused(self, name: str) -> str:
        """The name, or with a number behind it where it is taken; it is taken from then on."""
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        free = next(n for n in itertools.chain([name], numbered) if n not in self._taken)
        self._taken.add(free)
        return free


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with a name for every node of its main graph that is no other node's: layers are told apart by it.

    The first node of a name keeps it. Others, and those without one, are named after their operator and first output.
    """
    first: dict[str, int] = {}
    for index, node in enumerate(model.graph.node):
        first.setdefault(node.name, index)
    unclear = [i for i, node in enumerate(model.graph.node) if not node.name or first[node.name] != i]
    if not unclear:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    names = Names(ir.from_proto(model).graph)
    for index in unclear:
        node = changed.graph.node[index]
        node.name = names.unused(f"{node.op_type}_{next(filter(None, node.output), index)}")
    return changed
