"""Move a 1x1 convolution to the side of a Resize that has fewer positions.

Both are linear. A Resize mixes positions with weights that sum to 1 for each output position, and a 1x1 convolution
mixes channels at one position, so the two commute, and so does the bias.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

from csa_deploy.graph.facts import constant
from csa_deploy.graph.rewrite import fresh_name, inherit, pattern_rule
from csa_deploy.graph.rules.affine_before import pads
from csa_deploy.graph.shapes import static_shape


def _conv_of_resize(op: Any, x: Any) -> Any:
    return op.Conv(
        op.Resize(x, _allow_other_inputs=True, _outputs=["first"]), _allow_other_inputs=True, _outputs=["out"]
    )


def _resize_of_conv(op: Any, x: Any) -> Any:
    return op.Resize(
        op.Conv(x, _allow_other_inputs=True, _outputs=["first"]), _allow_other_inputs=True, _outputs=["out"]
    )


def _enlarges(context: Any, x: ir.Value, first: ir.Value, out: ir.Value) -> bool:
    return _commute(conv=out, resize=first) and _positions(x) < _positions(first)


def _shrinks(context: Any, x: ir.Value, first: ir.Value, out: ir.Value) -> bool:
    return _commute(conv=first, resize=out) and _positions(out) < _positions(first)


def _conv_first(op: Any, x: ir.Value, first: ir.Value, out: ir.Value) -> ir.Value:
    resize, conv = first.producer(), out.producer()
    small, large = static_shape(x), static_shape(out)
    assert resize is not None and conv is not None and small is not None and large is not None
    names = [_name_at(conv, small)]
    moved = op.Conv(x, *conv.inputs[1:], _name=conv.name, _outputs=names, **conv.attributes)
    inherit(moved, conv, shape=(small[0], large[1], *small[2:]))
    return _resized(op, resize, moved, large)


def _resize_first(op: Any, x: ir.Value, first: ir.Value, out: ir.Value) -> ir.Value:
    conv, resize = first.producer(), out.producer()
    before, after = static_shape(x), static_shape(out)
    assert resize is not None and conv is not None and before is not None and after is not None
    moved = _resized(op, resize, x, (*before[:2], *after[2:]))
    moved.name = _name_at(conv, after)
    return inherit(op.Conv(moved, *conv.inputs[1:], _name=conv.name, **conv.attributes), conv, shape=after)


def _name_at(maker: ir.Node, shape: tuple[int, ...]) -> str:
    """A name for what ``maker`` makes, at another resolution."""
    return f"{maker.outputs[0].name}_at_{'x'.join(str(size) for size in shape[2:])}"


def _commute(*, conv: ir.Value, resize: ir.Value) -> bool:
    """Whether the nodes that make these values are a pointwise convolution and a Resize of positions alone."""
    convolution, resizing = conv.producer(), resize.producer()
    assert convolution is not None and resizing is not None
    return _pointwise(convolution) and _mixes_positions(resizing)


def _pointwise(conv: ir.Node) -> bool:
    """Whether a convolution looks at one position at a time and keeps the number of positions."""
    weight = static_shape(conv.inputs[1])
    if weight is None or any(k != 1 for k in weight[2:]) or pads(conv):
        return False
    return all(stride == 1 for stride in conv.attributes.get_ints("strides", ()) or ())


def _mixes_positions(resize: ir.Node) -> bool:
    """Whether a Resize only mixes positions, by constant weights that sum to 1."""
    attributes = resize.attributes
    before, after = static_shape(resize.inputs[0]), static_shape(resize.outputs[0])
    if before is None or after is None or before[:2] != after[:2] or len(before) < 3:
        return False
    if attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return False  # outside the crop it writes a constant
    if attributes.get_string("mode", "nearest") not in ("nearest", "linear"):
        return False
    return len(resize.inputs) < 4 or constant(resize.inputs[3]) is not None


def _resized(op: Any, resize: ir.Node, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """``resize`` applied to ``x``, whose number of channels may be another than before."""
    inputs = list(resize.inputs[1:])
    if len(inputs) > 2 and inputs[2] is not None and "axes" not in resize.attributes:
        assert resize.graph is not None
        sizes = ir.tensor(np.array(shape, np.int64))
        inputs[2] = op.initializer(sizes, name=fresh_name(resize.graph, f"{resize.name}.sizes"))
    return inherit(op.Resize(x, *inputs, _name=resize.name, **resize.attributes), resize, shape=shape)


def _positions(value: ir.Value) -> float:
    shape = static_shape(value)
    return math.inf if shape is None else math.prod(shape[2:])


RULE = pattern_rule(
    "conv_across_resize",
    "move 1x1 convolutions to the side of a Resize that has fewer positions",
    [
        RewriteRule(_conv_of_resize, _conv_first, _enlarges, name="ConvBeforeResize"),
        RewriteRule(_resize_of_conv, _resize_first, _shrinks, name="ConvAfterResize"),
    ],
)
