"""Reads a model into a :class:`~csa_deploy.restricted.graph.Graph`: stripped, inlined, inferred, folded."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from csa_deploy.graph.attributes import declared_types, ill_typed
from csa_deploy.graph.facts import opset_of
from csa_deploy.graph.guard import guarded_reading
from csa_deploy.graph.limits import recursive_function
from csa_deploy.graph.operators import ONNX_DOMAINS
from csa_deploy.restricted import folding, reading
from csa_deploy.restricted.declarations import forget_shapes
from csa_deploy.restricted.graph import (
    Graph,
    Node,
    Problem,
    Value,
    array_of,
    attributes,
    constant,
    dtype_name,
    value_of,
)
from csa_deploy.restricted.inference import body_inputs, infer_body_outputs, infer_outputs
from csa_deploy.restricted.preparing import contradictions, external_data, has_op, infer, inline, malformed

_INFERENCE_PASSES = 8
"""Shapes feed constants and constants feed shapes; real exports settle in two passes, expanded functions in five."""

_LONG_VECTOR = 1 << 16
"""Elements of a vector up to which onnx may follow its values, as if it were a shape."""

_CONTROL_TYPES = {("Loop", 0): "int64", ("Loop", 1): "bool", ("If", 0): "bool"}
"""What a control-flow operator reads, by input; onnx's inference does not look."""

Scope = MutableMapping[str, Value]


def load_graph(model: ModelProto | Path) -> Graph:
    """Read, infer and fold a model without touching its weights; time is linear in its nodes.

    Raises:
        UsageError: the file is missing, unreadable or no ONNX model.
    """
    if isinstance(model, Path):
        declared_types()  # once, for the child as well
        return guarded_reading(lambda: _load(reading.read_model(model), model.parent), model)
    return _load(reading.strip_model(model), None)


def _load(stripped: ModelProto, folder: Path | None) -> Graph:
    early = external_data(stripped.graph, folder)
    functions = len(stripped.functions)
    opset = opset_of(stripped)
    if functions:
        stripped = _inlined(stripped, early)
    declared = ModelProto()
    declared.CopyFrom(stripped)
    forget_shapes(stripped)
    gone: list[NodeProto] = []
    budget = folding.MAX_BYTES
    for _ in range(_INFERENCE_PASSES):
        problems = list(early)
        stripped = infer(stripped, problems, _can_propagate(stripped.graph))
        computed = frozenset(name for node in gone if node.op_type != "Constant" for name in node.output)
        builder = _Builder(problems, opset, computed, budget)
        nodes = builder.nodes(stripped.graph, ChainMap())
        budget = builder.budget
        if not (builder.folded and _incomplete(nodes)):
            break
        gone += _substitute(stripped.graph, builder.folded)
        _substitute(declared.graph, builder.folded)
    builder.problems += contradictions(declared, _can_propagate(declared.graph))
    known = {(problem.node, problem.op) for problem in builder.problems if problem.reason == "malformed-node"}
    every = (inner for node in nodes for inner in node.walk() if (inner.name, inner.op) not in known)
    builder.problems += [problem for node in every if (problem := malformed(node, opset))]
    return Graph(
        nodes=tuple(nodes),
        inputs=tuple(_network_inputs(stripped.graph)),
        outputs=tuple(builder.top.get(info.name, value_of(info)) for info in stripped.graph.output),
        opset=opset,
        problems=tuple(builder.problems),
        local_functions=functions,
        constants=(*(_node(proto, builder.top) for proto in gone), *builder.constants),
    )


def _inlined(model: ModelProto, problems: list[Problem]) -> ModelProto:
    """The model with its local functions written out; with calls that nothing answers where that cannot be."""
    if name := recursive_function(model):
        problems.append(Problem("invalid", f"the model-local function '{name}' calls itself"))
        del model.functions[:]
        return model
    return inline(model, problems)


def _can_propagate(graph: GraphProto) -> bool:
    """Whether onnx may follow the values of shapes: it writes out every value of a Range and of a vector."""
    tensors = (info.type.tensor_type for info in (*graph.input, *graph.value_info, *graph.output))
    shapes = (tensor.shape.dim for tensor in tensors if tensor.HasField("shape"))
    if any(len(dims) == 1 and dims[0].dim_value > _LONG_VECTOR for dims in shapes):
        return False
    return not has_op(graph, "Range")


def _node(proto: NodeProto, scope: Scope) -> Node:
    """A node whose values are all known by name."""
    inputs = tuple(scope.get(name) if name else None for name in proto.input)
    return Node(proto, inputs, tuple(scope.get(name) or Value(name) for name in proto.output))


