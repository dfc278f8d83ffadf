"""Rewrites a Q/DQ graph so that ONNX Runtime computes it as an INT8 engine does: INT32 sums, one rescale, one rounding.

The Q/DQ graph as it stands is *fake quantization*: ONNX Runtime multiplies the dequantized values in floating point
and rounds every tensor between them. An engine adds up integers, and what follows the sums up to the next
quantization runs in the same kernel, in FP32 (S. Migacz, "8-bit Inference with TensorRT", GTC 2017):

    q = saturate(round(float(sum) * (s_x * s_w[c] / s_y) + bias[c] / s_y))

The result is an ordinary graph of ONNX's own operators: ConvInteger, MatMulInteger, Cast, Mul, Add, QuantizeLinear.

Integers are unsigned here, shifted by 128 with 128 as their zero point, weights too. On a CPU without VNNI, ONNX
Runtime's kernels of other combinations add pairs of products in 16 bits, which saturate; two unsigned operands are
widened first, and so exact on every CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from csa_deploy.graph.facts import add_initializer
from csa_deploy.graph.int8_operands import SHIFT, Operand, Operands, RefusedError, known, own_op
from csa_deploy.graph.names import Names
from csa_deploy.graph.operators import MOVES, QUANTIZERS
from csa_deploy.graph.shapes import editable, infer_shapes

Rounding = Literal["gpu", "dla"]
LARGEST_EXACT = 2**24
"""Integers up to here are FP32 numbers, and so are sums of them, in any order."""

NOT_MODELLED: dict[Rounding, tuple[str, ...]] = {
    "gpu": (
        "whether a kernel rounds between its multiplication and its addition: here it does",
        "tactics that round halves otherwise than to even, by size of the kernel (TensorRT 3009)",
    ),
    "dla": (
        "DLA's rescale, which in the published NVDLA is an integer and a shift: here it is FP32",
        "rounding inside DLA other than that of halves",
    ),
}
"""Rules of the hardware that no source states, by arithmetic."""

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BELOW_HALF = np.nextafter(np.float32(0.5), np.float32(0))  # 0.5 would lift the number below 0.5 to 1


@dataclass(frozen=True)
class IntegerGraph:
    """A graph in integer arithmetic.

    Attributes:
        model: for ONNX Runtime's CPU provider; floating-point tensors keep their names.
        layers: nodes with integer sums.
        fused: of these, those from whose sums a quantized tensor is made at once.
        not_modelled: what computes otherwise than in an engine, or may.
    """

    model: onnx.ModelProto
    layers: tuple[str, ...]
    fused: tuple[str, ...]
    not_modelled: tuple[str, ...]


def to_integer(model: onnx.ModelProto, rounding: Rounding) -> IntegerGraph:
    """The graph in the arithmetic of an INT8 engine.

    Args:
        model: with Q/DQ; not changed.
        rounding: ``gpu`` rounds halves to even, ``dla`` away from zero.
    """
    view = editable(model)
    infer_shapes(view)
    writer = _Writer(view.graph, rounding)
    writer.apply()
    RemoveUnusedNodesPass()(view)
    view.graph.sort()
    reasons = (*writer.refused, *_floating(view.graph), *NOT_MODELLED[rounding])
    return IntegerGraph(ir.to_proto(view), tuple(writer.layers), tuple(writer.fused), reasons)


def _floating(graph: ir.Graph) -> Iterator[str]:
    """What computes in floating point on dequantized values, where an engine may compute in INT8."""
    counts = Counter(
        node.op_type
        for node in graph
        if node.op_type not in (*QUANTIZERS, *_LAYERS, *MOVES, "MaxPool")
        and any(own_op(v.producer(), "DequantizeLinear") for v in node.inputs if v is not None)
    )
    if counts:
        listed = ", ".join(f"{count} {op}" for op, count in sorted(counts.items()))
        yield f"{listed}: in floating point on dequantized values, as the graph's types state"


class _Writer:
    """Rewrites a graph in place."""

    def __init__(self, graph: ir.Graph, rounding: Rounding) -> None:
        self.graph, self.rounding = graph, rounding
        self.layers: list[str] = []
        self.fused: list[str] = []
        self.refused: list[str] = []
        self._names = Names(graph)
        self._shift = self._constant("int8_shift", np.uint8(SHIFT))
        self._one = self._constant("int8_one", np.float32(1))
        self._operands = Operands(self._node, self._constant, self._shift)
        self._quantizers: dict[ir.Node, np.ndarray] = {}

    def apply(self) -> None:
        """Quantized tensors first, so that layers find their operands; layers then take over what they quantize."""
        for node in self.graph:
            if not own_op(node, "QuantizeLinear"):
                continue
            if (scale := self._operands.shifted(node)) is not None:
                self._quantizers[node] = scale
            elif self.rounding == "dla" and known(node.inputs[0]) is None:
                self.refused.append(f"QuantizeLinear '{node.name}' rounds halves to even: it is not symmetric INT8")
        for node in list(self.graph):
            if own_op(node, *_LAYERS):
                self._layer(node)
        for node, scale in self._quantizers.items():
            value = self._float(node.inputs[0], f"{node.name}_float")
            if self.rounding == "gpu":
                self._round(node, value, self._constant(f"{node.name}_scale", scale.astype(np.float32)))
            else:
                self._round(node, self._binary("Div", value, scale, f"{node.name}_steps"), self._one)

    def _layer(self, node: ir.Node) -> None:
        """Give a layer integer sums, and what is quantized behind it and what is not their own values of these."""
        found = [self._operands.source(value) for value in node.inputs[:2]]
        if not any(found):
            return
        try:
            if not all(found):
                raise RefusedError("one operand is in floating point")
            first, second = (self._operands.of(value) for value in node.inputs[:2])
            bias, scales = _bias(node), _scales(node, first, second)
            sums = self._sums(node, first, second)
        except RefusedError as reason:
            self.refused.append(f"{node.op_type} '{node.name}' stays in floating point: {reason}")
            return
        self.layers.append(str(node.name))
        endings = list(self._endings(node.outputs[0]))
        for quantizer, path in endings:
            step = self._quantizers.pop(quantizer)
            value = self._rescaled(node, sums, scales / step, None if bias is None else bias / step)
            for follower in path:
                value = self._follow(follower, value, step)
            self._round(quantizer, value, self._one)
        self.fused += [str(node.name)] if endings else []
        self._replace(node.outputs[0], self._rescaled(node, sums, scales, bias))

    def _sums(self, node: ir.Node, first: Operand, second: Operand) -> ir.Value:
        """The sums as FP32, to which integers beyond 2^24 are rounded, half to even."""
        name, attributes = str(node.name), dict(node.attributes)
        if node.op_type == "ConvTranspose":  # ONNX has no integer one; FP32 is as exact where sums stay small
            largest = second.largest_sum((0, *range(2, len(node.inputs[1].shape or ()))))  # type: ignore[union-attr]
            if largest is None or largest > LARGEST_EXACT:
                raise RefusedError("its sums may exceed 2^24, and ONNX has no transposed convolution of integers")
            shift, one = self._shift, self._one
            plain = [
                self._node("DequantizeLinear", [o.value, one, shift], f"{name}_operand{n}", ir.DataType.FLOAT)
                for n, o in enumerate((first, second))
            ]
            return self._node(node.op_type, plain, f"{name}_sums", ir.DataType.FLOAT, attributes)
        operands = [first.value, second.value]
        if node.op_type == "Gemm":
            needed = {"alpha": 1.0, "beta": 1.0, "transA": 0}
            if others := [k for k, a in attributes.items() if k in needed and a.value != needed[k]]:
                raise RefusedError(f"{', '.join(others)} is set")
            if attributes.pop("transB", ir.AttrInt64("transB", 0)).value:
                operands[1] = self._node("Transpose", operands[1:], f"{name}_transposed", ir.DataType.UINT8)
            attributes = {}
        op = "ConvInteger" if node.op_type == "Conv" else "MatMulInteger"
        shifts = [self._shift, self._shift]
        sums = self._node(op, [*operands, *shifts], f"{name}_sums_int32", ir.DataType.INT32, attributes)
        return self._float(sums, f"{name}_sums")

    def _rescaled(self, node: ir.Node, sums: ir.Value, scales: np.ndarray, bias: np.ndarray | None) -> ir.Value:
        name = str(node.name)
        value = self._binary("Mul", sums, scales, f"{name}_rescaled")
        return value if bias is None else self._binary("Add", value, bias, f"{name}_biased")

    def _endings(self, value: ir.Value) -> Iterator[tuple[ir.Node, list[ir.Node]]]:
        """Quantizations of a layer's result in its own kernel, each with the nodes before it."""
        for user, index in value.uses():
            if user in self._quantizers and index == 0:
                yield user, []
            elif self._follows(user, index):
                for quantizer, path in self._endings(user.outputs[0]):
                    yield quantizer, [user, *path]

    def _follows(self, node: ir.Node, index: int) -> bool:
        """Whether a reader of a layer's result runs in the layer's kernel: see ``qdq_placement`` for the addition."""
        if own_op(node, "Clip"):  # before opset 11 its limits are attributes
            limits = [value for value in node.inputs[1:] if value is not None]
            return index == 0 and not node.attributes and all(known(value) is not None for value in limits)
        if own_op(node, "Add"):
            other = node.inputs[1 - index]
            return known(other) is not None or self._operands.quantized(other) is not None
        return own_op(node, "Relu")

    def _follow(self, node: ir.Node, value: ir.Value, step: np.ndarray) -> ir.Value:
        """A node behind a layer, on values in steps of the result."""
        name = f"{node.name}_in_steps"
        if node.op_type == "Add":
            other = next(v for v in node.inputs if known(v) is not None or self._operands.quantized(v) is not None)
            if (array := known(other)) is not None:
                return self._binary("Add", value, array / step, name)
            operand = self._operands.of(other)
            scale = self._constant(f"{name}_scale", (operand.scales / step).astype(np.float32))
            inputs = [operand.value, scale, self._shift]
            skipped = self._node("DequantizeLinear", inputs, f"{name}_skipped", ir.DataType.FLOAT)
            return self._node("Add", [value, skipped], name, ir.DataType.FLOAT)
        limits = [
            None if v is None else self._constant(f"{name}_limit", _within_fp32(known(v) / step))
            for v in node.inputs[1:]
        ]
        return self._node(node.op_type, [value, *limits], name, ir.DataType.FLOAT)

    def _round(self, quantizer: ir.Node, value: ir.Value, scale: ir.Value) -> None:
        """Let a Q node quantize another value; it rounds halves to even and saturates."""
        name = str(quantizer.name)
        if self.rounding == "dla":
            size = self._binary("Add", self._node("Abs", [value], f"{name}_abs"), _BELOW_HALF, f"{name}_lifted")
            sign = self._node("Sign", [value], f"{name}_sign")
            value = self._node("Mul", [self._node("Floor", [size], f"{name}_floor"), sign], f"{name}_away")
        quantizer.replace_input_with(0, value)
        quantizer.replace_input_with(1, scale)

    def _replace(self, old: ir.Value, value: ir.Value) -> None:
        """Let a value take another's name and readers, in its type."""
        if old.dtype not in (None, ir.DataType.FLOAT):
            value = self._node("Cast", [value], f"{old.name}_cast", old.dtype, {"to": ir.AttrInt64("to", old.dtype)})
        for user, index in tuple(old.uses()):
            user.replace_input_with(index, value)
        if old.is_graph_output():
            self.graph.outputs[self.graph.outputs.index(old)] = value
        value.name, old.name = old.name, self._names.unused(f"{old.name}_floating")
        value.shape = old.shape

    def _float(self, value: ir.Value | None, name: str) -> ir.Value:
        assert value is not None
        if value.dtype == ir.DataType.FLOAT:
            return value
        to = {"to": ir.AttrInt64("to", ir.DataType.FLOAT)}
        return self._node("Cast", [value], name, ir.DataType.FLOAT, to)

    def _binary(self, op: str, value: ir.Value, array: Any, name: str) -> ir.Value:
        constant = self._constant(f"{name}_by", np.asarray(array, np.float32))
        return self._node(op, [value, constant], name, ir.DataType.FLOAT)

    def _constant(self, name: str, array: np.ndarray | np.generic) -> ir.Value:
        return add_initializer(self.graph, self._names.unused(name), array)

    def _node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        dtype: ir.DataType = ir.DataType.FLOAT,
        attributes: dict[str, ir.Attr] | None = None,
    ) -> ir.Value:
        name = self._names.unused(name)
        output = ir.Value(name=name, type=ir.TensorType(dtype))
        self.graph.append(ir.node(op, inputs, attributes, name=name, outputs=[output]))
        return output


