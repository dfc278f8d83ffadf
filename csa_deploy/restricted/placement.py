"""Placement under DLA: which nodes run there, which fall back, how many subgraphs, what crosses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from csa_deploy.records.check import Fallback, Placement
from csa_deploy.restricted.graph import Graph, Node, Value
from csa_deploy.restricted.judge import LayerJudgement

LOADABLES = 16
"""DLA loadables that one engine may hold (DRIVE OS guide, chapter on DLA)."""

_FP16_BYTES = 2
_METHOD = "nodes joined along their edges as far as no path leaves DLA and comes back; TensorRT may cut further"


def place(graph: Graph, judgements: Sequence[LayerJudgement]) -> Placement:
    """Place the nodes of the top graph: a node runs on DLA when each of its layers may.

    Nodes inside control flow, and nodes that are not understood, count as falling back.
    """
    blamed: dict[int, Fallback] = {}
    for judgement in judgements:
        node = judgement.layer.node
        if node is not None and judgement.verdict != "allowed" and id(node) not in blamed:
            reason = next(finding for finding in judgement.findings if finding.verdict != "note")
            blamed[id(node)] = Fallback(node.name, node.op, reason.rule, reason.message)
    on_dla = {id(node) for node in graph.nodes if id(node) not in blamed}
    tensors, size, unknown = _crossing(graph.nodes, on_dla)
    return Placement(
        dla=tuple(node.name for node in graph.nodes if id(node) in on_dla),
        fallbacks=tuple(blamed.values()),
        subgraphs=_subgraphs(graph.nodes, on_dla),
        limit=LOADABLES,
        tensors_crossing=tensors,
        bytes_crossing=size,
        method=_METHOD,
        crossing_unknown=unknown,
    )


def _subgraphs(nodes: Sequence[Node], on_dla: set[int]) -> int:
    """Connected groups of DLA nodes with the same number of changes of device on the way to them.

    Two nodes with a GPU node on a path between them differ in that number, so no group can wait for itself.
    """
    changes: dict[str, int] = {}
    device: dict[str, bool] = {}
    members: list[tuple[int, Node]] = []
    for node in nodes:
        here = id(node) in on_dla
        read = [value.name for value in node.inputs if value is not None and value.name in changes]
        level = max((changes[name] + (device[name] != here) for name in read), default=0 if here else 1)
        for output in node.outputs:
            changes[output.name], device[output.name] = level, here
        if here:
            members.append((level, node))
    return _components(members)


def _components(members: Sequence[tuple[int, Node]]) -> int:
    parent = list(range(len(members)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    producer: dict[tuple[int, str], int] = {}
    for index, (level, node) in enumerate(members):
        for value in node.inputs:
            if value is not None and (level, value.name) in producer:
                parent[root(index)] = root(producer[level, value.name])
        for output in node.outputs:
            producer[level, output.name] = index
    return sum(root(index) == index for index in range(len(members)))


def _crossing(nodes: Sequence[Node], on_dla: set[int]) -> tuple[int, int | None, int]:
    """Tensors that one device writes and the other reads, their bytes as FP16, and of how many these are not known."""
    written: dict[str, tuple[Value, bool]] = {}
    readers: defaultdict[str, set[bool]] = defaultdict(set)
    for node in nodes:
        here = id(node) in on_dla
        for value in node.inputs:
            if value is not None and value.name in written:
                readers[value.name].add(here)
        for output in node.outputs:
            written[output.name] = (output, here)
    crossing = [value for name, (value, here) in written.items() if (not here) in readers[name]]
    known = [value.elements * _FP16_BYTES for value in crossing if value.elements is not None]
    unknown = len(crossing) - len(known)
    return len(crossing), None if unknown else sum(known), unknown
