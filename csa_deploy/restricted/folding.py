"""Constant folding of shape arithmetic: small arrays only, never weights.

Parsers fold what is known when they read the graph; so does the checker, on arrays of at most :data:`MAX_ELEMENTS`.
A node whose inputs are all constant but large is constant too; its values are simply not known.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, helper

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


_BROADCAST = frozenset(
    "Div Where Mod Pow Sum Add Sub Mul Max Min Equal Less Greater LessOrEqual GreaterOrEqual Xor And Or".split()  # noqa: SIM905
)

_OTHERS = (
    "Identity Gather Concat Slice Squeeze Unsqueeze Reshape Transpose Cast CastLike ConstantOfShape Range Expand Tile "
    "ReduceProd ReduceSum ReduceMax ReduceMin Flatten Floor Ceil Sqrt Neg Abs Sign Exp Log Reciprocal Not"
)
FOLDED = _BROADCAST | frozenset(_OTHERS.split())
"""Operators that are evaluated: those of shape arithmetic, whose work and memory :func:`_elements` bounds."""


def evaluate(
    proto: NodeProto, attrs: Attributes, inputs: Sequence[Array | None], opset: int, out_elements: int | None
) -> Array | None:
    """Value of a node with constant inputs, by ONNX's reference; None when it is not evaluated here.

    Args:
        attrs: its attributes that can be read, as :func:`csa_deploy.restricted.graph.attributes` gives them.
        inputs: values of its inputs; None for an omitted one.
        opset: version of the standard operator set.
        out_elements: elements of the output by shape inference; None when unknown. What can blow up a small input
            is evaluated only when its size, by inference or by its own operands, is small.
    """
    if proto.op_type not in FOLDED or any(attribute.name not in attrs for attribute in proto.attribute):
        return None
    present = [array for array in inputs if array is not None]
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            # What is declared may be too little.
            if max(_elements(proto.op_type, present), out_elements or 0) > MAX_ELEMENTS:
                return None
            if proto.op_type in ("Div", "Mod") and present[1].dtype.kind in "iu" and not present[1].all():
                return None  # by zero: NumPy's answer is 0
            value = _computed(proto, inputs, opset)
    except Exception:
        return None  # an ill-formed node is judged by the mapping, not here
    return value if value.size <= MAX_ELEMENTS else None


def _computed(proto: NodeProto, inputs: Sequence[Array | None], opset: int) -> Array:
    from onnx.reference import ReferenceEvaluator

    feeds = {f"i{number}": array for number, array in enumerate(inputs) if array is not None}
    names = [f"i{number}" if array is not None else "" for number, array in enumerate(inputs)]
    node = NodeProto(op_type=proto.op_type, input=names, output=["y"], attribute=proto.attribute)
    function = helper.make_function("fold", "fold", list(feeds), ["y"], [node], [helper.make_opsetid("", opset)])
    (value,) = ReferenceEvaluator(function).run(None, feeds, attributes={})
    return np.asarray(value)


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
    if op == "Concat":
        return float(sum(array.size for array in inputs))
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
