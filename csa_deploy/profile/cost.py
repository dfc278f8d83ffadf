"""What each node of a graph costs before any machine runs it: operations, bytes, and memory held at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from csa_deploy.graph.facts import constants_of
from csa_deploy.graph.load import load_model
from csa_deploy.graph.operators import MOVES
from csa_deploy.graph.scopes import SCOPES, innermost_module
from csa_deploy.graph.shapes import inferred, static_shape, stored_bytes
from csa_deploy.graph.stats import node_macs
from csa_deploy.records.profile import GraphCost, NodeCost

_NO_ARITHMETIC = MOVES | {"Cast"}
HIDDEN = ("Constant",)


@dataclass(frozen=True)
class FusedCost:
    """Nodes that run as one layer.

    Attributes:
        operations: sum over the nodes; None when a shape is unknown or there are no nodes.
        bytes: of tensors from outside (weights included) and of those that are used outside; quantized tensors count
            as they are stored; None likewise.
        precision: of the node with most operations; empty without nodes, or where those of one are not known and the
            nodes differ.
    """

    operations: int | None
    bytes: int | None
    precision: str


def graph_cost(path: Path) -> GraphCost:
    """Cost of the graph in a file; see :class:`GraphCost`."""
    graph = inferred(load_model(path, full_check=False)).graph
    nodes = [node for node in graph if node.op_type not in HIDDEN]
    ends = [v for v in graph.inputs if v.name not in graph.initializers] + list(graph.outputs)
    return GraphCost(
        tuple(_cost(node) for node in nodes),
        sum(map(stored_bytes, constants_of(graph))),
        _alive(graph, nodes),
        _sum(map(_bytes, ends)),
    )


def fused_costs(path: Path, groups: Sequence[Sequence[str]]) -> list[FusedCost]:
    """Cost of groups of nodes, by name, of which each runs as one layer."""
    graph = inferred(load_model(path, full_check=False)).graph
    nodes = {node_name(node): node for node in graph if node.op_type not in HIDDEN}
    return [_fused([nodes[name] for name in group]) for group in groups]


def _fused(nodes: list[ir.Node]) -> FusedCost:
    if not nodes:
        return FusedCost(None, None, "")
    inside = set(nodes)
    read = {v for node in nodes for v in node.inputs if v is not None and v.name and v.producer() not in inside}
    written = {v for node in nodes for v in node.outputs if v.is_graph_output() or {u.node for u in v.uses()} - inside}
    return FusedCost(
        operations=_sum(_operations(node) for node in nodes),
        bytes=_sum([*(_stored_before(v) for v in read), *(_stored_after(v) for v in written)]),
        precision=_of_heaviest(nodes),
    )


def _of_heaviest(nodes: list[ir.Node]) -> str:
    work = {node: _operations(node) for node in nodes}
    known = {node: count for node, count in work.items() if count is not None}
    if len(known) < len(work):
        kinds = {_precision(node) for node in nodes if node.op_type not in _NO_ARITHMETIC}
        return kinds.pop() if len(kinds) == 1 else ""
    return _precision(max(known, key=lambda node: known[node]))


def _stored_before(value: ir.Value) -> int | None:
    """Bytes that an engine reads for a value: a dequantized one is read quantized."""
    maker = value.producer()
    stored = maker.inputs[0] if maker is not None and maker.op_type == "DequantizeLinear" else value
    return _bytes(stored) if stored is not None else None


def _stored_after(value: ir.Value) -> int | None:
    """Bytes that an engine writes for a value: one that is only quantized is written quantized."""
    users = [use.node for use in value.uses()]
    if users and not value.is_graph_output() and all(user.op_type == "QuantizeLinear" for user in users):
        return _bytes(users[0].outputs[0])
    return _bytes(value)


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def node_name(node: ir.Node) -> str:
    """The name of a node, or of its first output."""
    return node.name or str(node.outputs[0].name)


def _cost(node: ir.Node) -> NodeCost:
    out = node.outputs[0]
    makers = [v.producer() for v in node.inputs if v is not None]
    return NodeCost(
        name=node_name(node),
        op=node.op_type,
        module=_module(node),
        precision=_precision(node),
        macs=node_macs(node),
        operations=_operations(node),
        bytes=_sum(_bytes(v) for v in (*node.inputs, *node.outputs) if v is not None and v.name),
        shape=static_shape(out),
        inputs=tuple(dict.fromkeys(node_name(m) for m in makers if m is not None and m.op_type not in HIDDEN)),
    )


def _precision(node: ir.Node) -> str:
    makers = [v.producer() for v in node.inputs[:2] if v is not None]
    if len(makers) == 2 and all(m is not None and m.op_type == "DequantizeLinear" for m in makers):
        return "int8"
    out = node.outputs[0]
    dtype = out.dtype.name.lower() if out.dtype is not None else "unknown"
    return {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}.get(dtype, dtype)


def _operations(node: ir.Node) -> int | None:
    if node.op_type in _NO_ARITHMETIC:
        return 0
    macs = node_macs(node)
    if macs is None or macs > 0:
        return None if macs is None else 2 * macs
    counted = node.inputs[0] if "Pool" in node.op_type else node.outputs[0]
    shape = static_shape(counted)
    return None if shape is None else math.prod(shape)


def _bytes(value: ir.Value) -> int | None:
    if value.const_value is not None:
        return stored_bytes(value.const_value)
    shape = static_shape(value)
    if shape is None or value.dtype is None or value.dtype.is_string():
        return None
    return math.ceil(math.prod(shape) * value.dtype.itemsize)


def _alive(graph: ir.Graph, nodes: list[ir.Node]) -> int | None:
    place = {node: index for index, node in enumerate(nodes)}
    change = [0] * (len(nodes) + 1)
    made = [(v, 0) for v in graph.inputs if v.name not in graph.initializers]
    made += [(v, place[node]) for node in nodes for v in node.outputs]
    for value, start in made:
        size = _bytes(value)
        if size is None:
            return None
        readers = [place[use.node] for use in value.uses() if use.node in place]
        end = len(nodes) - 1 if value.is_graph_output() else max(readers, default=start)
        change[start] += size
        change[end + 1] -= size
    alive = most = 0
    for delta in change:
        alive += delta
        most = max(most, alive)
    return most


def _module(node: ir.Node) -> str:
    return innermost_module(node.metadata_props.get(SCOPES, ""))
