"""What a Q/DQ graph holds in INT8: quantized tensors and weights, as the operands of integer kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import constant_tensor, is_constant
from csa_deploy.graph.operators import MOVES, ONNX_DOMAINS

SHIFT = 128
"""What is added to an INT8 number to make it unsigned."""

_PASSES = (MOVES - {"Concat"}) | {"MaxPool"}


class RefusedError(Exception):
    """Why a layer cannot be computed in integers; it then stays as it is."""


@dataclass(frozen=True)
class Operand:
    """One operand of a layer.

    Attributes:
        value: its integers, shifted, in UINT8.
        scales: in FP64, a scalar or one per extent of ``axis``.
        axis: of the scales.
        weight: the integers themselves where they are stored.
    """

    value: ir.Value
    scales: np.ndarray
    axis: int = 0
    weight: np.ndarray | None = None

    def largest_sum(self, axes: tuple[int, ...]) -> int | None:
        """The largest sum of products along axes of a stored weight that any data can make; None where none is."""
        if self.weight is None:
            return None
        return int(np.abs(self.weight.astype(np.int64)).sum(axes).max()) * SHIFT


def own_op(node: ir.Node | None, *ops: str) -> bool:
    """Whether a node is one of ONNX's own operators."""
    return node is not None and node.op_type in ops and node.domain in ONNX_DOMAINS


def known(value: ir.Value | None) -> np.ndarray | None:
    """A constant in FP64, dequantized where it is stored in integers; None for what is no constant."""
    tensor = constant_tensor(value)
    if tensor is not None:
        return tensor.numpy().astype(np.float64)
    node = value.producer() if value is not None else None
    if node is None or not own_op(node, "DequantizeLinear"):
        return None
    integers, scaled = constant_tensor(node.inputs[0]), quantization(node)
    if integers is None or isinstance(scaled, str):
        return None
    return integers.numpy() * _along(scaled, integers.numpy().ndim)


def _along(scaled: tuple[np.ndarray, int], rank: int) -> np.ndarray:
    scales, axis = scaled
    return scales.reshape([-1 if i == axis else 1 for i in range(rank)]) if scales.ndim else scales


def quantization(node: ir.Node) -> tuple[np.ndarray, int] | str:
    """Scales in FP64 and their axis of a Q or DQ node of signed integers with zero point 0, or why there are none."""
    tensor = constant_tensor(node.inputs[1])
    integers = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    if tensor is None:
        return "a scale is no constant"
    if integers is None or integers.dtype not in (ir.DataType.INT8, ir.DataType.INT32):
        return "an operand is not in INT8"
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and ((found := constant_tensor(zero)) is None or np.any(found.numpy())):
        return "a zero point is not 0"
    scales = tensor.numpy().astype(np.float64)
    if scales.size == 1:
        return scales.reshape(()), 0
    if scales.ndim != 1:
        return "scales stand for blocks"
    axis = node.attributes.get_int("axis", 1) or 0
    return scales, axis % len(integers.shape or (0,))


class Operands:
    """Finds and makes the operands of integer kernels.

    Args:
        node: adds a node to the graph and returns its output.
        constant: adds an initializer.
        shift: the zero point of shifted integers.
    """

    def __init__(
        self, node: Callable[..., ir.Value], constant: Callable[[str, np.ndarray], ir.Value], shift: ir.Value
    ) -> None:
        self._node, self._constant, self._shift = node, constant, shift
        self._made: dict[ir.Value, Operand] = {}
        self._shifted: dict[ir.Value, np.ndarray] = {}

    def shifted(self, quantizer: ir.Node) -> np.ndarray | None:
        """Let a quantized tensor be unsigned for all its readers; its scale in FP64, None where it has to stay."""
        value, found = quantizer.outputs[0], quantization(quantizer)
        readers = [user for user, _ in value.uses()]
        if isinstance(found, str) or found[0].ndim or is_constant(_given(quantizer.inputs[0])):
            return None
        if value.is_graph_output() or not all(own_op(user, "DequantizeLinear") for user in readers):
            return None
        if any(isinstance(other := quantization(user), str) or other[0].ndim for user in readers):
            return None
        for user in readers:
            self._made[user.outputs[0]] = Operand(value, quantization(user)[0])  # type: ignore[arg-type]
        for user in (quantizer, *readers):
            user.resize_inputs(3)
            user.replace_input_with(2, self._shift)
        quantizer.attributes.pop("output_dtype", None)
        value.dtype = ir.DataType.UINT8
        return found[0]

    def source(self, value: ir.Value | None) -> ir.Node | None:
        """The DQ node that a value comes from, through nodes that only move values; None where there is none."""
        while value is not None:
            maker = value.producer()
            if own_op(maker, "DequantizeLinear"):
                return maker
            if maker is None or not own_op(maker, *_PASSES):
                return None
            value = maker.inputs[0]
        return None

    def quantized(self, value: ir.Value | None) -> Operand | None:
        """The operand that a value dequantizes, where it is one of the tensors that were shifted."""
        return self._made.get(value) if value is not None else None

    def of(self, value: ir.Value | None) -> Operand:
        """The operand of a value with a :meth:`source`.

        Raises:
            RefusedError: its quantization is not symmetric INT8 with scales that are known ahead.
        """
        if _given(value) not in self._made:
            self._made[_given(value)] = self._weight(_given(value)) or self._again(_given(value))
        return self._made[_given(value)]

    def _weight(self, value: ir.Value) -> Operand | None:
        """A stored weight; one in floating point behind Q and DQ as a builder rounds it."""
        node = value.producer()
        if node is None or not own_op(node, "DequantizeLinear"):
            return None
        integers, scaled = node.inputs[0], _symmetric(node)
        stored = constant_tensor(integers)
        array = None if stored is None else stored.numpy()
        maker = _given(integers).producer()
        exact = constant_tensor(maker.inputs[0]) if maker is not None and own_op(maker, "QuantizeLinear") else None
        if maker is not None and exact is not None:
            steps = exact.numpy().astype(np.float64) / _along(_symmetric(maker), len(exact.shape))
            array = np.clip(np.rint(steps), -SHIFT, SHIFT - 1).astype(np.int8)
        if array is None:
            return None
        shifted = self._constant(f"{value.name}_shifted", (array.astype(np.int16) + SHIFT).astype(np.uint8))
        return Operand(shifted, *scaled, array)

    def _again(self, value: ir.Value) -> Operand:
        """A dequantized tensor that was moved, quantized once more: that gives the same integers."""
        node = self.source(value)
        assert node is not None
        before = self._made.get(node.outputs[0])
        scales = before.scales if before else _symmetric(node)[0]
        if scales.ndim:
            raise RefusedError("an operand that is no stored weight has several scales")
        if value.dtype != ir.DataType.FLOAT:
            to = {"to": ir.AttrInt64("to", ir.DataType.FLOAT)}
            value = self._node("Cast", [value], f"{value.name}_float", ir.DataType.FLOAT, to)
        inputs = [value, self._constant(f"{value.name}_step", scales.astype(np.float32)), self._shift]
        return Operand(self._node("QuantizeLinear", inputs, f"{value.name}_shifted", ir.DataType.UINT8), scales)


def _symmetric(node: ir.Node) -> tuple[np.ndarray, int]:
    found = quantization(node)
    if isinstance(found, str):
        raise RefusedError(found)
    if ir.DataType.INT8 not in (_given(node.inputs[0]).dtype, node.outputs[0].dtype):
        raise RefusedError("an operand is in INT32")
    return found


def _given(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
