"""What an importer writes on: the layers that TensorRT's parser adds to the network for one ONNX node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from csa_deploy.restricted.graph import Node, Shape, Value
from csa_deploy.restricted.vocabulary import NETWORK, UNMAPPED

_BEFORE_10 = {"int64": "int32", "float64": "float32", "uint32": "int32"}
_FROM_10 = {"float64": "float32", "uint32": "int32"}


@dataclass(frozen=True)
class TrtLayer:
    """One layer of the TensorRT network with the facts that rules ask for.

    Attributes:
        type: TensorRT ``LayerType``, or a pseudo layer.
        facts: see ``vocabulary.FACTS``; what is not known is absent or None.
        node: the ONNX node it came from; None for the network itself.
    """

    type: str
    facts: Mapping[str, Any]
    node: Node | None = None

    @cached_property
    def key(self) -> tuple[str, str]:
        """Equal for layers that rules cannot tell apart; networks repeat themselves."""
        return self.type, repr(self.facts)


class UnmappableError(Exception):
    """An importer cannot say which layers a node becomes.

    Args:
        reason: word for the fact ``reason``.
        detail: what exactly, in one line.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Recorder:
    """Collects the layers of one node for one TensorRT version.

    Args:
        version: version of the parser, as far as its mapping differs.
        opset: version of the standard operator set.
        signed: names of uint8 tensors that the parser holds as int8.
    """

    def __init__(self, node: Node, version: tuple[int, ...], opset: int, signed: frozenset[str] = frozenset()) -> None:
        self.signed = signed
        self.node = node
        self.version = version
        self.opset = opset
        self.layers: list[TrtLayer] = []
        self._aliases = _FROM_10 if version >= (10,) else _BEFORE_10

    def add(self, layer: str, inputs: Sequence[Value], output: Value | Sequence[Value], **facts: Any) -> Value:
        """Add a layer; returns its first output."""
        outputs = [output] if isinstance(output, Value) else list(output)
        shapes = [value.shape for value in (*inputs, *outputs)]
        tensors: dict[str, Any] = {
            "op": self.node.op,
            "domain": self.node.domain,
            "in_dtype": [self.dtype(value) for value in inputs],
            "out_dtype": [self.dtype(value) for value in outputs],
            "in_rank": [value.rank for value in inputs],
            "out_rank": [value.rank for value in outputs],
            "in_shape": [_dims(value.shape) for value in inputs],
            "out_shape": [_dims(value.shape) for value in outputs],
            "in_const": [value.const for value in inputs],
            "inputs": len(inputs),
            "outputs": len(outputs),
            "dynamic": any(shape is None or None in shape for shape in shapes),
            "batch": [batch_of(value.shape) for value in (*inputs, *outputs) if not value.const],
            "largest_side": [_largest_side(value.shape) for value in (*inputs, *outputs)],
            "non_finite": False,
        }
        self.layers.append(TrtLayer(layer, {**tensors, **facts}, self.node))
        return outputs[0]

    def dtype(self, value: Value) -> str | None:
        """Element type as this version of TensorRT sees it."""
        if value.name in self.signed:
            return "int8"
        return None if value.dtype is None else self._aliases.get(value.dtype, value.dtype)

    def required(self, index: int) -> Value:
        """An input that the operator cannot do without.

        Raises:
            UnmappableError: the node lacks it.
        """
        value = self.node.input(index)
        if value is None:
            raise UnmappableError("mapping-failed", f"input {index} is missing")
        return value

    def tensor(self, index: int) -> Value:
        """A required input as a network tensor: a constant becomes a Constant layer."""
        return self.as_tensor(self.required(index))

    def as_tensor(self, value: Value) -> Value:
        """The value as a network tensor: a constant becomes a Constant layer, whose output is a tensor."""
        if value.const:
            self.add("CONSTANT", [], value)
        return value

    @property
    def out(self) -> Value:
        """First output of the node."""
        return self.node.outputs[0]

    def attr(self, name: str, default: Any = None) -> Any:
        """Attribute of the node."""
        return self.node.attrs.get(name, default)

    def ints(self, index: int, name: str) -> list[int] | None:
        """Integers that are an attribute in old operator sets and a constant input in new ones; None if neither."""
        value = self.node.input(index)
        if value is not None:
            return None if value.data is None else [int(item) for item in np.atleast_1d(value.data)]
        found = self.attr(name)
        return None if found is None else [int(item) for item in np.atleast_1d(found)]

    def axis(self, axis: int, rank: int | None) -> int | None:
        """Axis counted from the front.

        Raises:
            UnmappableError: outside the rank.
        """
        if rank is None:
            return axis if axis >= 0 else None
        if not -max(rank, 1) <= axis < max(rank, 1):
            raise UnmappableError("mapping-failed", f"axis {axis} is outside rank {rank}")
        return axis % rank if rank else 0

    def refuse_from_10(self, why: str) -> None:
        """Refuse what parsers from 10 on were seen to refuse; nothing is known of older ones.

        Raises:
            UnmappableError: this one is.
        """
        if self.version >= (10,):
            raise UnmappableError("not-imported", why)

    def refuse_vectors(self) -> None:
        """Refuse an input without two dimensions, which layers that order or normalize an axis need."""
        rank = self.required(0).rank
        if rank is not None and rank < 2:
            self.refuse_from_10(f"an input of rank {rank}; its layer needs two dimensions")

    def refuse_far_axis(self, axis: int | None, rank: int | None) -> None:
        """Refuse an axis that is none of the last four, the only ones that TopK layers take.

        Raises:
            UnmappableError: it is.
        """
        if axis is not None and rank is not None and axis < rank - 4:
            self.refuse_from_10(f"axis {axis} of rank {rank}; TopK layers take the last four axes only")

    def require_opset_7(self) -> None:
        """Parsers from 10 on refuse the broadcasting of operator sets before 7.

        Raises:
            UnmappableError: this one would.
        """
        if self.opset < 7 and self.version >= (10,):
            raise UnmappableError("not-imported", "broadcasting of operator sets before 7")

    # layers that many importers need

    def activation(self, kind: str, source: Value, output: Value, **facts: Any) -> Value:
        """An Activation layer."""
        return self.add("ACTIVATION", [source], output, kind=kind, **facts)

    def unary(self, kind: str, source: Value, output: Value) -> Value:
        """A Unary layer."""
        return self.add("UNARY", [source], output, kind=kind)

    def elementwise(self, kind: str, a: Value, b: Value, output: Value | None = None) -> Value:
        """An ElementWise layer, with the Shuffle that gives both operands the same rank."""
        a, b = self.same_rank(a, b)
        if output is None:
            output = Value("", a.dtype, broadcast(a.shape, b.shape), a.const and b.const)
        return self.add("ELEMENTWISE", [a, b], output, kind=kind)

    def scalar(self, dtype: str | None, rank: int | None) -> Value:
        """A constant of one element that the parser makes itself."""
        value = Value("", dtype, None if rank is None else (1,) * rank, True)
        return self.as_tensor(value)

    def same_rank(self, *values: Value) -> list[Value]:
        """Operands brought to the largest rank by a Shuffle each, where they differ."""
        ranks = [value.rank for value in values]
        if any(rank is None for rank in ranks):
            return list(values)
        largest = max(rank for rank in ranks if rank is not None)
        return [self._expanded(value, largest) for value in values]

    def _expanded(self, value: Value, rank: int) -> Value:
        if value.shape is None or len(value.shape) == rank:
            return value
        return self.reshape(value, (1,) * (rank - len(value.shape)) + value.shape)

    def reshape(self, source: Value, shape: Shape | None) -> Value:
        """A Shuffle layer that only changes dimensions."""
        return self.shuffle(source, Value("", source.dtype, shape, source.const))

    def unsqueeze(self, source: Value, shape: Shape | None) -> Value:
        """Inserted dimensions of length 1: an Unsqueeze layer from 10.7 on, a Shuffle before."""
        return self._one_dims("UNSQUEEZE", source, Value("", source.dtype, shape, source.const))

    def squeeze(self, source: Value, output: Value) -> Value:
        """Removed dimensions of length 1: a Squeeze layer from 10.7 on, a Shuffle before."""
        return self._one_dims("SQUEEZE", source, output)

    def _one_dims(self, layer: str, source: Value, output: Value) -> Value:
        if self.version < (10, 7):
            return self.shuffle(source, output)
        count = None if source.rank is None or output.rank is None else abs(source.rank - output.rank)
        return self.add(layer, [source, self.as_tensor(Value("", "int64", (count,), True))], output)

    def index(self, value: Value) -> Value:
        """Indices as the layer wants them: 64-bit ones are cast to 32 bits from 10 on."""
        if self.dtype(value) != "int64":
            return value
        return self.cast(value, "int32", Value("", "int32", value.shape, value.const, value.data))

    def shuffle(
        self, source: Value, output: Value, permutation: Sequence[int] | None = None, const: bool = True
    ) -> Value:
        """A Shuffle layer: transpose, reshape, or both."""
        moved = source.shape
        if permutation is not None and source.shape is not None:
            moved = tuple(source.shape[axis] for axis in permutation)
        reshapes = None if moved is None or output.shape is None else moved != output.shape
        return self.add(
            "SHUFFLE",
            [source],
            output,
            permutation=None if permutation is None else list(permutation),
            reshapes=reshapes,
            moves_batch=_moves_batch(source.shape, output.shape, permutation),
            shape_const=const,
        )

    def cast(self, source: Value, dtype: str | None, output: Value | None = None) -> Value:
        """A Cast layer (Identity up to 8.5)."""
        output = output or Value("", dtype, source.shape)
        return self.add("CAST" if self.version >= (8, 6) else "IDENTITY", [source], output, to=dtype)


