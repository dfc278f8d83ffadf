"""Nodes that must stay in FP32 together: a value that FP16 cannot hold is protected up to where it is used up.

Four chains are followed. Positions (the grid of GridSample, the boxes of RoiAlign, what becomes an index) are computed
in FP32 from the layers' outputs on. An epsilon that FP16 would lose is kept up to the division or logarithm that it
protects, with the mean, sum or difference that it is added to. A constant beyond FP16's range is kept up to the
operator that brings it back, such as a Softmax behind a mask. The difference of two means below a square root is taken
in FP32, as FP16's rounding would make it negative.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.operators import MOVES

LARGEST = float(np.finfo(np.float16).max)
Reasons = dict[ir.Node, str]

_MOVES = (*MOVES, "Pad")  # what Pad adds are zeros and copies
_SUMS = ("Add", "Sub", "Sum", "Neg", "Abs")
_OF_SUMS = ("Abs", "Add", "Mul", "Pow", "Sqrt", "Sum")
_LIMITS = ("Clip", "Max", "Min", "Relu")
_PRODUCTS = ("Mul", "Div", "Pow", "Sqrt", "Exp", "Reciprocal")
_MEANS = (*("AveragePool", "GlobalAveragePool", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"),)
# Operators that read positions beside data, and at which input; TensorRT wants both of one type.
POSITIONS = {"AffineGrid": 0, "DeformConv": 2, "GridSample": 1, "MaxRoiPool": 1, "RoiAlign": 1}
_SELECTS = {**POSITIONS, "NonMaxSuppression": 0, "Resize": 2, "Upsample": 1}
_COORDINATES = 4  # a matrix product over no more values than this maps positions
_TO_POSITIONS = (
    *_MOVES, *_SUMS, *_LIMITS, *_PRODUCTS,
    *("Ceil", "CumSum", "Floor", "HardSigmoid", "Mean", "Mod", "Round", "Sigmoid", "Tanh", "Where"),
)  # fmt: skip
_TO_DIVISION = (*_MOVES, *_SUMS, *_LIMITS, *_MEANS, "Mul", "Sqrt", "Pow", "Where")
_TO_LIMIT = (*_MOVES, *_SUMS, *_LIMITS, "Mul", "Where")
_BRINGS_BACK = (
    *_LIMITS, *("ArgMax", "ArgMin", "Exp", "HardSigmoid", "LogSoftmax", "ReduceMax", "ReduceMin", "Sigmoid"),
    *("Sign", "Softmax", "Tanh", "TopK"),
)  # fmt: skip
_UNBOUNDED = ("INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64")


def unheld(node: ir.Node, largest: Mapping[str, float]) -> str | None:
    """Why the values that a node makes out of nothing or of integers may lie beyond FP16's range."""
    if not node.outputs or node.outputs[0].dtype != ir.DataType.FLOAT:
        return None
    if node.op_type == "ConstantOfShape":
        value = node.attributes.get("value")
        size = float(np.abs(value.as_tensor().numpy()).max()) if value is not None else 0.0
        return f"it holds {size:.4g}, beyond FP16's {LARGEST:.0f}" if LARGEST < size < np.inf else None
    source = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
    counts = node.op_type == "Cast" and source is not None and source.name in _UNBOUNDED
    if (counts or node.op_type == "Range") and not largest.get(str(node.outputs[0].name), np.inf) <= LARGEST:
        return "its integers were not measured to lie within FP16's range"
    return None


def chained(graph: ir.Graph, lost: Collection[ir.Node], beyond: Collection[ir.Node]) -> Reasons:
    """Nodes that stay in FP32 with others, with the reason.

    Args:
        graph: the main graph.
        lost: nodes with a constant that FP16 would lose.
        beyond: nodes that read or make a constant beyond FP16's range.
    """
    found: Reasons = {}
    for node in graph:
        for index in _selecting(node):
            _add(found, _upstream(node, index, _maps_positions), f"what it makes becomes positions of '{node.name}'")
        if node.op_type in ("Sqrt", "Log") or _takes_root(node):
            for difference in _differences(node):
                nodes = [difference, *_upstream(difference, None, _is_mean)]
                _add(found, nodes, f"FP16 could make the difference below '{node.name}' negative")
    used = _add_paths(
        found, graph, lost, _TO_DIVISION, _divides, "it keeps an epsilon that FP16 would lose up to a division"
    )
    for node in used:  # what an epsilon is added to is as small
        _add(found, _upstream(node, None, _sums_up), f"FP16 could lose what the epsilon of '{node.name}' is added to")
    _add(found, list(_behind_reciprocals(found)), "it multiplies with a reciprocal that may lie beyond FP16's range")
    made = [reader for node in beyond if node.op_type in _MAKERS for reader in _readers(node)]
    _add(found, made, "it reads values beyond FP16's range")
    _add_paths(found, graph, [*beyond, *made], _TO_LIMIT, _brings_back, "values beyond FP16's range come to it")
    return found


_MAKERS = ("Cast", "ConstantOfShape", "Range")


def _add(found: Reasons, nodes: list[ir.Node], reason: str) -> None:
    for node in nodes:
        found.setdefault(node, reason)


