"""Pad that repeats its input (reflect, edge), along each axis by Slices and a Concat, or by a 1x1 convolution.

DLA takes Slices and joins channels, so the padded axis changes places with the channels and comes back; the result has
the same bits. Of the GPU's older scope Slice and Concat are not known to pass, convolutions are: there each row of the
weights picks one position, as in :mod:`.gather`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import constant
from csa_deploy.graph.repairs.growth import require_finite
from csa_deploy.graph.repairs.writing import Writer, picking, shape_of
from csa_deploy.graph.rewrite import DeclinedError, is_float, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_MODES = ("reflect", "edge")
_MOST_SLICES = 32


def _positions(node: ir.Node) -> tuple[ir.Value, dict[int, np.ndarray]] | None:
    """What is padded, and by axis which position of the input each position of the output holds."""
    x, shape = node.inputs[0], static_shape(node.inputs[0])
    mode = node.attributes.get_string("mode", "constant")
    if x is None or shape is None or not shape or 0 in shape or mode not in _MODES or not is_float(x):
        return None
    if static_shape(node.outputs[0]) is None:
        raise DeclinedError("its pads are computed")
    found = {}
    for axis, (before, after) in _pads(node, len(shape)).items():
        if min(before, after) < 0:
            raise DeclinedError("crops as well")
        if before or after:
            found[axis] = np.pad(np.arange(shape[axis]), (before, after), mode=mode)  # type: ignore[call-overload]
    return x, found


def _pads(node: ir.Node, rank: int) -> dict[int, tuple[int, int]]:
    """Pads before and behind, by axis."""
    pads = node.attributes.get_ints("pads", None)
    if pads is None:
        given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if given is None:
            raise DeclinedError("its pads are computed")
        pads = tuple(int(value) for value in given.reshape(-1))
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else np.arange(rank)
    if axes is None:
        raise DeclinedError("its axes are computed")
    count = len(pads) // 2
    return {int(axis) % rank: (pads[place], pads[place + count]) for place, axis in enumerate(axes)}


def _to_slices(op: Any, node: ir.Node) -> ir.Value | None:
    found = _positions(node)
    if found is None:
        return None
    writer = Writer(op, node)
    value = writer.as_map(found[0])
    for axis, positions in found[1].items():
        runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
        if len(runs) > _MOST_SLICES:
            raise DeclinedError(f"needs {len(runs)} Slices along one axis, more than {_MOST_SLICES}")
        channels = writer.swapped(value, axis)
        batch, _, *sides = shape_of(channels)
        parts = [_sliced(writer, channels, int(run[0]), len(run)) for run in runs]
        joined = writer.add("Concat", *parts, shape=(batch, len(positions), *sides), axis=1)
        value = writer.swapped(joined, axis)
    return writer.reshape(value, shape_of(node.outputs[0]))


def _sliced(writer: Writer, x: ir.Value, start: int, count: int) -> ir.Value:
    batch, length, *sides = shape_of(x)
    if count == length:
        return x
    bounds = [writer.constant(np.array([value], np.int64), name) for name, value in _bounds(start, count)]
    return writer.add("Slice", x, *bounds, shape=(batch, count, *sides))


def _bounds(start: int, count: int) -> list[tuple[str, int]]:
    return [("starts", start), ("ends", start + count), ("axes", 1), ("steps", 1)]


def _to_conv(op: Any, node: ir.Node) -> ir.Value | None:
    found = _positions(node)
    if found is None:
        return None
    require_finite(found[0])
    writer = Writer(op, node)
    value = writer.as_map(found[0])
    for axis, positions in found[1].items():
        value = writer.mixed(value, axis, picking(positions, shape_of(value)[axis]))
    return writer.reshape(value, shape_of(node.outputs[0]))


TO_SLICES = pattern_rule(
    "pad_to_slices", "write reflecting and repeating Pad as Slices and Concat", [node_rule("Pad", _to_slices)]
)
TO_CONV = pattern_rule(
    "pad_to_conv", "write reflecting and repeating Pad as 1x1 convolutions", [node_rule("Pad", _to_conv)]
)
