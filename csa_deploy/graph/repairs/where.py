"""Where by a constant condition, as Scale layers and a sum: ``x * m + y * (1 - m)`` with one ``m`` per channel.

The same numbers for finite inputs, but that a zero may lose its sign. An infinity or a NaN on the side that is not
chosen would come through as NaN, so what may be infinite is left alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import constant
from csa_deploy.graph.repairs.growth import require_finite
from csa_deploy.graph.repairs.scale import scaled
from csa_deploy.graph.rewrite import DeclinedError, inherit, is_float, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape


def _to_scale(op: Any, node: ir.Node) -> ir.Value | None:
    shape = static_shape(node.outputs[0])
    condition = constant(node.inputs[0])
    if shape is None or len(shape) < 2 or 0 in shape or not is_float(node.outputs[0]):
        return None
    if condition is None:
        raise DeclinedError("its condition is computed")
    chosen = _per_channel(condition, shape, "its condition").astype(bool)
    shift, tensors = np.zeros(shape[1]), list[tuple[ir.Value, np.ndarray]]()
    for value, mask in zip(node.inputs[1:], (chosen, ~chosen), strict=True):
        if value is None or not mask.any():
            continue
        array = constant(value)
        if array is None:
            _require_plain(value, shape)
            tensors.append((value, mask.astype(np.float64)))
        else:
            shift[mask] = _per_channel(array, shape, "a constant that it chooses")[mask]
    if not tensors:
        return None  # a constant, which is computed ahead
    parts = list[ir.Value]()
    for number, (value, scale) in enumerate(tensors):
        parts.append(scaled(op, node, value, scale, 0 * scale if number else shift, f"{node.name}_scale{number}"))
    if len(parts) == 1:
        return parts[0]
    for number, part in enumerate(parts):
        part.name = f"{node.outputs[0].name}_{number}"
    return inherit(op.Add(*parts, _name=node.name), node)


def _require_plain(value: ir.Value, shape: tuple[int, ...]) -> None:
    if static_shape(value) != shape:
        raise DeclinedError("what it chooses from broadcasts")
    require_finite(value)


def _per_channel(array: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """A constant that broadcasts to ``shape`` and differs by channel only, as (C,)."""
    whole = np.broadcast_to(array, shape)
    channels = whole[(slice(0, 1), slice(None), *(slice(0, 1),) * (len(shape) - 2))]
    if not np.array_equal(whole, np.broadcast_to(channels, shape), equal_nan=array.dtype.kind == "f"):
        raise DeclinedError(f"{what} differs by position, not by channel alone")
    return channels.reshape(-1)


RULE = pattern_rule(
    "where_to_scale",
    "write Where by a constant condition per channel as Scale and sum",
    [node_rule("Where", _to_scale)],
)
