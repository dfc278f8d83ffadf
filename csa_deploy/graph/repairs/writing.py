"""What repairs that write several nodes in place of one share: nodes under its module path, maps of four dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.rewrite import DeclinedError, inherit, new_constant
from csa_deploy.graph.shapes import static_shape

_LARGEST_WEIGHT = 1 << 24


class Writer:
    """Appends nodes that stand for ``node``, each under its module path and a name of its own."""

    def __init__(self, op: Any, node: ir.Node) -> None:
        self._op, self._node, self._count = op, node, 0

    def add(self, op_type: str, *inputs: ir.Value, shape: Sequence[int], **attributes: Any) -> ir.Value:
        """A node whose output has this shape and the element type of ``node``'s."""
        made = self._op.op(op_type, *inputs, _name=f"{self._node.name}_{op_type.lower()}{self._count}", **attributes)
        value = inherit(made, self._node, shape=tuple(shape))
        value.name = f"{self._node.outputs[0].name}_{self._count}"
        self._count += 1
        return value

    def constant(self, array: np.ndarray, suffix: str) -> ir.Value:
        """An initializer."""
        return new_constant(self._op, self._node, array, f"{suffix}{self._count}")

    def reshape(self, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        """``x`` in another shape; ``x`` itself where it has that one."""
        if static_shape(x) == tuple(shape):
            return x
        return self.add("Reshape", x, self.constant(np.array(shape, np.int64), "shape"), shape=shape)

    def transpose(self, x: ir.Value, order: Sequence[int]) -> ir.Value:
        """``x`` with its axes in another order."""
        return self.add("Transpose", x, shape=[shape_of(x)[axis] for axis in order], perm=list(order))

    def as_map(self, x: ir.Value) -> ir.Value:
        """``x`` with dimensions of 1 behind its own, four in all.

        Raises:
            DeclinedError: it has more than four.
        """
        shape = shape_of(x)
        if len(shape) > 4:
            raise DeclinedError(f"has {len(shape)} dimensions, more than four")
        return self.reshape(x, (*shape, *(1,) * (4 - len(shape))))

    def swapped(self, x: ir.Value, axis: int) -> ir.Value:
        """A map whose channels and another axis change places; ``x`` itself where they are the same."""
        order = [0, 1, 2, 3]
        order[1], order[axis] = axis, 1
        return x if axis == 1 else self.transpose(x, order)

    def mixed(self, x: ir.Value, axis: int, weight: np.ndarray) -> ir.Value:
        """``weight`` (M, length of the axis) along an axis of a map, by a 1x1 convolution.

        Raises:
            DeclinedError: the weight would be too large.
        """
        if weight.size > _LARGEST_WEIGHT:
            raise DeclinedError(f"a 1x1 convolution of it would hold {weight.size:,} weights")
        assert x.dtype is not None
        channels = self.swapped(x, axis)
        kernel = self.constant(weight.astype(x.dtype.numpy())[..., None, None], "weight")
        batch, _, *sides = shape_of(channels)
        made = self.add(
            "Conv", channels, kernel, shape=(batch, len(weight), *sides),
            kernel_shape=[1, 1], strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1], group=1,
        )  # fmt: skip
        return self.swapped(made, axis)


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value of which it is known."""
    shape = static_shape(value)
    assert shape is not None
    return shape


def picking(indices: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """Rows of 0 and 1, (M, length), that pick positions of an axis."""
    return np.eye(length)[np.asarray(indices)]
