"""The nodes in which two graphs differ, as two small graphs of the same inputs and outputs.

What both graphs hold unchanged needs no proof. A value that both compute and that keeps its name is compared where it
is made and given freely where it is read, so that each rewrite stands alone: nothing in front of it decides which
numbers reach it, nothing behind it hides or amplifies what it does. If every such value is equal for equal inputs, the
networks are equal.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx
import onnx.helper
import onnx_ir as ir

from csa_deploy.graph.facts import constant_tensor
from csa_deploy.graph.inputs import Specs
from csa_deploy.graph.shapes import static_shape

KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_MADE = "made:"
_SHAPES_ONLY = ("Shape", "Size")


class CannotCutError(Exception):
    """The difference of two graphs is no pair of graphs; the message says why."""


@dataclass(frozen=True)
class Region:
    """What differs between two graphs.

    Attributes:
        before: the differing nodes of the first graph.
        after: those of the second; inputs and outputs as ``before``.
        inputs: shape and type of each input.
        outputs: names in the networks of what is compared, by name of an output.
        varying: outputs that depend on the numbers in the inputs and not on their shapes alone.
        origins: by output, the values of the first network that its region makes on the way to it.
        data: by output, the input that the node behind it reads first, where it reads one.
        terms: by output, the most numbers that a pooling or reduction on the way to it makes one of.
    """

    before: onnx.ModelProto
    after: onnx.ModelProto
    inputs: Specs
    outputs: dict[str, str]
    varying: frozenset[str]
    origins: dict[str, frozenset[str]]
    data: dict[str, str]
    terms: dict[str, int]


class Digests:
    """Fingerprints of weights, each computed once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, bytes]] = {}

    def of(self, tensor: ir.TensorProtocol) -> bytes:
        """Equal for equal type, shape and bytes."""
        if id(tensor) not in self._known:
            head = f"{tensor.dtype} {list(tensor.shape)}".encode()
            raw = repr(tensor.numpy().tolist()).encode() if tensor.dtype.is_string() else tensor.tobytes()
            self._known[id(tensor)] = (tensor, hashlib.blake2b(head + raw, digest_size=16).digest())
        return self._known[id(tensor)][1]


def changed_region(before: ir.Model, after: ir.Model, digests: Digests) -> Region | None:
    """The difference of two graphs of the same outputs; None where no node differs.

    Raises:
        CannotCutError: the graphs do not have the same outputs, or a value at the border has no known shape.
    """
    first, second = _Side(before, digests), _Side(after, digests)
    if first.outputs != second.outputs:
        raise CannotCutError("the outputs of the network have other names")
    common = first.signatures.keys() & second.signatures.keys()
    first.keep(node for key, node in first.signatures.items() if key not in common)
    second.keep(node for key, node in second.signatures.items() if key not in common)
    answers = [(constant_tensor(first.values[name]), constant_tensor(second.values[name])) for name in first.outputs]
    fixed = {name for name, pair in zip(first.outputs, answers, strict=True) if pair != (None, None)}
    if not first.nodes and not second.nodes and all(a is b for a, b in answers):
        return None
    cut = {name for name in first.made() & second.made() if _free(first.values[name], second.values[name])}
    _absorb(first, second, cut)
    borders = ((first.read_outside() | cut) & first.made()) | ((second.read_outside() | cut) & second.made()) | fixed
    for name in borders:
        if name not in first.values or name not in second.values:
            raise CannotCutError(f"'{name}' is computed by one of the graphs alone")
    outputs = {f"{_MADE}{name}": (name, name) for name in sorted(borders)} | _into_foreign(first, second)
    first.wanted = {key: names[0] for key, names in outputs.items()}
    second.wanted = {key: names[1] for key, names in outputs.items()}
    if not outputs:
        return None
    inputs = {name: spec for side in (first, second) for name, spec in side.inputs(cut).items()}
    return Region(
        first.model(inputs, cut),
        second.model(inputs, cut),
        inputs,
        dict(first.wanted),
        frozenset(key for key, name in first.wanted.items() if first.depends(name, cut)),
        {key: first.slice_of(name, cut) for key, name in first.wanted.items()},
        {key: found for key, name in first.wanted.items() if (found := first.data_input(name, inputs)) is not None},
        {key: first.terms_of(name, cut) for key, name in first.wanted.items()},
    )


def _into_foreign(first: _Side, second: _Side) -> dict[str, tuple[str, str]]:
    """What custom operators read, by a key, where that changed: they cannot run, so what goes into them counts."""
    if first.foreign.keys() != second.foreign.keys():
        raise CannotCutError("a custom operator changed")
    pairs, made = {}, first.made() | second.made()
    for key, node in first.foreign.items():
        for index, (one, other) in enumerate(zip(node.inputs, second.foreign[key].inputs, strict=True)):
            if one is not None and other is not None and (one.name != other.name or one.name in made):
                pairs[f"input {index} of {node.outputs[0].name}"] = (str(one.name), str(other.name))
    return pairs