def _network_inputs(graph: GraphProto) -> list[Value]:
    initializers = {tensor.name for tensor in graph.initializer}
    return [value_of(info) for info in graph.input if info.name not in initializers]


def _incomplete(nodes: list[Node]) -> bool:
    return any(output.elements is None and not output.sequence for node in nodes for output in node.outputs)


def _substitute(graph: GraphProto, folded: dict[str, folding.Array]) -> list[NodeProto]:
    """Turn folded nodes into initializers, so that the next inference sees their values; returns these nodes."""
    kept: list[NodeProto] = []
    gone: list[NodeProto] = []
    for node in graph.node:
        (gone if node.output and all(name in folded for name in node.output if name) else kept).append(node)
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in folded.items())
    return gone


class _Builder:
    """Walks a graph in topological order and makes nodes and values."""

    def __init__(self, problems: list[Problem], opset: int, computed: frozenset[str], budget: int) -> None:
        self.problems = problems
        self.opset = opset
        self.computed = computed
        self.budget = budget
        self.folded: dict[str, folding.Array] = {}
        self.constants: list[Node] = []
        self.top: Scope = {}

    def nodes(
        self,
        graph: GraphProto,
        outer: ChainMap[str, Value],
        path: tuple[str, ...] = (),
        given: Sequence[Value] = (),
    ) -> list[Node]:
        """Nodes of a graph or body that remain at run time; ``given`` are the body's inputs, where they are known."""
        scope = outer.new_child({value.name: value for value in given})
        self._declare(graph, scope)
        types = {info.name: info for info in (*graph.value_info, *graph.output)}
        remaining: list[Node] = []
        for proto in self._ordered(graph, scope, path):
            outputs = tuple(self._output(name, types, scope) for name in proto.output)
            inputs = tuple(scope.get(name) if name else None for name in proto.input)
            node = Node(proto, inputs, outputs, path)
            try:
                node = self._understood(node, scope)
            except Exception as error:  # nothing that stands in a file may end a check
                self._report("invalid", f"cannot be read ({type(error).__name__}: {str(error)[:200]})", proto)
            (self.constants if _is_folded(node) else remaining).append(node)
        if not path:
            self.top = scope
        return remaining

    def _understood(self, node: Node, scope: ChainMap[str, Value]) -> Node:
        """Fill in what is known of the outputs of a node; returns it with its bodies."""
        proto, inputs, outputs = node.proto, node.inputs, node.outputs
        if name := ill_typed(proto):
            self._report("malformed-node", f"attribute '{name}' has another type than the operator declares", proto)
            return node
        for (op, index), dtype in _CONTROL_TYPES.items():
            value = inputs[index] if op == proto.op_type and index < len(inputs) else None
            if value is not None and value.dtype not in (None, dtype):
                self._report("malformed-node", f"'{value.name}' is {value.dtype}, where {op} reads {dtype}", proto)
        folded = self._fold(proto, inputs, outputs, top=not node.path)
        if any(output.elements is None for output in outputs):
            infer_outputs(proto, inputs, outputs, self.opset)
        if folded:
            return node
        bodies = self._bodies(proto, inputs, scope, (*node.path, node.name))
        infer_body_outputs(proto, inputs, outputs, bodies)
        return replace(node, bodies=bodies) if bodies else node

    def _declare(self, graph: GraphProto, scope: Scope) -> None:
        for tensor in graph.initializer:
            if tensor.name in scope and scope[tensor.name].const and tensor.name not in self.folded:
                self.problems.append(Problem("duplicate-output", f"two initializers are named '{tensor.name}'"))
            shape = tuple(int(dim) for dim in tensor.dims)
            value = Value(tensor.name, dtype_name(tensor.data_type), shape, True, array_of(tensor))
            value.computed = tensor.name in self.computed
            scope[tensor.name] = value
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            scope[name] = Value(name, dtype_name(sparse.values.data_type), tuple(sparse.dims), True)
        for info in graph.input:
            if info.name not in scope.maps[0] if isinstance(scope, ChainMap) else info.name not in scope:
                scope[info.name] = value_of(info)

    def _ordered(self, graph: GraphProto, scope: Scope, path: tuple[str, ...]) -> list[NodeProto]:
        """Nodes in topological order; nodes that cannot be reached are reported and left out."""
        producers: dict[str, int] = {}
        for index, node in enumerate(graph.node):
            for name in filter(None, node.output):
                if name in producers or (name in scope and not path):
                    self._report("duplicate-output", f"'{name}' is written twice", node)
                producers[name] = index
        waiting: dict[int, set[int]] = {}
        for index, node in enumerate(graph.node):
            reads = _reads(node)
            waiting[index] = {producers[name] for name in reads if name in producers}
            for name in filter(None, node.input):
                if name not in producers and name not in scope:
                    self._report("undefined-input", f"'{name}' is read and never written", node)
        order = _sorted(waiting)
        if len(order) < len(graph.node):
            stuck = min(set(waiting) - set(order))
            count = len(graph.node) - len(order)
            self._report("cycle", f"{count} nodes depend on their own output", graph.node[stuck])
        return [graph.node[index] for index in order]

    def _report(self, reason: str, detail: str, node: NodeProto) -> None:
        name = node.name or next(iter(node.output), "")
        self.problems.append(Problem(reason, detail, name, node.op_type))

    def _output(self, name: str, types: dict[str, onnx.ValueInfoProto], scope: Scope) -> Value:
        value = value_of(types[name]) if name in types else Value(name)
        if name:
            scope[name] = value
        return value

    def _fold(self, proto: NodeProto, inputs: tuple[Value | None, ...], outputs: tuple[Value, ...], top: bool) -> bool:
        """Make the outputs constant if the node is; True when nothing of it is left at run time."""
        if proto.domain not in ONNX_DOMAINS or proto.op_type in folding.NOT_FOLDED or len(outputs) != 1:
            return False
        output = outputs[0]
        array = self._evaluated(proto, inputs, output)
        self.budget -= array.nbytes if array is not None else 0
        if array is None or self.budget < 0:
            read = inputs[:1] if proto.op_type == "CastLike" else inputs  # of its second input only the type counts
            known = proto.op_type == "Constant" or (read and all(value is None or value.const for value in read))
            output.const, output.computed = bool(known), proto.op_type != "Constant"
            return output.const
        folded = constant(output.name, array)
        output.dtype, output.shape, output.const, output.data = folded.dtype, folded.shape, True, folded.data
        output.computed = proto.op_type != "Constant"
        if top:
            self.folded[output.name] = array
        return True

    def _evaluated(self, proto: NodeProto, inputs: tuple[Value | None, ...], output: Value) -> folding.Array | None:
        if proto.op_type == "Constant":
            return folding.constant_value(attributes(proto))
        first = inputs[0] if inputs else None
        if proto.op_type in ("Shape", "Size"):
            return folding.shape_value(proto.op_type, attributes(proto), first.shape if first else None)
        if all(value is None for value in inputs) or any(value is not None and value.data is None for value in inputs):
            return None
        arrays = [value.data if value is not None else None for value in inputs]
        return folding.evaluate(proto, attributes(proto), arrays, self.opset, output.elements)

    def _bodies(
        self, proto: NodeProto, inputs: tuple[Value | None, ...], scope: ChainMap[str, Value], path: tuple[str, ...]
    ) -> dict[str, Graph]:
        bodies: dict[str, Graph] = {}
        for attribute in proto.attribute:
            if attribute.HasField("g"):
                nodes = self.nodes(attribute.g, scope, path, body_inputs(proto, inputs, attribute.g))
                results = tuple(self._result(info.name, nodes, attribute.g) for info in attribute.g.output)
                bodies[attribute.name] = Graph(tuple(nodes), (), results, 0)
        return bodies

    def _result(self, name: str, nodes: list[Node], body: GraphProto) -> Value:
        """Value of a body's output."""
        found = (value for node in nodes for value in node.outputs if value.name == name)
        return next(found, None) or next((value_of(info) for info in body.output if info.name == name), Value(name))


def _is_folded(node: Node) -> bool:
    return len(node.outputs) == 1 and node.outputs[0].const


def _sorted(needs: dict[int, set[int]]) -> list[int]:
    """Topological order, else that of the file; members of a cycle, and what hangs on them, are left out."""
    sorter = TopologicalSorter(dict.fromkeys(needs, ()))
    for index, producers in needs.items():
        sorter.add(index, *producers)
    with suppress(CycleError):  # then the sorter gives what is ready all the same
        sorter.prepare()
    order: list[int] = []
    while ready := sorter.get_ready():
        order += ready
        sorter.done(*ready)
    return order


def _reads(node: NodeProto) -> set[str]:
    """Names that a node reads, those that its bodies take from outside included."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                names |= _reads(inner)
    return names
