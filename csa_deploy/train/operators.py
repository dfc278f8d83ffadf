"""The ONNX operators that fine-tuning computes, each with all that it understands of them.

What is not listed here is refused: an operator, an attribute or its value, an input, an opset. A node is prepared once,
with the static shapes of its inputs; what comes out computes it for any number of images. The images lie along the
first axis, so an operator that would move, split or mix that axis is refused as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from csa_deploy.errors import UsageError

OPSETS = range(13, 24)  # those whose definitions of the operators below are tested against ONNX Runtime
Compute = Callable[..., Tensor]
Allowed = tuple[Any, ...] | None  # of an attribute: its values; None for any


@dataclass(frozen=True)
class TorchValue:
    """A tensor of the graph.

    Attributes:
        shape: static, with the graph's own batch.
        batched: whether its first axis are the images; constants have none.
    """

    shape: tuple[int, ...]
    batched: bool
    constant: np.ndarray | None = None


@dataclass(frozen=True)
class TorchNode:
    """A node with what is known of its inputs (None: an optional one that is not given)."""

    op: str
    name: str
    attributes: dict[str, Any]
    inputs: tuple[TorchValue | None, ...]

    def refused(self, reason: str) -> UsageError:
        """The error of a node that has no counterpart here."""
        return UsageError(
            f"fine-tuning cannot compute {self.op} {self.name or '(no name)'}: {reason}",
            fix="quantize the network without fine-tuning, or change that operation in it",
        )

    def value(self, index: int) -> TorchValue:
        """An input that has to be there."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise self.refused(f"input {index} is missing")
        return found

    def optional(self, index: int) -> TorchValue | None:
        """An input that may be missing, or be empty, which says the same."""
        found = self.inputs[index] if index < len(self.inputs) else None
        return None if found is not None and 0 in found.shape else found

    def numbers(self, index: int) -> list[Any] | None:
        """An optional input's numbers, which have to be constant: shapes, sizes and scales."""
        found = self.optional(index)
        if found is None:
            return None
        if found.constant is None:
            raise self.refused(f"input {index} is computed, and has to be constant")
        return found.constant.reshape(-1).tolist()

    def demand(self, condition: bool, reason: str) -> None:
        """Refuse the node unless the condition holds."""
        if not condition:
            raise self.refused(reason)


@dataclass(frozen=True)
class Operator:
    """What is understood of an operator: its attributes with their values, its inputs, and how to compute it."""

    prepare: Callable[[TorchNode], Compute]
    inputs: range
    attributes: dict[str, Allowed]

    def prepared(self, node: TorchNode) -> Compute:
        """The computation of a node; raises UsageError for one that would be another function."""
        node.demand(len(node.inputs) in self.inputs, f"it has {len(node.inputs)} inputs")
        for name, value in node.attributes.items():
            node.demand(name in self.attributes, f"the attribute {name} is not known here")
            allowed = self.attributes[name]
            said = value.decode(errors="replace") if isinstance(value, bytes) else value
            node.demand(allowed is None or value in allowed, f"{name} {said} is not known here")
        return self.prepare(node)


def _elementwise(compute: Compute) -> Callable[[TorchNode], Compute]:
    """Of two tensors that broadcast, where the images have to keep the first axis."""

    def prepare(node: TorchNode) -> Compute:
        values = [node.value(0), node.value(1)]
        rank = max(len(value.shape) for value in values)
        if any(value.batched for value in values):
            for value in values:
                if value.batched:
                    node.demand(len(value.shape) == rank, "it broadcasts the axis of the images")
                else:
                    node.demand(len(value.shape) < rank or value.shape[0] == 1, "a constant for each image of a batch")
        return compute

    return prepare


def _unary(compute: Compute) -> Callable[[TorchNode], Compute]:
    return lambda node: compute