def _absorb(first: _Side, second: _Side, cut: set[str]) -> None:
    """Take in the makers of values that cannot be drawn: shapes, indices, conditions, values of unknown shape."""
    pending = True
    while pending:
        pending = False
        for side, other in ((first, second), (second, first)):
            for name in side.missing(cut):
                maker = side.values[name].producer()
                if maker is None or _drawable(side.values[name]):
                    continue
                if maker.domain not in KNOWN_DOMAINS:
                    raise CannotCutError(f"the shape of '{name}' beside a custom operator is not known")
                side.nodes.add(maker)
                pending = True
                if (twin := other.values.get(name)) is not None and (node := twin.producer()) is not None:
                    other.nodes.add(node)


def _free(first: ir.Value, second: ir.Value) -> bool:
    same = static_shape(first) == static_shape(second) and first.dtype == second.dtype
    return same and _drawable(first) and first.producer() is not None


def _drawable(value: ir.Value) -> bool:
    """Whether any numbers will do: floats of two axes or more. Fewer may be sizes and scales."""
    shape = static_shape(value)
    if shape is None or value.dtype is None or 0 in shape:
        return False
    maker = value.producer()
    if maker is not None and maker.domain not in KNOWN_DOMAINS:
        return True
    return value.dtype in _FLOATS and len(shape) > 1


_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