def _within_fp32(limit: np.ndarray) -> np.ndarray:
    """A limit in FP32; the largest number that there is in FP32 stays, where it is more than that."""
    largest = float(np.finfo(np.float32).max)
    return np.clip(limit, -largest, largest).astype(np.float32)


def _bias(node: ir.Node) -> np.ndarray | None:
    """A layer's bias in FP64, shaped to broadcast; None where it has none."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return None
    array = known(value)
    if array is None:
        raise RefusedError("its bias is no constant")
    return array.reshape(-1, *[1] * (_rank(node) - 2)) if node.op_type.startswith("Conv") else array


def _scales(node: ir.Node, first: Operand, second: Operand) -> np.ndarray:
    """Factor of the sums in FP64, one per output channel, shaped to broadcast."""
    own = second.scales
    if first.scales.ndim:
        raise RefusedError("its first operand has several scales")
    if own.ndim:
        channels = 0 if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1 else _rank(node) - 1
        channels = {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, channels)
        grouped = node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1
        if _rank(node) == 1 or second.axis != channels or grouped:  # a vector's one axis is summed over
            raise RefusedError("the scales of its weight are not those of output channels")
        if node.op_type.startswith("Conv"):
            own = own.reshape(-1, *[1] * (_rank(node) - 2))
    return np.asarray(first.scales * own)


def _rank(node: ir.Node) -> int:
    """Number of dimensions of a layer's weight."""
    value = node.inputs[1]
    assert value is not None
    if value.shape is None:
        raise RefusedError("the shape of its weight is not known")
    return len(value.shape)
