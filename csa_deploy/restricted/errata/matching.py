"""Finds the patterns of errata in the graph of the checker, in three-valued logic: a fact may not be known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import onnx

from csa_deploy.graph.operators import ONNX_DOMAINS, QUANTIZERS
from csa_deploy.restricted.conditions import evaluate, every, lookup, negate, some
from csa_deploy.restricted.errata.schema import Erratum, NodePattern
from csa_deploy.restricted.graph import Graph, Node, Value

_FARTHEST = 64
"""Nodes that a search for one neighbour passes over at most: it keeps the time linear in the nodes."""

_VALUES = 16
"""Elements of a constant input up to which its values are facts."""

FLOATS = frozenset({"float32", "float16", "bfloat16", "float64"})
"""Types that an engine computes in."""

Match = tuple[Node, bool | None]
"""A node that a pattern finds; None where a fact that decides is not known."""


class Neighbourhood:
    """A graph by operator, and who writes and reads what."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = list(graph.walk())
        self.by_op: dict[str, list[Node]] = defaultdict(list)
        self._made: dict[int, Node] = {}
        self._read: dict[int, list[Node]] = defaultdict(list)
        self._facts: dict[int, dict[str, Any]] = {}
        for node in self.nodes:
            if node.domain in ONNX_DOMAINS:
                self.by_op[node.op].append(node)
            self._made.update((id(value), node) for value in node.outputs)
            for value in filter(None, node.inputs):
                self._read[id(value)].append(node)

    def find(self, erratum: Erratum) -> list[Match]:
        """Nodes that an erratum is about, but for those that it is surely not about."""
        found: dict[int, Match] = {}
        for pattern in erratum.pattern:
            for node in (node for op in pattern.op for node in self.by_op[op]):
                holds = self._holds(pattern, node)
                if holds is not False and (holds or id(node) not in found):
                    found[id(node)] = (node, holds)
        matches = list(found.values())
        if erratum.unlike and not self._differ(matches, erratum.unlike):
            return []
        return matches

    @property
    def network(self) -> dict[str, Any]:
        """Facts of the network; see :data:`.schema.NETWORK_FACTS`."""
        shapes = [value.shape for value in self.graph.inputs]
        batches = [shape[0] if shape else 1 for shape in shapes if shape is not None]
        known = len(batches) == len(shapes) and None not in batches
        return {
            "batch": max((batch for batch in batches if batch is not None), default=1) if known else None,
            "dynamic": any(shape is None or None in shape for shape in shapes),
            "opset": self.graph.opset,
            "quantized": any(self.by_op[op] for op in QUANTIZERS),
            "dtypes": sorted({value.dtype for node in self.nodes for value in node.outputs if value.dtype}),
            "input_dtypes": [value.dtype for value in self.graph.inputs],
        }

    def _holds(self, pattern: NodePattern, node: Node) -> bool | None:
        def there(neighbour: NodePattern, up: bool) -> bool | None:
            return some(self._holds(neighbour, other) for other in self._around(node, neighbour, up))

        return every(
            holds
            for check in (
                (evaluate(pattern.when, self._facts_of(node)),),
                (there(neighbour, True) for neighbour in pattern.producers),
                (there(neighbour, False) for neighbour in pattern.consumers),
                (negate(there(other, up)) for other in pattern.without for up in (True, False)),
            )
            for holds in check
        )

    def _around(self, node: Node, neighbour: NodePattern, up: bool) -> Iterator[Node]:
        """Nodes of the neighbour's operators that write, or read, what a node does, past those it may pass over."""
        waiting = self._next(node, up, neighbour.input)
        seen: set[int] = set()
        while waiting and len(seen) < _FARTHEST:
            other = waiting.pop(0)
            if id(other) in seen:
                continue
            seen.add(id(other))
            if other.op in neighbour.op and other.domain in ONNX_DOMAINS:
                yield other
            if other.op in neighbour.passed:
                waiting += self._next(other, up)

    def _next(self, node: Node, up: bool, position: int | None = None) -> list[Node]:
        if not up:
            return [reader for value in node.outputs for reader in self._read[id(value)]]
        values: Sequence[Value | None] = node.inputs if position is None else [node.input(position)]
        return [self._made[id(value)] for value in values if value is not None and id(value) in self._made]

    def _differ(self, matches: Sequence[Match], facts: Iterable[str]) -> bool:
        """Whether two of the nodes differ in one of these facts."""
        return any(len({repr(lookup(self._facts_of(node), fact)) for node, _ in matches}) > 1 for fact in facts)

    def _facts_of(self, node: Node) -> dict[str, Any]:
        if id(node) not in self._facts:
            self._facts[id(node)] = _facts(node, self.graph.opset)
        return self._facts[id(node)]


def types_of(node: Node) -> set[str]:
    """Floating-point types that a node reads or writes."""
    return {value.dtype for value in (*node.inputs, *node.outputs) if value is not None and value.dtype in FLOATS}


def _facts(node: Node, opset: int) -> dict[str, Any]:
    inputs = [value for value in node.inputs if value is not None]
    attributes = {**_defaults(node.op, opset), **node.attrs}
    return {
        "opset": opset,
        "in_shape": [_listed(value.shape) for value in inputs],
        "out_shape": [_listed(value.shape) for value in node.outputs],
        "in_rank": [value.rank for value in inputs],
        "in_dtype": [value.dtype for value in inputs],
        "out_dtype": [value.dtype for value in node.outputs],
        "in_const": [value.const for value in inputs],
        "in_value": [_values(value) for value in inputs],
        "inputs": len(inputs),
        **{f"@{name}": value for name, value in attributes.items()},
    }


def _values(value: Value) -> list[Any] | None:
    """Values of a small constant; none of what is computed at run time, and None where they are not known."""
    if value.data is None or value.data.size > _VALUES:
        return None if value.const else []
    return list(value.data.ravel().tolist())


def _listed(shape: Sequence[int | None] | None) -> list[int | None] | None:
    return None if shape is None else list(shape)


@lru_cache(maxsize=1024)
def _defaults(op: str, opset: int) -> dict[str, Any]:
    """Attributes that an operator has without being told."""
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return {}
    stated = ((name, attribute.default_value) for name, attribute in schema.attributes.items())
    values = ((name, onnx.helper.get_attribute_value(value)) for name, value in stated if value.type)
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values}
