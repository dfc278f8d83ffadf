"""Bounds on what an ONNX file may hold, asked before anything is computed with it.

A file of a kilobyte can stand for more nodes than a machine has bytes (functions that call the next one twice). These
bounds are far above what networks have, and low enough that every reader stays below a minute and 4 GB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from csa_deploy.errors import UsageError

MOST_NODES = 25_000
"""Nodes of a network, those of bodies and of expanded local functions included."""

MOST_GROWTH = 1 << 28
"""Bytes that the expansion of local functions may add."""

MOST_CALLS = 16
"""Local functions within one another."""

MOST_NAME = 8192
"""Characters of a name."""

MOST_DIMENSIONS = 64
"""Dimensions of a tensor; NumPy has as many."""

MOST_ELEMENTS = 1 << 40
"""Elements of a stored tensor."""

_REEXPORT = "export the model again, or copy the file again"
_SMALLER = "no network looks like this; export it again, and only use files from a source you trust"


def require_bounded(model: ModelProto, name: str) -> None:
    """Refuse a model whose names are no text, or that is or would become too large to work with.

    Raises:
        UsageError: says which bound.
    """
    for text in _texts(model):
        if not isinstance(text, str):  # protobuf hands over broken text as bytes
            raise UsageError(f"{name} is not an ONNX model: it holds names that are not text", fix=_REEXPORT)
        if len(text) > MOST_NAME:
            raise UsageError(
                f"{name} holds a name of {len(text):,} characters ({text[:20]!r}...), more than {MOST_NAME:,}",
                fix=_SMALLER,
            )
    _Expansion(model, name).require_bounded()


def recursive_function(model: ModelProto) -> str:
    """Name of a local function that calls itself, directly or through others; empty where none does."""
    return _Expansion(model, "").recursive


class _Expansion:
    """What the nodes of a model become when its local functions are written out: numbers of nodes and bytes."""

    def __init__(self, model: ModelProto, name: str) -> None:
        self.model, self.name = model, name
        self.functions = {(function.domain, function.name): function for function in model.functions}
        self.recursive = ""
        self._costs: dict[tuple[str, str], tuple[int, int]] = {}
        self._open: list[tuple[str, str]] = []
        for function in model.functions:
            self._of_function(function)

    def require_bounded(self) -> None:
        nodes, size = self._of_nodes(self.model.graph.node)
        stored = sum(function.ByteSize() for function in self.model.functions)
        if nodes > MOST_NODES:
            what = ", with its local functions written out" if self.functions else ""
            raise UsageError(f"{self.name} has more than {MOST_NODES:,} nodes{what}: {_short(nodes)}", fix=_SMALLER)
        if self.functions and size - stored > MOST_GROWTH + self.model.graph.ByteSize():
            raise UsageError(
                f"{self.name} would grow by more than {MOST_GROWTH >> 20} MiB when its local functions are written out",
                fix=_SMALLER,
            )

    def _of_nodes(self, nodes: Sequence[NodeProto]) -> tuple[int, int]:
        count, size = len(nodes), 0
        for node in nodes:
            function = self.functions.get((node.domain, node.op_type)) if self.functions else None
            if function is not None:
                inner, more = self._of_function(function)
                count, size = count + inner, size + more
            elif self.functions:
                size += node.ByteSize()
            for graph in bodies(node):
                inner, more = self._of_nodes(graph.node)
                count, size = count + inner, size + more
        return count, size

    def _of_function(self, function: FunctionProto) -> tuple[int, int]:
        key = (function.domain, function.name)
        if key in self._open:
            self.recursive = function.name
            return 0, 0
        if key not in self._costs:
            if len(self._open) > MOST_CALLS:
                raise UsageError(
                    f"{self.name} has local functions more than {MOST_CALLS} deep within one another", fix=_SMALLER
                )
            self._open.append(key)
            self._costs[key] = self._of_nodes(function.node)
            self._open.pop()
        return self._costs[key]


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs in the attributes of a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _short(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"about 2^{number.bit_length() - 1}"


def _texts(model: ModelProto) -> Iterator[object]:
    yield from (entry.domain for entry in model.opset_import)
    for prop in model.metadata_props:
        yield from (prop.key, prop.value[:1])
    yield from _graph_texts(model.graph)
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
        yield from (entry.domain for entry in function.opset_import)
        yield from _nodes_texts(function.node)


def _graph_texts(graph: GraphProto) -> Iterator[object]:
    yield graph.name
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    yield from _nodes_texts(graph.node)


def _nodes_texts(nodes: Iterable[NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for entry in node.metadata_props:
            yield from (entry.key, entry.value[:1])
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
        for graph in bodies(node):
            yield from _graph_texts(graph)
