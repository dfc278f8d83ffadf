"""What is true of ONNX's operators: one table for every part that asks. A new operator is a row here.

Each trait is a statement about the numbers, held against ONNX's reference implementation by a test, but for
:attr:`Trait.INT8`, which is one about TensorRT. What only one rule asks stands with that rule.
"""

from __future__ import annotations

from enum import Flag, auto

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
QUANTIZED = (*QUANTIZERS, "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
"""Operators that only a quantized graph has."""

ONNX_DOMAINS = ("", "ai.onnx")
"""Both names of ONNX's own operators."""


class Trait(Flag):
    """What an operator does with the numbers of its data inputs."""

    MOVES = auto()
    """Each number of an output is one of the inputs'."""
    PERMUTES = auto()
    """Moves, and the output holds each number of its one input once."""
    VIEWS = auto()
    """Permutes, and the numbers stay in their order: no byte has to move."""
    SELECTS = auto()
    """Each number of the output is one of the inputs' or zero."""
    AVERAGES = auto()
    """Each number of the output is a mean of numbers of the input: none is larger than the largest."""
    GATE = auto()
    """Each number of the output lies in [-1, 1]; multiplied with a signal, it controls how much of it passes."""
    LINEAR = auto()
    """In each data input, the others fixed, the output is linear up to a constant."""
    HOMOGENEOUS = auto()
    """A positive factor on a channel of the data comes out as the same factor on that channel."""
    ELEMENTWISE = auto()
    """Of one input, each number by itself: shape and order do not matter."""
    WEIGHTED = auto()
    """Has trained weights as its second input."""
    MULTIPLIES = auto()
    """Sums up products of two operands: its work is counted in multiply-accumulates."""
    INT8 = auto()
    """TensorRT computes it in INT8 or moves quantization through it; see :mod:`csa_deploy.precision.qdq_placement`."""


_T = Trait
_MOVES, _ELEMENTWISE = _T.MOVES, _T.ELEMENTWISE
_PERMUTES = _MOVES | _T.PERMUTES
_VIEWS = _PERMUTES | _T.VIEWS
_LAYER = _T.LINEAR | _T.WEIGHTED | _T.MULTIPLIES | _T.INT8
_POOL = _T.AVERAGES | _T.LINEAR | _T.HOMOGENEOUS | _T.INT8

TRAITS: dict[str, Trait] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _LAYER),
    **dict.fromkeys(
        ("ConvInteger", "DeformConv", "Einsum", "MatMulInteger", "QLinearConv", "QLinearMatMul"), _T.MULTIPLIES
    ),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool"), _POOL),
    "MaxPool": _T.SELECTS | _T.HOMOGENEOUS | _T.INT8,
    "GlobalMaxPool": _T.SELECTS | _T.HOMOGENEOUS,
    "Relu": _T.SELECTS | _T.HOMOGENEOUS | _ELEMENTWISE,
    "LeakyRelu": _T.HOMOGENEOUS | _ELEMENTWISE,
    "PRelu": _T.HOMOGENEOUS,
    "Add": _T.INT8,
    **dict.fromkeys(("BatchNormalization", "Mul", "ReduceMean", "Resize"), _T.LINEAR),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _VIEWS),
    **dict.fromkeys(("Flatten", "Reshape"), _VIEWS | _T.INT8),
    "Identity": _VIEWS | _T.HOMOGENEOUS,
    "Transpose": _PERMUTES | _T.INT8,
    "Concat": _MOVES | _T.INT8,
    **dict.fromkeys(("Expand", "Gather", "GatherElements", "GatherND", "Slice", "Split", "Tile"), _MOVES),
    "Softmax": _T.GATE,
    **dict.fromkeys(("HardSigmoid", "Sigmoid", "Tanh"), _T.GATE | _ELEMENTWISE),
    **dict.fromkeys(
        (
            *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf"),
            *("Exp", "Floor", "Gelu", "HardSwish", "Log", "Mish", "Neg", "Reciprocal", "Round", "Selu", "Sign", "Sin"),
            *("Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "ThresholdedRelu"),
        ),
        _ELEMENTWISE,
    ),
}  # fmt: skip


def having(traits: Trait) -> frozenset[str]:
    """Operators that have one of the traits at least."""
    return frozenset(name for name, own in TRAITS.items() if own & traits)


GATES = having(Trait.GATE)
MOVES = having(Trait.MOVES)
POOLS = having(Trait.AVERAGES)
WEIGHTED = having(Trait.WEIGHTED)