def _dims(shape: Shape | None) -> list[int | None] | None:
    return None if shape is None else list(shape)


def _product(dims: Shape) -> int | None:
    return None if None in dims else prod(dim for dim in dims if dim is not None)


def batch_of(shape: Shape | None) -> int | None:
    """Product of the dimensions before the last three, at least the first; a vector has none."""
    if shape is None:
        return None
    return _product(shape[: max(len(shape) - 3, 1)]) if len(shape) > 1 else 1


def _largest_side(shape: Shape | None) -> int | None:
    """Largest dimension other than those of the batch; for DLA these are all but the last three, at least the first."""
    if shape is None or None in shape:
        return None
    return max((dim for dim in shape[max(len(shape) - 3, 1) :] if dim is not None), default=1)


def _moves_batch(before: Shape | None, after: Shape | None, permutation: Sequence[int] | None) -> bool | None:
    if permutation is not None and list(permutation[:1]) != [0]:
        return True
    if before is None or after is None:
        return None
    return before[:1] != after[:1]


def broadcast(a: Shape | None, b: Shape | None) -> Shape | None:
    """Shape of an element-wise result; None when it is not known."""
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(y if x == 1 else x if y in (1, x) else None for x, y in zip(a, b, strict=True))


def unmapped(reason: str, detail: str, node: Node | None, op: str = "") -> TrtLayer:
    """The pseudo layer of something that was not understood."""
    facts = {"reason": reason, "detail": detail, "op": node.op if node else op, "domain": node.domain if node else ""}
    return TrtLayer(UNMAPPED, facts, node)


def network_layer(facts: Mapping[str, Any]) -> TrtLayer:
    """The pseudo layer that carries the facts of the whole network."""
    return TrtLayer(NETWORK, facts)


Importer = Callable[[Recorder], None]
IMPORTERS: dict[str, Importer] = {}
"""ONNX operator -> importer; filled by :func:`importer` when the modules of this package load."""

NOT_BEFORE: dict[str, tuple[int, ...]] = {}
"""Operators that TensorRT's parser took up only in this version."""


def importer(*ops: str, since: tuple[int, ...] = ()) -> Callable[[Importer], Importer]:
    """Register a function as the importer of operators, which the parser knows ``since`` a version."""

    def register(function: Importer) -> Importer:
        for op in ops:
            IMPORTERS[op] = function
            if since:
                NOT_BEFORE[op] = since
        return function

    return register