class _Side:
    """One of the graphs, and which of its nodes are in the region."""

    def __init__(self, model: ir.Model, digests: Digests) -> None:
        self._model, graph = model, model.graph
        nodes = [node for node in graph if not (node.outputs and _fixed(node.outputs[0]))]
        self._order = {node: number for number, node in enumerate(nodes)}
        self.values: dict[str, ir.Value] = {str(value.name): value for value in (*graph.inputs,)}
        self.values |= {str(name): value for name, value in graph.initializers.items()}
        self.values |= {str(value.name): value for node in graph for value in node.outputs if value.name}
        self._own = set(self.values.values())
        self._reads = {node: list(self._read_by(node)) for node in nodes}
        self.outputs = [str(value.name) for value in graph.outputs]
        self.foreign = {self._kind(node): node for node in nodes if node.domain not in self._domains()}
        known = (node for node in nodes if node.domain in self._domains())
        self.signatures = {self._signature(node, digests): node for node in known}
        self.nodes: set[ir.Node] = set()
        self.wanted: dict[str, str] = {}

    def keep(self, nodes: Iterable[ir.Node]) -> None:
        """Make these the region."""
        self.nodes = set(nodes)

    def made(self) -> set[str]:
        """Names of what the region makes."""
        return {str(value.name) for node in self.nodes for value in node.outputs if value.name}

    def read_outside(self) -> set[str]:
        """Names of values that the rest of the graph reads, whoever makes them, and of its outputs."""
        out = self.nodes | set(self.foreign.values())
        rest = (node for node in self._order if node not in out)
        return {str(value.name) for node in rest for value in self._reads[node]} | set(self.outputs)

    def missing(self, cut: set[str]) -> list[str]:
        """Names of values that the region reads and does not make: not constants."""
        made = self.made()
        read = {str(value.name) for node in self.nodes for value in self._reads[node] if not _fixed(value)}
        wanted = {name for name in self.wanted.values() if not _fixed(self.values[name])}
        return sorted((read - (made - cut)) | (wanted - made))

    def inputs(self, cut: set[str]) -> Specs:
        """Shape and type of everything that is missing."""
        specs = {}
        for name in self.missing(cut):
            value = self.values[name]
            shape = static_shape(value)
            if shape is None or value.dtype is None:
                raise CannotCutError(f"the shape of '{name}' is not known")
            specs[name] = (shape, value.dtype.numpy().name)
        return specs

    def depends(self, name: str, cut: set[str]) -> bool:
        """Whether a value that the region makes depends on floating-point numbers that reach the region."""
        seen, pending = set[ir.Node](), [self.values[name].producer()]
        while pending:
            node = pending.pop()
            if node is None or node in seen or node not in self.nodes or node.op_type in _SHAPES_ONLY:
                continue
            seen.add(node)
            for value in self._reads[node]:
                outside = str(value.name) in cut or value.producer() not in self.nodes
                if outside and not _fixed(value) and value.dtype in _FLOATS:
                    return True
                pending += [] if outside else [value.producer()]
        return False

    def slice_of(self, name: str, cut: set[str]) -> frozenset[str]:
        """Names of the values that the region computes for ``name``, and its own."""
        found, pending = {name}, [self.values[name].producer()]
        while pending:
            node = pending.pop()
            if node is None or node not in self.nodes:
                continue
            for value in self._reads[node]:
                if str(value.name) not in found | cut and value.producer() in self.nodes:
                    found.add(str(value.name))
                    pending.append(value.producer())
        return frozenset(found)

    def terms_of(self, name: str, cut: set[str]) -> int:
        """The most numbers that one pooling or reduction of the region on the way to ``name`` makes one of."""
        makers = (self.values[made].producer() for made in self.slice_of(name, cut))
        pooling = (node for node in makers if node is not None and ("Pool" in node.op_type or "Reduce" in node.op_type))
        return max((_ratio(node) for node in pooling), default=1)

    def data_input(self, name: str, inputs: Specs) -> str | None:
        """The input of the region that the maker of a value reads first, or None."""
        maker = self.values[name].producer()
        first = maker.inputs[0] if maker is not None and maker.inputs else None
        return str(first.name) if first is not None and first.name in inputs else None

    def model(self, inputs: Specs, cut: set[str]) -> onnx.ModelProto:
        """The region as a model of these inputs; it gives the ``wanted`` values by their keys."""
        made, graph = self.made(), onnx.GraphProto(name="region")
        for node in sorted(self.nodes, key=self._order.__getitem__):
            proto = ir.serde.serialize_node(node)
            for index, name in enumerate(proto.output):
                if name in cut:
                    proto.output[index] = f"{_MADE}{name}"
            graph.node.append(proto)
        for name, (shape, kind) in inputs.items():
            element = onnx.helper.np_dtype_to_tensor_dtype(_dtype(kind))
            graph.input.append(onnx.helper.make_tensor_value_info(name, element, shape))
        read = {str(value.name): value for node in self.nodes for value in self._reads[node] if _fixed(value)}
        read |= {name: self.values[name] for name in self.wanted.values() if _fixed(self.values[name])}
        for name, value in read.items():
            constant = constant_tensor(value)
            assert constant is not None
            tensor = ir.serde.serialize_tensor(constant)
            tensor.name = name
            graph.initializer.append(tensor)
        for key, name in self.wanted.items():
            source = f"{_MADE}{name}" if name in cut & made else name
            if source != key:
                graph.node.append(onnx.helper.make_node("Identity", [source], [key]))
            graph.output.append(_info(key, self.values[name]))
        graph.value_info.extend(_info(name, self.values[name]) for name in sorted(made - cut))
        imports = [onnx.helper.make_opsetid(domain, version) for domain, version in self._model.opset_imports.items()]
        functions = [ir.serde.serialize_function(function) for function in self._model.functions.values()]
        return onnx.helper.make_model(
            graph, opset_imports=imports, functions=functions, ir_version=max(self._model.ir_version, 4)
        )

    def _signature(self, node: ir.Node, digests: Digests) -> tuple[object, ...]:
        """Equal for nodes that do the same with the same values and give their results the same names."""
        tensors = [(value, constant_tensor(value)) for value in self._reads[node]]
        reads = tuple(value.name if tensor is None else digests.of(tensor) for value, tensor in tensors)
        return (*self._kind(node), tuple(value is None for value in node.inputs), reads)

    @staticmethod
    def _kind(node: ir.Node) -> tuple[object, ...]:
        """What a node does, and the names of its results."""
        attributes = tuple(
            (name, ir.serde.serialize_attribute(node.attributes[name]).SerializeToString(deterministic=True))
            for name in sorted(node.attributes)
        )
        return (node.domain, node.op_type, node.overload, attributes, tuple(value.name for value in node.outputs))

    def _domains(self) -> set[str]:
        """Domains whose operators run: ONNX's own and those of the model's functions."""
        return {*KNOWN_DOMAINS, *(domain for domain, _, _ in self._model.functions)}

    def _read_by(self, node: ir.Node) -> Iterator[ir.Value]:
        """What a node reads, and what the graphs inside it read of the graph around them."""
        yield from (value for value in node.inputs if value is not None)
        for attribute in node.attributes.values():
            graphs = (
                [attribute.as_graph()]
                if attribute.type == ir.AttributeType.GRAPH
                else attribute.as_graphs()
                if attribute.type == ir.AttributeType.GRAPHS
                else []
            )
            for graph in graphs:
                inner = [v for n in ir.traversal.RecursiveGraphIterator(graph) for v in n.inputs if v is not None]
                yield from (value for value in (*inner, *graph.outputs) if value in self._own)


def _fixed(value: ir.Value | None) -> bool:
    return constant_tensor(value) is not None


def _ratio(node: ir.Node) -> int:
    """How many numbers go into one that comes out, by a pooling's window or a reduction's shapes."""
    source, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if source is None or result is None or 0 in result:
        return 1
    window = node.attributes.get_ints("kernel_shape", None)
    return max(math.prod(window or (1,)), math.prod(source) // math.prod(result))


def _dtype(kind: str) -> object:
    import numpy as np

    return np.dtype(kind)


def _info(name: str, value: ir.Value) -> onnx.ValueInfoProto:
    if value.dtype is None:
        return onnx.ValueInfoProto(name=name)
    return onnx.helper.make_tensor_value_info(name, int(value.dtype), static_shape(value))
