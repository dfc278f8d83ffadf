"""Scales of a Resize that every runtime rounds to the same output size.

The output size of a Resize by scale is ``floor(size * scale)``, and three arithmetics are in use: float64 (PyTorch),
float32 (ONNX Runtime's kernel, TensorRT), and the float32 scale times the size in float64 (ONNX shape inference). Just
above the float32 of ``target / size`` all three give ``target``. The scale moves by up to 1.8e-7 of itself, the
furthest position by that share of ``size``, and values with it: see :func:`position_slack`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import add_initializer, constant
from csa_deploy.graph.rewrite import fresh_name, inherit, new_constant, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_ULPS = 4
_NEARLY_WHOLE = 1e-3

_SCALES, _SIZES = 2, 3


def rounded_sizes(size: int, scale: float) -> tuple[int, int]:
    """Output size in the two arithmetics that start from a stored scale: float32, and float64."""
    single = np.float32(scale)
    return int(np.floor(np.float32(size) * single)), int(np.floor(size * float(single)))


def agreed_scale(size: int, target: int) -> np.float32 | None:
    """The float32 scale from ``size`` to ``target`` on which all arithmetics agree; exact where one is."""
    scale = np.float32(target / size)
    if float(scale) * size == target:
        return scale
    for _ in range(_ULPS):
        scale = np.nextafter(scale, np.float32(np.inf))
        if rounded_sizes(size, float(scale)) == (target, target):
            return scale
    return None


def scaled_axes(resize: ir.Node, rank: int) -> tuple[int, ...]:
    """The axes that the scales or sizes of a Resize are for."""
    axes = resize.attributes.get_ints("axes", None)
    return tuple(range(rank)) if axes is None else tuple(axis % rank for axis in axes)


def scales_of(resize: ir.Node) -> np.ndarray | None:
    """Constant scales of a Resize by scale, or None."""
    scales = constant(resize.inputs[_SCALES]) if len(resize.inputs) > _SCALES else None
    return scales if scales is not None and scales.size else None


def intended_sizes(resize: ir.Node) -> tuple[int, ...] | None:
    """Output shape of a Resize by constant scales: the declared one, else the whole numbers that the scales mean."""
    declared = static_shape(resize.outputs[0])
    source, scales = static_shape(resize.inputs[0]), scales_of(resize)
    if source is None or scales is None:
        return None
    if declared is not None:
        return declared
    result = list(source)
    for axis, scale in zip(scaled_axes(resize, len(source)), scales, strict=True):
        product = source[axis] * float(scale)
        nearest = round(product)
        result[axis] = nearest if abs(product - nearest) < _NEARLY_WHOLE else int(np.floor(product))
    return tuple(result)


def by_scales(op: Any, resize: ir.Node, scales: np.ndarray) -> ir.Value:
    """The same Resize with other scales, and no sizes."""
    value = new_constant(op, resize, scales.astype(np.float32), "scales")
    out = op.Resize(resize.inputs[0], resize.inputs[1], value, _name=resize.name, **resize.attributes)
    return inherit(out, resize)


def _nudge(op: Any, resize: ir.Node) -> ir.Value | None:
    source, scales, target = static_shape(resize.inputs[0]), scales_of(resize), intended_sizes(resize)
    if source is None or scales is None or target is None:
        return None
    result = scales.astype(np.float32)
    for position, axis in enumerate(scaled_axes(resize, len(source))):
        if rounded_sizes(source[axis], float(scales[position])) != (target[axis], target[axis]):
            scale = agreed_scale(source[axis], target[axis])
            if scale is None:
                return None
            result[position] = scale
    return by_scales(op, resize, result) if (result != scales).any() else None


def _from_sizes(op: Any, resize: ir.Node) -> ir.Value | None:
    source = static_shape(resize.inputs[0])
    sizes = _sizes_of(resize)
    if source is None or sizes is None or not _stretches(resize):
        return None
    scales = []
    for axis, size in zip(scaled_axes(resize, len(source)), sizes, strict=True):
        scale = agreed_scale(source[axis], size)
        exact = scale is not None and float(scale) * source[axis] == size
        if scale is None or not (exact or resize.attributes.get_string("mode", "nearest") == "linear"):
            return None  # with nearest, a scale off by one unit may pick another pixel
        scales.append(scale)
    return by_scales(op, resize, np.array(scales, np.float32))


def _sizes_of(resize: ir.Node) -> list[int] | None:
    """Sizes of a Resize by sizes: their constant, or the declared output shape where they are computed."""
    if len(resize.inputs) <= _SIZES or resize.inputs[_SIZES] is None:
        return None
    sizes, declared = constant(resize.inputs[_SIZES]), static_shape(resize.outputs[0])
    if sizes is not None:
        return [int(size) for size in sizes] or None
    return [declared[axis] for axis in scaled_axes(resize, len(declared))] if declared is not None else None


def _stretches(resize: ir.Node) -> bool:
    attributes = resize.attributes
    stretch = attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    return stretch and attributes.get_string("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"


def resize_by_sizes(model: ir.Model, names: frozenset[str] | None = None) -> None:
    """Write the intended output size into every Resize by scale, in place; ``names``: only into those that make these.

    The result is the reference to prove nudged scales by.
    """
    for node in list(model.graph):
        chosen = _is_resize(node) and (names is None or node.outputs[0].name in names)
        target = intended_sizes(node) if chosen else None
        if target is None:
            continue
        sizes = [target[axis] for axis in scaled_axes(node, len(target))]
        name = fresh_name(model.graph, f"{node.name}.sizes_to_prove")
        node.resize_inputs(_SIZES + 1)
        node.replace_input_with(_SCALES, None)
        node.replace_input_with(_SIZES, add_initializer(model.graph, name, np.array(sizes, np.int64)))


def _meant(before: ir.Model, after: ir.Model) -> ir.Model:
    """``before`` with the sizes that it means where ``after`` has other scales."""
    scales = {node.outputs[0].name: scales_of(node) for node in after.graph if _is_resize(node)}
    changed = frozenset(
        str(node.outputs[0].name)
        for node in before.graph
        if _is_resize(node) and not np.array_equal(scales_of(node), scales.get(node.outputs[0].name))  # type: ignore[arg-type]
    )
    meant = before.clone()
    resize_by_sizes(meant, changed)
    return meant


def position_slack(before: ir.Model, after: ir.Model) -> dict[str, float]:
    """By output of each Resize, what moving positions may change, as a share of the largest number in its input.

    A scale that is off by a share ``d`` moves the furthest position by ``size * d``, and a linear Resize by at most
    that many differences of neighbours, of which none is above twice the largest number. A scale that is further off
    than a nudge excuses no more than one: the proof has to see it.
    """
    moved = dict[str, float]()
    for model in (before, after):
        for node in model.graph:
            if _is_resize(node) and node.outputs[0].name in _linear_outputs(before):
                name = str(node.outputs[0].name)
                moved[name] = moved.get(name, 0.0) + 2 * _shift(node)
    return moved


def _linear_outputs(model: ir.Model) -> set[str | None]:
    linear = (node for node in model.graph if _is_resize(node) and node.attributes.get_string("mode", "") == "linear")
    return {node.outputs[0].name for node in linear}


def _shift(resize: ir.Node) -> float:
    """How far the positions of a Resize are from those of its sizes, in input positions, summed over the axes."""
    source, target = static_shape(resize.inputs[0]), static_shape(resize.outputs[0])
    if source is None or target is None:
        return 0.0
    single = float(np.finfo(np.float32).eps)
    axes = [(big, small) for big, small in zip(source, target, strict=True) if big != small]
    shift = sum(big * single for big, _ in axes)
    if (scales := scales_of(resize)) is not None:
        for axis, scale in zip(scaled_axes(resize, len(source)), scales, strict=True):
            off = abs(float(scale) * source[axis] / target[axis] - 1)
            shift += source[axis] * min(off, (_ULPS + 1) * single)
    return shift


def _is_resize(node: ir.Node) -> bool:
    return node.op_type == "Resize" and not node.domain


NUDGE = pattern_rule(
    "resize_nudge_scales",
    "nudge Resize scales to the next number that every runtime rounds to the same size",
    [node_rule("Resize", _nudge)],
    reference=_meant,
    slack=position_slack,
    moves=True,
)
FROM_SIZES = pattern_rule(
    "resize_sizes_to_scales",
    "write Resize by scales that every runtime rounds to the wanted sizes",
    [node_rule("Resize", _from_sizes)],
    slack=position_slack,
    moves=True,
)
