"""The graph as the checker sees it: typed values, nodes in order, shape arithmetic folded away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from csa_deploy.graph.attributes import attribute_values
from csa_deploy.graph.limits import MOST_DIMENSIONS
from csa_deploy.graph.scopes import innermost_module, scopes_text
from csa_deploy.restricted import folding, reading

Shape = tuple[int | None, ...]

_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT8E4M3FN: "float8",
    TensorProto.FLOAT4E2M1: "float4",
}
"""Names that differ from ONNX's own in lower case."""


@lru_cache(maxsize=256)
def dtype_name(data_type: int) -> str | None:
    """Name of an ONNX element type (``float32``, ``float16``, ``int8``, ...); None for UNDEFINED or an unknown one."""
    if data_type == TensorProto.UNDEFINED or data_type not in TensorProto.DataType.values():
        return None
    return _DTYPES.get(data_type) or TensorProto.DataType.Name(data_type).lower()


def data_type(name: str) -> int:
    """ONNX element type of a dtype name; UNDEFINED when there is none."""
    renamed = {text: number for number, text in _DTYPES.items()}
    return renamed.get(name) or dict(TensorProto.DataType.items()).get(name.upper(), TensorProto.UNDEFINED)


@dataclass
class Value:
    """One tensor of the graph.

    Attributes:
        name: its name in the graph.
        dtype: element type; None when not known.
        shape: dimensions, None where not fixed; None when not even the rank is known.
        const: whether it is known at build time.
        data: its values, when constant and small.
        computed: whether a constant comes from a node other than Constant: parsers then have a tensor, no weights.
        sequence: whether it is no tensor (sequence, map, optional).
    """

    name: str
    dtype: str | None = None
    shape: Shape | None = None
    const: bool = False
    data: folding.Array | None = None
    computed: bool = False
    sequence: bool = False

    @property
    def rank(self) -> int | None:
        """Number of dimensions; None when not known."""
        return None if self.shape is None else len(self.shape)

    @property
    def weights(self) -> bool:
        """Whether it is an initializer or a Constant node, which parsers take as weights of a layer."""
        return self.const and not self.computed

    @property
    def elements(self) -> int | None:
        """Number of elements; None when not known."""
        if self.shape is None or any(dim is None for dim in self.shape):
            return None
        return prod(dim for dim in self.shape if dim is not None)


@dataclass(frozen=True)
class Node:
    """One ONNX node with its values; an omitted optional input is None.

    Attributes:
        inputs: values read.
        outputs: values written.
        path: names of the enclosing control-flow nodes, outermost first.
        bodies: bodies of a control-flow node, by attribute name.
    """

    proto: NodeProto
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    path: tuple[str, ...] = ()
    bodies: Mapping[str, Graph] = field(default_factory=dict)

    @property
    def op(self) -> str:
        """Operator name."""
        return self.proto.op_type

    @property
    def domain(self) -> str:
        """Operator domain; the standard domain is ''."""
        return "" if self.proto.domain == "ai.onnx" else self.proto.domain

    @property
    def name(self) -> str:
        """Node name, or the name of its first output."""
        name = self.proto.name or next((output.name for output in self.outputs if output.name), "")
        return "/".join((*self.path, name))

    @property
    def module(self) -> str:
        """Path of the PyTorch module that the node came from ('' when the export kept none)."""
        return module_path(self.proto)

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """Attributes as Python values; tensors as arrays, strings decoded, bodies left out."""
        return attributes(self.proto)

    def input(self, index: int) -> Value | None:
        """Input by position; None when omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    def walk(self) -> Iterator[Node]:
        """This node and those in its bodies."""
        yield self
        for body in self.bodies.values():
            yield from body.walk()


@dataclass(frozen=True)
class Problem:
    """A defect of the graph: ``reason`` is a word that rules know, ``detail`` says it in this instance."""

    reason: str
    detail: str
    node: str = ""
    op: str = ""


@dataclass(frozen=True)
class Graph:
    """A graph with its constants folded.

    Attributes:
        nodes: nodes that compute something at run time, in topological order.
        inputs: network inputs (initializers are none).
        opset: version of the standard operator set.
        problems: defects found on the way.
        local_functions: number of model-local functions (they are inlined).
        constants: nodes that are computed while reading; parsers from 10 on make layers of them all the same.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    opset: int
    problems: tuple[Problem, ...] = ()
    local_functions: int = 0
    constants: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """All nodes, those of bodies included."""
        for node in self.nodes:
            yield from node.walk()


def attributes(proto: NodeProto) -> dict[str, Any]:
    """Attributes of a node as Python values; graphs, tensors without payload and what is ill-typed are left out."""
    found = attribute_values(proto)
    for name, value in list(found.items()):
        if isinstance(value, TensorProto):
            if (array := array_of(value)) is None:
                del found[name]
            else:
                found[name] = array
    return found


def array_of(tensor: TensorProto) -> folding.Array | None:
    """Values of a small tensor; None when stripped, external or malformed."""
    if not reading.has_payload(tensor) or tensor.data_type == TensorProto.STRING:
        return None
    if len(tensor.dims) > MOST_DIMENSIONS:
        return None
    try:
        array = numpy_helper.to_array(tensor)
    except Exception:  # statements that do not agree with one another fail in many ways
        return None
    return array if array.size <= folding.MAX_ELEMENTS else None


def module_path(proto: NodeProto) -> str:
    """Last real module scope in the exporter's metadata: ``stages.0.1`` rather than the operator behind it."""
    return innermost_module(scopes_text(proto) or "")


def type_of(value: Value) -> onnx.TypeProto:
    """ONNX type of a tensor value."""
    shape = None if value.shape is None else list(value.shape)
    return helper.make_tensor_type_proto(data_type(value.dtype or ""), shape)


def value_of(info: ValueInfoProto) -> Value:
    """A value from its declaration."""
    if not info.type.HasField("tensor_type"):
        return Value(info.name, sequence=info.type.WhichOneof("value") is not None)
    tensor = info.type.tensor_type
    shape: Shape | None = None
    if tensor.HasField("shape") and len(tensor.shape.dim) <= MOST_DIMENSIONS:
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in tensor.shape.dim
        )
    return Value(info.name, dtype_name(tensor.elem_type), shape)


def constant(name: str, array: folding.Array) -> Value:
    """A constant value with known data."""
    data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    return Value(name, dtype_name(data_type), tuple(int(dim) for dim in array.shape), True, np.asarray(array))
