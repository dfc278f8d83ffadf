"""DepthToSpace, SpaceToDepth and transposes of more than four dimensions, by transposes of four.

A transpose between two Reshapes moves blocks of an array past one another. Any such order is reached by a few
transposes of three blocks behind the batch, which is what the scopes are known to take. Nothing is computed: the result
has the same bits.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from csa_deploy.graph.repairs.writing import Writer, shape_of
from csa_deploy.graph.rewrite import DeclinedError, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_LONGEST = 8192
"""Longest dimension that DLA takes."""

_MOST_BLOCKS = 6

Turn = tuple[tuple[int, int, int], tuple[int, int, int]]
"""Lengths of the three blocks behind the batch, and the order that they are brought into."""

_Way = tuple[tuple[int, int, int], tuple[int, ...], list[Turn]]

_ORDERS = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def steps(sizes: Sequence[int], order: Sequence[int]) -> list[Turn]:
    """Transposes of three blocks that bring blocks of these sizes into an order.

    The longest dimension decides where one is beyond 8192, else the number of transposes, then the longest dimension.
    """
    start, goal = tuple(range(len(sizes))), tuple(order)
    queue: list[_Way] = [((_LONGEST, 0, 0), start, [])]
    done = set[tuple[int, ...]]()
    while queue:
        (over, _, longest), state, path = heapq.heappop(queue)
        if state == goal:
            return path
        if state in done:
            continue
        done.add(state)
        for first, second in itertools.combinations(range(1, len(state)), 2):
            blocks = state[:first], state[first:second], state[second:]
            a, b, c = (math.prod(sizes[index] for index in block) for block in blocks)
            largest = max(a, b, c)
            cost: tuple[int, int, int] = max(over, largest), len(path) + 1, max(longest, largest)
            for turned in _ORDERS:
                reached = *blocks[turned[0]], *blocks[turned[1]], *blocks[turned[2]]
                if reached not in done:
                    step = (a, b, c), turned
                    heapq.heappush(queue, (cost, reached, [*path, step]))
    raise AssertionError("every order is reached by swaps of neighbours")


def _moved(op: Any, node: ir.Node, x: ir.Value, sizes: Sequence[int], order: Sequence[int]) -> ir.Value:
    """``x``, whose dimensions behind the batch are blocks of these sizes, with the blocks in another order."""
    writer, batch = Writer(op, node), shape_of(x)[0]
    for blocks, turned in steps(sizes, order):
        x = writer.transpose(writer.reshape(x, (batch, *blocks)), (0, *(place + 1 for place in turned)))
    return writer.reshape(x, shape_of(node.outputs[0]))


def _depth_space(op: Any, node: ir.Node) -> ir.Value | None:
    x, shape, made = node.inputs[0], static_shape(node.inputs[0]), static_shape(node.outputs[0])
    block = node.attributes.get_int("blocksize", 0)
    if x is None or shape is None or made is None or len(shape) != 4 or 0 in shape or block < 1:
        return None
    if node.op_type == "SpaceToDepth":
        _, c, h, w = shape
        return _moved(op, node, x, (c, h // block, block, w // block, block), (2, 4, 0, 1, 3))
    _, c, h, w = made
    if node.attributes.get_string("mode", "DCR") == "CRD":
        return _moved(op, node, x, (c, block, block, h // block, w // block), (0, 3, 1, 4, 2))
    return _moved(op, node, x, (block, block, c, h // block, w // block), (2, 3, 0, 4, 1))


def _between_reshapes(op: Any, node: ir.Node) -> ir.Value | None:
    """``Reshape, Transpose, Reshape`` through more than four dimensions."""
    transpose = _maker(node, "Transpose")
    first = _maker(transpose, "Reshape")
    x = first.inputs[0] if first is not None else None
    if transpose is None or first is None or x is None or static_shape(node.outputs[0]) is None:
        return None
    wide, shape = static_shape(first.outputs[0]), static_shape(x)
    order = transpose.attributes.get_ints("perm", None)
    if wide is None or shape is None or order is None or len(wide) < 5 or 0 in wide:
        return None
    if order[0] != 0 or shape[0] != wide[0]:
        raise DeclinedError("the batch takes part in its transpose")
    if len(wide) - 1 > _MOST_BLOCKS:
        raise DeclinedError(f"transposes {len(wide)} dimensions, more than {_MOST_BLOCKS + 1}")
    return _moved(op, node, x, wide[1:], [axis - 1 for axis in order[1:]])


def _maker(node: ir.Node | None, op_type: str) -> ir.Node | None:
    """What makes the first input of a node that nothing else needs, if it is of this type."""
    value = node.inputs[0] if node is not None else None
    maker = value.producer() if value is not None else None
    return maker if maker is not None and maker.op_type == op_type and not maker.domain else None


RULE = pattern_rule(
    "shuffle_to_four_dimensions",
    "write DepthToSpace, SpaceToDepth and transposes of more than four dimensions by transposes of four",
    [
        node_rule("DepthToSpace", _depth_space),
        node_rule("SpaceToDepth", _depth_space),
        node_rule("Reshape", _between_reshapes),
    ],
)
