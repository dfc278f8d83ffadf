"""Pooling over a whole map in steps, each with a window that a DLA takes.

The mean of means over blocks of equal size is the mean, and the maximum of maxima is the maximum.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import onnx_ir as ir

from csa_deploy.graph.rewrite import inherit, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_LARGEST_WINDOW = 8
"""Of DLA's pooling; see the DLA rule packs."""


def _steps(size: int) -> list[int] | None:
    """Factors of ``size``, none larger than the largest window, or None."""
    factors = []
    while size > 1:
        factor = next((f for f in range(min(size, _LARGEST_WINDOW), 1, -1) if size % f == 0), None)
        if factor is None:
            return None
        factors.append(factor)
        size //= factor
    return factors


def _split(op: Any, node: ir.Node) -> ir.Value | None:
    shape = static_shape(node.inputs[0])
    window = node.attributes.get_ints("kernel_shape", ())
    if shape is None or len(shape) != 4 or tuple(window or ()) != shape[2:] or max(shape[2:]) <= _LARGEST_WINDOW:
        return None
    vertical, horizontal = _steps(shape[2]), _steps(shape[3])
    if vertical is None or horizontal is None or static_shape(node.outputs[0]) != (*shape[:2], 1, 1):
        return None
    value = node.inputs[0]
    height, width = shape[2:]
    for number, (rows, columns) in enumerate(zip_longest(vertical, horizontal, fillvalue=1)):
        height, width = height // rows, width // columns
        window = [rows, columns]
        name = f"{node.name}_{number}" if (height, width) != (1, 1) else node.name
        pooled = op.op(node.op_type, value, _name=name, kernel_shape=window, strides=window, pads=[0, 0, 0, 0])
        value = inherit(pooled, node, shape=(*shape[:2], height, width))
        value.name = f"{node.outputs[0].name}_{height}x{width}"
    return value


RULE = pattern_rule(
    "pool_to_chain",
    "write pooling over a map larger than 8 pixels as a chain of poolings of at most 8",
    [node_rule("AveragePool", _split), node_rule("MaxPool", _split)],
)
