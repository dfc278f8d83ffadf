"""Constant folding of shape arithmetic: small arrays only, never weights.

Parsers fold what is known when they read the graph; so does the checker, on arrays of at most :data:`MAX_ELEMENTS`.
A node whose inputs are all constant but large is constant too; its values are simply not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import helper

Array = np.ndarray[Any, Any]
Attributes = dict[str, Any]

MAX_ELEMENTS = 4096

MAX_BYTES = 1 << 28
"""Bytes of all values of one graph that are kept; what comes after these is constant, its values are not known."""

_NOT_FOLDED = (
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli Dropout If Loop Scan "
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear"
)
NOT_FOLDED = frozenset(_NOT_FOLDED.split())
"""Operators that stay layers even when every input is constant."""


def _slice(attrs: Attributes, data: Array, *bounds: Array) -> Array:
    steps: Sequence[int] | Array
    if not bounds:
        starts, ends = attrs["starts"], attrs["ends"]
        axes = attrs.get("axes", range(len(starts)))
        steps = [1] * len(starts)
    else:
        starts, ends = bounds[0], bounds[1]
        axes = bounds[2] if len(bounds) > 2 else range(len(starts))
        steps = bounds[3] if len(bounds) > 3 else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop: int | None = int(end)
        if step < 0 and end < -data.shape[int(axis)]:
            stop = None
        index[int(axis)] = slice(int(start), stop, int(step))
    return data[tuple(index)]


def _axes(attrs: Attributes, rest: tuple[Array, ...]) -> tuple[int, ...] | None:
    axes = rest[0].tolist() if rest else attrs.get("axes")
    return None if axes is None else tuple(int(axis) for axis in axes)


def _squeeze(attrs: Attributes, data: Array, *rest: Array) -> Array:
    return np.squeeze(data, axis=_axes(attrs, rest))


def _unsqueeze(attrs: Attributes, data: Array, *rest: Array) -> Array:
    return np.expand_dims(data, _axes(attrs, rest) or ())


def _reshape(attrs: Attributes, data: Array, shape: Array) -> Array:
    dims = [int(dim) for dim in shape]
    if not attrs.get("allowzero", 0):
        dims = [data.shape[axis] if dim == 0 else dim for axis, dim in enumerate(dims)]
    return data.reshape(dims)


def _cast(attrs: Attributes, data: Array) -> Array:
    return data.astype(helper.tensor_dtype_to_np_dtype(attrs["to"]))


def _divide(_: Attributes, a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):
        return np.asarray(np.trunc(np.true_divide(a, b)).astype(a.dtype))  # ONNX truncates towards zero
    return np.asarray(a / b)


def _constant_of_shape(attrs: Attributes, shape: Array) -> Array:
    value = attrs.get("value")
    fill = np.zeros(1, np.float32) if value is None else value
    return np.full([int(dim) for dim in shape], fill.reshape(-1)[0], fill.dtype)


def _reduction(function: Callable[..., Any]) -> Callable[..., Array]:
    def reduce(attrs: Attributes, data: Array, *rest: Array) -> Array:
        reduced = function(data, axis=_axes(attrs, rest), keepdims=bool(attrs.get("keepdims", 1)))
        return np.asarray(reduced, data.dtype)

    return reduce


def _modulo(attrs: Attributes, a: Array, b: Array) -> Array:
    return np.asarray(np.fmod(a, b) if attrs.get("fmod", 0) else np.mod(a, b))


def _flatten(attrs: Attributes, data: Array) -> Array:
    axis = int(attrs.get("axis", 1))
    return data.reshape(int(np.prod(data.shape[:axis])), -1)


def _plain(function: Callable[..., Any]) -> Callable[..., Array]:
    return lambda _attrs, *inputs: np.asarray(function(*inputs))


_EVALUATORS: dict[str, Callable[..., Array]] = {
    "Identity": _plain(lambda data: data),
    "Gather": lambda attrs, data, indices: np.take(data, indices.astype(np.int64), axis=attrs.get("axis", 0)),
    "Concat": lambda attrs, *parts: np.concatenate(parts, axis=attrs["axis"]),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Transpose": lambda attrs, data: np.transpose(data, attrs.get("perm")),
    "Cast": _cast,
    "Div": _divide,
    "ConstantOfShape": _constant_of_shape,
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "Range": _plain(np.arange),
    "Where": _plain(np.where),
    "Expand": lambda _, data, shape: np.array(data * np.ones([int(d) for d in shape], data.dtype)),
    "Tile": _plain(lambda data, repeats: np.tile(data, [int(r) for r in repeats])),
    "CastLike": _plain(lambda data, like: data.astype(like.dtype)),
    "Flatten": _flatten,
    "Mod": _modulo,
    "Pow": _plain(lambda base, power: np.power(base, power).astype(base.dtype)),
    "Sum": _plain(lambda *arrays: sum(arrays[1:], arrays[0])),
    "Add": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "Max": _plain(lambda *arrays: np.maximum.reduce(np.broadcast_arrays(*arrays))),
    "Min": _plain(lambda *arrays: np.minimum.reduce(np.broadcast_arrays(*arrays))),
    "Floor": _plain(np.floor),
    "Ceil": _plain(np.ceil),
    "Sqrt": _plain(np.sqrt),
    "Neg": _plain(np.negative),
    "Abs": _plain(np.abs),
    "Equal": _plain(np.equal),
    "Less": _plain(np.less),
    "Greater": _plain(np.greater),
    "LessOrEqual": _plain(np.less_equal),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Xor": _plain(np.logical_xor),
    "Sign": _plain(np.sign),
    "Exp": _plain(np.exp),
    "Log": _plain(np.log),
    "Reciprocal": _plain(np.reciprocal),
    "Not": _plain(np.logical_not),
    "And": _plain(np.logical_and),
    "Or": _plain(np.logical_or),
}


_BROADCAST = frozenset(
    "Div Where Mod Pow Sum Add Sub Mul Max Min Equal Less Greater LessOrEqual GreaterOrEqual Xor And Or".split()  # noqa: SIM905
)


def evaluate(op: str, attrs: Attributes, inputs: list[Array], out_elements: int | None) -> Array | None:
    """Value of a node with constant inputs; None when it is not evaluated here.

    Args:
        op: ONNX operator.
        attrs: its attributes as Python values (tensors as arrays).
        inputs: values of its inputs, omitted optional ones left out.
        out_elements: elements of the output by shape inference; None when unknown. What can blow up a small input
            is evaluated only when its size, by inference or by its own operands, is small.
    """
    evaluator = _EVALUATORS.get(op)
    if evaluator is None:
        return None
    try:
        with np.errstate(all="ignore"):
            if max(_elements(op, inputs), out_elements or 0) > MAX_ELEMENTS:  # what is declared may be too little
                return None
            value = evaluator(attrs, *inputs)
    except Exception:
        return None  # an ill-formed node is judged by the mapping, not here
    return value if value.size <= MAX_ELEMENTS else None


def _elements(op: str, inputs: list[Array]) -> float:
    """Elements that a growing operator makes of its operands, at least; 0 for the others."""
    if op == "ConstantOfShape":
        return float(np.prod(inputs[0], dtype=np.float64))
    if op == "Expand":
        return float(prod(np.broadcast_shapes(inputs[0].shape, tuple(int(dim) for dim in inputs[1]))))
    if op == "Gather":
        return float(inputs[0].size * inputs[1].size)
    if op in _BROADCAST:
        return float(prod(np.broadcast_shapes(*(array.shape for array in inputs))))
    if op == "Tile":
        return float(np.prod(inputs[1], dtype=np.float64)) * inputs[0].size
    if op == "Range":
        return abs(float(inputs[1]) - float(inputs[0])) / max(abs(float(inputs[2])), 1e-30)
    return 0.0


def constant_value(attrs: Attributes) -> Array | None:
    """Value of a Constant node, whichever attribute holds it; None when large, sparse or text."""
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if "value" in attrs:
        return np.asarray(attrs["value"])
    return next((np.asarray(attrs[name], kind) for name, kind in kinds.items() if name in attrs), None)


def shape_value(op: str, attrs: Attributes, shape: tuple[int | None, ...] | None) -> Array | None:
    """Value of a Shape or Size node; None when a dimension that it reads is not fixed."""
    if shape is None:
        return None
    dims = shape[attrs.get("start", 0) : attrs.get("end", len(shape))] if op == "Shape" else shape
    if any(dim is None for dim in dims):
        return None
    array = np.array(dims, np.int64)
    return array if op == "Shape" else np.asarray(np.prod(array), np.int64)
