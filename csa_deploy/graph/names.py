"""Names for what is added to a graph, none of which the graph has already."""

from __future__ import annotations

import itertools

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
