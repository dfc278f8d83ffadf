"""Constructs that exporters spread over several nodes; found to be explained, not to be changed."""

from __future__ import annotations

from csa_deploy.restricted.graph import Graph, Node


def decomposed_layer_norms(graph: Graph) -> list[str]:
    """Places of LayerNormalization written as mean, difference, square, mean (its operator came with set 17)."""
    made = {output.name: node for node in graph.nodes for output in node.outputs}

    def maker(node: Node | None, *ops: str) -> Node | None:
        """The node that makes the first input, if it is one of these operators."""
        value = node.inputs[0] if node is not None and node.inputs else None
        found = made.get(value.name) if value is not None else None
        return found if found is not None and found.op in ops else None

    places = []
    for variance in graph.nodes:
        difference = maker(maker(variance, "Pow", "Mul"), "Sub") if variance.op == "ReduceMean" else None
        if difference is None or (mean := difference.input(1)) is None or (source := made.get(mean.name)) is None:
            continue
        if source.op == "ReduceMean" and difference.inputs[:1] == source.inputs[:1]:
            places.append(difference.module or difference.name)
    return places