def _selecting(node: ir.Node) -> Iterator[int]:
    """Inputs of a node that are positions or become such."""
    if node.op_type in _SELECTS:
        yield _SELECTS[node.op_type]
    elif node.op_type == "Cast" and node.outputs[0].dtype is not None and node.outputs[0].dtype.is_integer():
        yield 0


def _maps_positions(node: ir.Node) -> bool:
    if node.op_type in ("MatMul", "Gemm"):
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        return shape is not None and isinstance(shape[-1], int) and shape[-1] <= _COORDINATES
    return node.op_type in (*_TO_POSITIONS, *POSITIONS)


def _is_mean(node: ir.Node) -> bool:
    return node.op_type in (*_MEANS, *_MOVES, "Mul", "Div", "Pow")


def _sums_up(node: ir.Node) -> bool:
    # A difference too: rounding what it cancels could leave nothing to divide by, beside something to divide.
    if node.op_type in ("Add", "Sum"):  # of squares or sizes; another sum is a layer's or a residual's, no small one
        makers = [value.producer() if value is not None else None for value in node.inputs]
        return all(m is not None and m.op_type in (*_MEANS, *_OF_SUMS) and _sums_up(m) for m in makers)
    return _is_mean(node) or node.op_type in (*_LIMITS, "Abs", "Neg", "Sqrt", "Sub", "Where")


def _upstream(node: ir.Node, index: int | None, follow: Callable[[ir.Node], bool]) -> list[ir.Node]:
    """Nodes before an input of a node (None: all inputs), as far as ``follow`` says."""
    values = node.inputs if index is None else node.inputs[index : index + 1]
    waiting, found = list(values), dict[ir.Node, None]()
    while waiting:
        value = waiting.pop()
        maker = value.producer() if value is not None else None
        if maker is None or maker in found or maker.graph is not node.graph or not follow(maker):
            continue
        found[maker] = None
        waiting += maker.inputs
    return list(found)


def _differences(node: ir.Node) -> Iterator[ir.Node]:
    """Subtractions whose result comes to a node, an epsilon added or scaled on the way."""
    for maker in [node.inputs[0].producer()] if node.inputs[0] is not None else []:
        if maker is None or maker.graph is not node.graph:
            continue
        if maker.op_type == "Sub":
            yield maker
        elif maker.op_type in ("Add", *_MOVES) or (maker.op_type in ("Mul", "Div") and _scales(maker)):
            yield from _differences(maker)


def _scales(node: ir.Node) -> bool:
    return any(value is not None and value.is_initializer() for value in node.inputs)


def _takes_root(node: ir.Node) -> bool:
    """Whether a power is none of a whole number, which a negative base has none of."""
    return node.op_type == "Pow" and any(power != int(power) for power in _powers(node))


def _powers(node: ir.Node) -> list[float]:
    """The exponents of a power; where they are computed, one that is the worst."""
    value = node.inputs[1]
    if value is None or value.const_value is None:
        return [-0.5]
    return [float(power) for power in value.const_value.numpy().ravel()]


def _divides(node: ir.Node, index: int) -> bool:
    """Whether an input of a node must not be zero."""
    if node.op_type == "Pow":
        return index == 0 and min(_powers(node)) < 0
    return (node.op_type, index) in (("Div", 1), ("Reciprocal", 0), ("Log", 0), ("ReduceLogSum", 0))


def _brings_back(node: ir.Node, index: int) -> bool:
    return node.op_type in _BRINGS_BACK


def _add_paths(
    found: Reasons,
    graph: ir.Graph,
    sources: Collection[ir.Node],
    through: Collection[str],
    ends: Callable[[ir.Node, int], bool],
    reason: str,
) -> list[ir.Node]:
    """Add the nodes on all ways from sources to where they end; returns the sources from which a way leads there."""
    leads: set[ir.Node] = set()
    for node in reversed(graph):
        uses = [use for value in node.outputs for use in value.uses() if use[0].graph is graph]
        if any(ends(user, index) or (user.op_type in through and user in leads) for user, index in uses):
            leads.add(node)
    carried = {node for node in sources if node in leads}
    for node in graph:
        if node not in carried:
            continue
        for user, index in (use for value in node.outputs for use in value.uses() if use[0].graph is graph):
            end = ends(user, index)
            if end or (user.op_type in through and user in leads):
                found.setdefault(user, reason)
            if user.op_type in through and user in leads:
                carried.add(user)
    return [node for node in sources if node in leads]


def _readers(node: ir.Node) -> Iterator[ir.Node]:
    """Nodes that compute with what a node makes, and those that move it there."""
    for user, _ in (use for value in node.outputs for use in value.uses()):
        if user.graph is node.graph:
            yield user
            if user.op_type in _MOVES:
                yield from _readers(user)


def _behind_reciprocals(found: Reasons) -> Iterator[ir.Node]:
    """Products with the reciprocal of what an epsilon protects."""
    for node in list(found):
        inverts = node.op_type == "Reciprocal" or (node.op_type == "Pow" and min(_powers(node)) < 0)
        if inverts or (node.op_type == "Div" and node.inputs[0] is not None and node.inputs[0].is_initializer()):
            yield from (reader for reader in _readers(node) if reader.op_type in (*_MOVES, "Mul"))