def _window(node: TorchNode, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, pads and dilations of two axes; pads alike on both sides."""
    node.demand(len(node.value(0).shape) == 4 and len(kernel) == 2, "only two-dimensional windows are known here")
    pads = list(node.attributes.get("pads", [0, 0, 0, 0]))
    node.demand(len(pads) == 4 and pads[:2] == pads[2:] and min(pads) >= 0, f"only symmetric padding, not pads {pads}")
    strides, dilations = (list(node.attributes.get(name, [1, 1])) for name in ("strides", "dilations"))
    node.demand(len(strides) == len(dilations) == 2 and min(strides + dilations) >= 1, "strides or dilations of 2 axes")
    return strides, pads[:2], dilations


def _convolution(node: TorchNode) -> Compute:
    weight, bias = node.value(1), node.inputs[2] if len(node.inputs) > 2 else None
    node.demand(node.value(0).batched and not weight.batched, "its weight is computed")
    node.demand(bias is None or not bias.batched, "its bias is computed")
    kernel = list(weight.shape[2:])
    node.demand(list(node.attributes.get("kernel_shape", kernel)) == kernel, "kernel_shape is not the weight's")
    strides, padding, dilations = _window(node, kernel)
    groups = node.attributes.get("group", 1)

    def compute(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.conv2d(x, w, b, strides, padding, dilations, groups)

    return compute


def _average_pool(node: TorchNode) -> Compute:
    kernel = list(node.attributes.get("kernel_shape", []))
    strides, padding, dilations = _window(node, kernel)
    node.demand(dilations == [1, 1], f"dilations {dilations}")
    node.demand(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)), "padding beyond half of the window")
    if node.attributes.get("ceil_mode", 0):
        extents = node.value(0).shape[2:]
        rest = [(n + 2 * p - k) % s for n, p, k, s in zip(extents, padding, kernel, strides, strict=True)]
        node.demand(rest == [0, 0], "ceil_mode with a window that reaches beyond the padding")
    counted = bool(node.attributes.get("count_include_pad", 0))
    return lambda x: F.avg_pool2d(x, kernel, strides, padding, ceil_mode=False, count_include_pad=counted)


def _global_average(node: TorchNode) -> Compute:
    rank = len(node.value(0).shape)
    node.demand(rank >= 3, "there is nothing to average over")
    return lambda x: x.mean(tuple(range(2, rank)), keepdim=True)


def _flatten(node: TorchNode) -> Compute:
    value, axis = node.value(0), int(node.attributes.get("axis", 1))
    axis += len(value.shape) if axis < 0 else 0
    if not value.batched:
        rows = math.prod(value.shape[:axis])
        return lambda x: x.reshape(rows, -1)
    node.demand(axis == 1, f"axis {axis} mixes the images of a batch")
    return lambda x: x.reshape(x.shape[0], -1)


def _gemm(node: TorchNode) -> Compute:
    left, right, added = node.value(0), node.value(1), node.inputs[2] if len(node.inputs) > 2 else None
    node.demand(len(left.shape) == len(right.shape) == 2, "its inputs are no matrices")
    turned = [bool(node.attributes.get(name, 0)) for name in ("transA", "transB")]
    node.demand(left.batched and not turned[0] and not right.batched, "the images are not the rows of its first input")
    if added is not None:
        rank = len(added.shape)
        node.demand(rank <= 2 and (rank == 2 or not added.batched), "its third input does not go row by row")
        node.demand(rank < 2 or added.batched or added.shape[0] == 1, "a constant for each image of a batch")
    alpha, beta = float(node.attributes.get("alpha", 1.0)), float(node.attributes.get("beta", 1.0))

    def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = alpha * (a @ (b.mT if turned[1] else b))
        return product if c is None else product + beta * c

    return compute


def _matmul(node: TorchNode) -> Compute:
    values = [node.value(0), node.value(1)]
    ranks = [len(value.shape) for value in values]
    node.demand(min(ranks) >= 1, "it has no axis to sum over")
    if any(value.batched for value in values):
        # The last axis of the left and the last but one of the right are summed over, so the images need one more.
        least = (2, 3)
        for value, rank, enough in zip(values, ranks, least, strict=True):
            if value.batched:
                node.demand(rank >= enough and rank == max(ranks), "the images are not the first axis of its result")
            else:
                node.demand(rank < max(ranks) or rank < 3 or value.shape[0] == 1, "a constant for each image")
    return torch.matmul


def _reshape(node: TorchNode) -> Compute:
    value, wanted = node.value(0), node.numbers(1)
    node.demand(wanted is not None, "to a scalar")
    assert wanted is not None
    shape = list(value.shape)
    node.demand(0 not in wanted or not node.attributes.get("allowzero", 0), "to a shape without elements")
    node.demand(all(i < len(shape) for i, n in enumerate(wanted) if n == 0), f"to {wanted}")
    target = [shape[i] if n == 0 else int(n) for i, n in enumerate(wanted)]
    known = math.prod(n for n in target if n != -1)
    node.demand(target.count(-1) <= 1 and known > 0 and math.prod(shape) % known == 0, f"{shape} to {wanted}")
    target = [math.prod(shape) // known if n == -1 else n for n in target]
    node.demand(math.prod(target) == math.prod(shape), f"{shape} to {wanted}")
    if not value.batched:
        return lambda x, _: x.reshape(target)
    node.demand(target[0] == shape[0], f"{shape} to {target} moves the axis of the images")
    return lambda x, _: x.reshape(x.shape[0], *target[1:])


def _resize(node: TorchNode) -> Compute:
    value = node.value(0)
    node.demand(node.attributes.get("mode") == b"linear" and len(value.shape) == 4, "only bilinear resizes are known")
    axes = [int(axis) % 4 for axis in node.attributes.get("axes", range(4))]
    scales, sizes = node.numbers(2), node.numbers(3)
    given = sizes if scales is None else scales
    node.demand((scales is None) != (sizes is None) and len(given or ()) == len(axes), "one of scales and sizes")
    assert given is not None
    by_axis = dict(zip(axes, given, strict=True))
    if scales is None:
        height, width = (int(by_axis.get(axis, value.shape[axis])) for axis in (2, 3))
        node.demand(all(by_axis.get(a, value.shape[a]) == value.shape[a] for a in (0, 1)), "only height and width")
        return lambda x, *_: F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    factors = [float(by_axis.get(axis, 1.0)) for axis in range(4)]
    node.demand(factors[:2] == [1.0, 1.0], "only height and width")
    for extent, factor in zip(value.shape[2:], factors[2:], strict=True):
        # Runtimes multiply in float32, PyTorch in float64; where they differ the maps have other sizes.
        alike = math.floor(np.float32(extent) * np.float32(factor)) == math.floor(extent * factor)
        node.demand(alike, f"{extent} pixels scaled by {factor:g} have no certain size")

    def compute(x: Tensor, *_: Tensor | None) -> Tensor:
        return F.interpolate(
            x, scale_factor=factors[2:], mode="bilinear", align_corners=False, recompute_scale_factor=False
        )

    return compute


def _transpose(node: TorchNode) -> Compute:
    value = node.value(0)
    order = [int(axis) for axis in node.attributes.get("perm", range(len(value.shape) - 1, -1, -1))]
    node.demand(sorted(order) == list(range(len(value.shape))), f"perm {order}")
    node.demand(not value.batched or order[0] == 0, f"perm {order} moves the axis of the images")
    return lambda x: x.permute(order)


_WINDOW: dict[str, Allowed] = {"kernel_shape": None, "strides": None, "pads": None, "auto_pad": (b"NOTSET",)}

OPERATORS: dict[str, Operator] = {
    "Add": Operator(_elementwise(torch.add), range(2, 3), {}),
    "AveragePool": Operator(
        _average_pool,
        range(1, 2),
        {**_WINDOW, "count_include_pad": (0, 1), "ceil_mode": (0, 1), "dilations": None},
    ),
    "Conv": Operator(_convolution, range(2, 4), {**_WINDOW, "dilations": None, "group": None}),
    "Flatten": Operator(_flatten, range(1, 2), {"axis": None}),
    "Gemm": Operator(_gemm, range(2, 4), {"alpha": None, "beta": None, "transA": (0, 1), "transB": (0, 1)}),
    "GlobalAveragePool": Operator(_global_average, range(1, 2), {}),
    "MatMul": Operator(_matmul, range(2, 3), {}),
    "Mul": Operator(_elementwise(torch.mul), range(2, 3), {}),
    "Relu": Operator(_unary(F.relu), range(1, 2), {}),
    "Reshape": Operator(_reshape, range(2, 3), {"allowzero": (0, 1)}),
    "Resize": Operator(
        _resize,
        range(2, 5),
        {
            "mode": (b"linear",),
            "coordinate_transformation_mode": (b"half_pixel",),  # also the default
            "antialias": (0,),
            "axes": None,
            "exclude_outside": (0,),
            "keep_aspect_ratio_policy": (b"stretch",),
            # Of other modes; a bilinear resize with half-pixel centres does not read them.
            "cubic_coeff_a": None,
            "extrapolation_value": None,
            "nearest_mode": None,
        },
    ),
    "Sigmoid": Operator(_unary(torch.sigmoid), range(1, 2), {}),
    "Transpose": Operator(_transpose, range(1, 2), {"perm": None}),
}
