"""Random networks of one to three operators, drawn around the limits of the packs; only valid ONNX comes out.

``draw(seed)`` gives the same network for the same seed. Each kind is a function that takes the generator's ``Draw`` and
returns the nodes' operator, inputs and attributes; outputs are typed by onnx's own inference.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
TYPES = (
    *(TensorProto.FLOAT,) * 6,
    *(TensorProto.FLOAT16,) * 3,
    *(TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.BOOL, TensorProto.INT16, TensorProto.UINT32, TensorProto.FLOAT8E4M3FN),
)


@dataclass
class Draw:
    """One network in the making."""

    rng: np.random.Generator
    opset: int
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    count: int = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def one_of(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def often(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)

    def shape(self, rank: int, largest: int = 6) -> list[int]:
        return [self.number(1, largest) for _ in range(rank)]

    def input(self, shape: list[int], kind: int | None = None) -> str:
        made = helper.make_tensor_value_info(self.name("x"), self.kind() if kind is None else kind, shape)
        self.inputs.append(made)
        return made.name

    def kind(self) -> int:
        return int(self.one_of(*TYPES))

    def constant(self, array: Any, dtype: Any = np.int64) -> str:
        name = self.name("c")
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weights(self, shape: list[int], kind: int = TensorProto.FLOAT) -> str:
        name = self.name("w")
        data = np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind))
        self.constants.append(numpy_helper.from_array(data, name))
        return name

    def operand(self, values: list[int], run_time: float = 0.15) -> str:
        """Integers that shape something: mostly constant, sometimes a network input."""
        if self.often(run_time):
            return self.input([len(values)], TensorProto.INT64)
        return self.constant(values)

    def add(self, op: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> str:
        names = [self.name("y") for _ in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, inputs, names, name=self.name("n"), **given))
        return names[0]


Kind = Callable[[Draw], None]
KINDS: dict[str, Kind] = {}


def kind(function: Kind) -> Kind:
    KINDS[function.__name__] = function
    return function


def _window(d: Draw, spatial: int, kernels: tuple[int, ...], strides: tuple[int, ...]) -> dict[str, Any]:
    kernel = [int(d.one_of(*kernels)) for _ in range(spatial)]
    pads = [d.number(0, max(size - 1, 0)) if d.often(0.4) else 0 for size in kernel * 2]
    if d.often(0.1):
        pads = kernel * 2
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": [int(d.one_of(*strides)) for _ in range(spatial)]}
    mode = d.one_of("NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    return {**found, "pads": pads} if mode == "NOTSET" else {**found, "auto_pad": mode}


@kind
def pooling(d: Draw) -> None:
    op, spatial = d.one_of("MaxPool", "AveragePool", "AveragePool", "LpPool"), d.one_of(1, 2, 2, 2, 3)
    window = _window(d, spatial, (1, 2, 3, 5, 21, 22, 23), (1, 2, 5, 6, 7))
    x = d.input([1, 2] + [d.one_of(8, 24, 48)] * spatial, d.one_of(*FLOATS, d.kind()))
    extra: dict[str, Any] = {"ceil_mode": d.one_of(None, 1)} if op != "LpPool" or d.opset >= 18 else {}
    if op == "AveragePool":
        extra["count_include_pad"] = d.one_of(None, 0, 1)
    if op == "LpPool":
        extra["p"] = d.one_of(None, 1, 2, 3)
    if op == "MaxPool" and d.often(0.1):
        window["dilations"] = [2] * spatial
    d.add(op, [x], d.one_of(1, 1, 1, 2) if op == "MaxPool" else 1, **window, **extra)


@kind
def global_pooling(d: Draw) -> None:
    x = d.input([1, *d.shape(d.number(1, 4), 5)], d.one_of(*FLOATS))
    op = d.one_of("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
    d.add(op, [x], p=d.one_of(None, 1, 2, 3) if op == "GlobalLpPool" else None)


@kind
def convolution(d: Draw) -> None:
    spatial, type_ = d.one_of(1, 2, 2, 2, 3), d.one_of(*FLOATS, TensorProto.BFLOAT16)
    groups, per_group, maps = d.one_of(1, 1, 2, 4), d.number(1, 3), d.number(1, 3)
    window = _window(d, spatial, (1, 2, 3, 17, 18, 19), (1, 2, 8, 9))
    x = d.input([1, groups * per_group] + [d.one_of(8, 40)] * spatial, type_)
    shape = [groups * maps, per_group, *window["kernel_shape"]]
    w = d.input(shape, type_) if d.often(0.1) else d.weights(shape, type_)
    inputs = [x, w]
    if d.often(0.5):
        bias = [groups * maps]
        inputs.append(d.input(bias, type_) if d.often(0.3) else d.weights(bias, type_))
    dilations = [int(d.one_of(1, 1, 1, 2, 18, 19)) for _ in range(spatial)] if d.often(0.3) else None
    d.add("Conv", inputs, group=groups, dilations=dilations, **window)


@kind
def deconvolution(d: Draw) -> None:
    spatial, type_ = d.one_of(1, 2, 2, 2, 3), d.one_of(*FLOATS)
    groups, maps = d.one_of(1, 1, 2), d.number(1, 3)
    window = _window(d, spatial, (1, 2, 3, 7, 8, 9), (1, 2, 7, 8, 9))
    x = d.input([1, 2 * groups] + [d.one_of(3, 5)] * spatial, type_)
    inputs = [x, d.weights([2 * groups, maps, *window["kernel_shape"]], type_)]
    if d.often(0.3):
        inputs.append(d.input([groups * maps], type_) if d.often(0.3) else d.weights([groups * maps], type_))
    extra: dict[str, Any] = {}
    if d.often(0.2):
        extra["dilations"] = [d.one_of(1, 2)] * spatial
    if d.often(0.2):
        extra["output_padding"] = [d.number(0, max(step - 1, 0)) for step in window["strides"]]
    elif d.often(0.15):
        extra["output_shape"] = [d.number(4, 30)] * spatial
        window.pop("pads", None)
    d.add("ConvTranspose", inputs, group=groups, **window, **extra)


@kind
def softmax(d: Draw) -> None:
    rank = d.number(1, 6)
    op = d.one_of("Softmax", "LogSoftmax", "Hardmax")
    d.add(op, [d.input(d.shape(rank), d.one_of(*FLOATS, d.kind()))], axis=d.one_of(None, d.number(-rank, rank - 1)))


@kind
def arg(d: Draw) -> None:
    rank = d.number(1, 6)
    x = d.input(d.shape(rank), d.one_of(*FLOATS, d.kind()))
    axis, op = d.number(-rank, rank - 1), d.one_of("ArgMax", "ArgMin", "TopK")
    if op == "TopK":
        d.add(op, [x, d.operand([1])], 2, axis=axis, largest=d.one_of(None, 0, 1))
    else:
        last = d.one_of(None, 1) if d.opset >= 12 else None
        d.add(op, [x], axis=axis, keepdims=d.one_of(None, 0), select_last_index=last)


REDUCTIONS = ("Max", "Mean", "Min", "Prod", "Sum", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")


@kind
def reduction(d: Draw) -> None:
    rank, op = d.number(0, 5), f"Reduce{d.one_of(*REDUCTIONS)}"
    x = d.input(d.shape(rank), d.kind())
    axes = sorted({d.number(0, rank - 1) for _ in range(d.number(1, 3))}) if rank and d.often(0.8) else None
    if len(defs.get_schema(op, d.opset).inputs) == 1:
        d.add(op, [x], axes=axes, keepdims=d.one_of(None, 0, 1))
        return
    more = [] if axes is None else [_computed(d, axes) if d.often(0.15) else d.operand(axes, 0.05)]
    d.add(op, [x, *more], keepdims=d.one_of(None, 0, 1), noop_with_empty_axes=d.one_of(None, None, 1))


def _computed(d: Draw, values: list[int]) -> str:
    """Constants that a node makes of others."""
    return d.add("Cast", [d.constant(values, np.int32)], to=TensorProto.INT64)


@kind
def concat(d: Draw) -> None:
    rank, type_ = d.number(1, 6), d.kind()
    shape, axis = d.shape(rank, 4), d.number(0, rank - 1)
    parts = []
    for _ in range(d.number(1, 3)):
        part = [*shape]
        part[axis] = d.number(1, 4)
        parts.append(d.input(part, type_))
    d.add("Concat", parts, axis=axis)


@kind
def resize(d: Draw) -> None:
    rank = d.one_of(1, 2, 3, 4, 4, 4, 5)
    x = d.input([d.one_of(2, 4, 8)] * rank, d.one_of(*FLOATS, d.kind()))
    mode = d.one_of("nearest", "linear", "linear", "cubic")
    coordinate = d.one_of("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_crop_and_resize")
    scales = [
        float(d.one_of(1, 1, 1, 2, 0.5)) if axis < rank - 2 else float(d.one_of(1, 2, 0.5)) for axis in range(rank)
    ]
    extra: dict[str, Any] = {"antialias": d.one_of(None, None, 0, 1)} if d.opset >= 18 else {}
    if mode == "nearest":
        extra["nearest_mode"] = d.one_of(None, "floor", "ceil", "round_prefer_ceil")
    if d.opset >= 18 and d.often(0.15) and rank > 2:
        extra["axes"], scales = [rank - 2, rank - 1], scales[-2:]
    roi = "" if coordinate != "tf_crop_and_resize" else d.constant([0] * rank + [1] * rank, np.float32)
    if d.often(0.3):
        sizes = [max(int(8 * scale), 1) for scale in scales]
        inputs = [x, roi, "", d.operand(sizes)]
    else:
        made = d.input([len(scales)], TensorProto.FLOAT) if d.often(0.1) else d.constant(scales, np.float32)
        inputs = [x, roi, made]
    d.add("Resize", inputs, mode=mode, coordinate_transformation_mode=coordinate, **extra)


@kind
def gather(d: Draw) -> None:
    rank = d.number(1, 4)
    shape = [4] * rank
    op, type_ = d.one_of("Gather", "GatherElements", "GatherND"), d.kind()
    x, indices = d.input(shape, type_), d.one_of(TensorProto.INT64, TensorProto.INT32)
    axis = d.number(-rank, rank - 1)
    if op == "Gather":
        d.add(op, [x, d.input(d.shape(d.number(0, 2), 3), indices)], axis=axis)
    elif op == "GatherElements":
        d.add(op, [x, d.input(shape, indices)], axis=axis)
    else:
        d.add(op, [x, d.input([2, d.number(1, rank)], TensorProto.INT64)])


@kind
def scatter(d: Draw) -> None:
    rank, type_ = d.number(1, 4), d.kind()
    shape, op = [4] * rank, d.one_of("ScatterElements", "ScatterND")
    reduction = d.one_of(None, None, "none", "add", "mul") if d.opset >= 16 else None
    if op == "ScatterElements":
        inputs = [d.input(shape, type_), d.input(shape, TensorProto.INT64), d.input(shape, type_)]
        d.add(op, inputs, axis=d.number(-rank, rank - 1), reduction=reduction)
    else:
        depth = d.number(1, rank)
        inputs = [d.input(shape, type_), d.input([2, depth], TensorProto.INT64), d.input([2, *shape[depth:]], type_)]
        d.add(op, inputs, reduction=reduction)


@kind
def slicing(d: Draw) -> None:
    rank = d.number(1, 5)
    x, axis, step = d.input([8] * rank, d.kind()), d.number(0, rank - 1), d.one_of(1, 1, 2, -1, -2)
    start, end = (7, -9) if step < 0 else (d.number(0, 3), d.number(4, 9))
    inputs = [x, d.operand([start], 0.1), d.operand([end], 0.1), d.constant([axis])]
    d.add("Slice", [*inputs, d.constant([step])] if step != 1 or d.often() else inputs)


@kind
def splitting(d: Draw) -> None:
    rank = d.number(1, 4)
    x, axis = d.input([6] * rank, d.kind()), d.number(-rank, rank - 1)
    if d.opset < 13:
        d.add("Split", [x], 2, axis=axis, split=d.one_of(None, [2, 4]))
    elif d.often(0.6):
        d.add("Split", [x, d.operand([2, 4])], 2, axis=axis)
    else:
        d.add("Split", [x], 2, axis=axis, num_outputs=2 if d.opset >= 18 else None)


@kind
def cast(d: Draw) -> None:
    x = d.input(d.shape(d.number(0, 4)), d.kind())
    d.add("Cast", [x], to=d.kind())


@kind
def matrices(d: Draw) -> None:
    type_ = d.one_of(*FLOATS, d.kind())
    inner, left, right = d.number(1, 4), d.number(1, 4), d.number(1, 4)
    batch = d.shape(3, 3)
    a = [inner] if left == 1 and d.often() else [*batch[: d.number(0, 3)], left, inner]
    b = [inner] if right == 1 and d.often() else [*batch[3 - d.number(0, 3) :], inner, right]
    if len(a) > 1 and len(b) > 1:
        b = [*a[:-2], inner, right] if d.often(0.7) else [inner, right]
    x = d.input(a, type_)
    y = d.weights(b, type_) if d.often(0.4) and type_ in FLOATS else d.input(b, type_)
    d.add("MatMul", [x, y])


@kind
def gemm(d: Draw) -> None:
    type_ = d.one_of(*FLOATS, d.kind())
    rows, inner, columns = d.number(1, 4), d.number(1, 4), d.number(1, 4)
    turn_a, turn_b = d.one_of(None, 1), d.one_of(None, 1)
    a = d.input([inner, rows] if turn_a else [rows, inner], type_)
    b = [columns, inner] if turn_b else [inner, columns]
    inputs = [a, d.weights(b, type_) if d.often() and type_ in FLOATS else d.input(b, type_)]
    if d.often(0.7):
        c = d.one_of([], [1], [columns], [1, columns], [rows, 1], [rows, columns])
        inputs.append(d.weights(c, type_) if d.often() and type_ in FLOATS else d.input(c, type_))
    d.add("Gemm", inputs, transA=turn_a, transB=turn_b, alpha=d.one_of(None, 0.5), beta=d.one_of(None, 0.5, 0.0))


@kind
def einsum(d: Draw) -> None:
    equation, shapes = d.one_of(
        ("ij,jk->ik", [[2, 3], [3, 4]]),
        ("bij,bjk->bik", [[2, 2, 3], [2, 3, 4]]),
        ("ij->ji", [[2, 3]]),
        ("ij->i", [[2, 3]]),
        ("ii->i", [[3, 3]]),
        ("...ij,...jk->...ik", [[2, 2, 3], [2, 3, 4]]),
        ("i,i->", [[3], [3]]),
        ("ij,jk,kl->il", [[2, 3], [3, 4], [4, 2]]),
        ("i,j->ij", [[3], [2]]),
    )
    type_ = d.one_of(*FLOATS, d.kind())
    d.add("Einsum", [d.input(shape, type_) for shape in shapes], equation=equation)


UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "IsInf"),
    *("IsNaN", "Log", "Neg", "Not", "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Tan", "Relu", "Sigmoid"),
    *("Tanh", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign", "HardSigmoid", "ThresholdedRelu", "Celu", "Shrink"),
    *(
        "HardSwish",
        "Mish",
        "Gelu",
        "Swish",
        "Identity",
        "Dropout",
        "Clip",
        "LpNormalization",
        "MeanVarianceNormalization",
    ),
)


@kind
def unary(d: Draw) -> None:
    op, rank = d.one_of(*UNARY), d.number(0, 5)
    if op == "MeanVarianceNormalization":
        rank = 4
    x = d.input(d.shape(rank), d.one_of(*FLOATS, d.kind()))
    if op == "Clip":
        type_ = d.inputs[-1].type.tensor_type.elem_type
        bounds = [d.input([], type_) if d.often(0.2) else d.weights([], type_) for _ in range(d.number(0, 2))]
        d.add(op, [x, *bounds])
        return
    d.add(
        op,
        [x],
        **({"p": d.one_of(1, 2), "axis": d.number(-rank, rank - 1)} if op == "LpNormalization" and rank else {}),
    )


BINARY = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean", "And", "Or", "Xor", "Equal", "Less", "Greater"),
    *("GreaterOrEqual", "LessOrEqual", "Mod", "PRelu", "BitShift", "BitwiseAnd"),
)


@kind
def binary(d: Draw) -> None:
    op, rank = d.one_of(*BINARY), d.number(0, 5)
    shape = d.shape(rank)
    type_ = TensorProto.BOOL if op in ("And", "Or", "Xor") else d.one_of(*FLOATS, d.kind())
    other = [side if d.often(0.7) else 1 for side in shape][d.number(0, rank) if d.often(0.3) else 0 :]
    constant = d.often(0.3) and type_ in FLOATS
    second = d.weights(other, type_) if constant else d.input(other, type_)
    extra = {"fmod": d.one_of(None, 1)} if op == "Mod" else {"direction": "LEFT"} if op == "BitShift" else {}
    d.add(op, [d.input(shape, type_), second], **extra)


@kind
def padding(d: Draw) -> None:
    rank = d.number(1, 5)
    x = d.input([6] * rank, d.one_of(*FLOATS, d.kind()))
    pads = [d.one_of(0, 0, 1, 2, -1) for _ in range(2 * rank)]
    d.add("Pad", [x, d.operand(pads)], mode=d.one_of(None, "constant", "reflect", "edge"))


@kind
def normalization(d: Draw) -> None:
    op = d.one_of(
        "LayerNormalization",
        "InstanceNormalization",
        "BatchNormalization",
        "GroupNormalization",
        "LRN",
        "RMSNormalization",
    )
    rank, type_ = d.number(2, 5), d.one_of(*FLOATS)
    x = d.input([1, 4, *d.shape(rank - 2, 4)], type_)
    if op in ("LayerNormalization", "RMSNormalization"):
        last = d.inputs[-1].type.tensor_type.shape.dim[-1].dim_value
        more = d.one_of(1, 2) if op == "LayerNormalization" else 1
        d.add(op, [x, *(d.weights([last], type_) for _ in range(more))], axis=-1)
    elif op == "LRN":
        d.add(op, [x], size=d.one_of(1, 3, 5))
    else:
        count = {"InstanceNormalization": 2, "GroupNormalization": 2}.get(op, 4)
        vectors = [d.input([4], type_) if d.often(0.05) else d.weights([4], type_) for _ in range(count)]
        d.add(op, [x, *vectors], num_groups=2 if op == "GroupNormalization" else None)


@kind
def shaping(d: Draw) -> None:
    op = d.one_of(
        "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"
    )
    type_ = d.kind()
    if op == "Reshape":
        d.add(op, [d.input([2, 3, 4], type_), d.operand(d.one_of([6, 4], [-1], [0, 12], [4, 3, 2]))])
    elif op == "Flatten":
        d.add(op, [d.input(d.shape(d.number(1, 5)), type_)], axis=d.one_of(None, 0, 1))
    elif op in ("Squeeze", "Unsqueeze"):
        x = d.input([2, 1, 3, 1][: d.number(2, 4)], type_)
        if d.opset < 13:
            d.add(op, [x], axes=[1])
        else:
            d.add(op, [x, d.operand([1])] if op == "Unsqueeze" or d.often(0.8) else [x])
    elif op == "Transpose":
        rank = d.number(1, 6)
        d.add(op, [d.input(d.shape(rank, 3), type_)], perm=[int(axis) for axis in d.rng.permutation(rank)])
    elif op in ("Expand", "Tile"):
        d.add(op, [d.input([2, 1, 3], type_), d.operand([2, 4, 3] if op == "Expand" else [1, 2, 1])])
    else:
        mode = d.one_of(None, "DCR", "CRD") if op == "DepthToSpace" else None
        d.add(op, [d.input([1, 8, 4, 4], type_)], blocksize=2, mode=mode)


@kind
def making(d: Draw) -> None:
    op = d.one_of("Shape", "Size", "ConstantOfShape", "Range", "EyeLike", "NonZero", "Unique")
    if op in ("Shape", "Size", "NonZero"):
        d.add(op, [d.input(d.shape(d.number(1, 4)), d.kind())])
    elif op == "Unique":
        d.add(op, [d.input([4], TensorProto.FLOAT)])
    elif op == "ConstantOfShape":
        made = d.add(op, [d.operand([2, 3], 0.3)])
        d.add("Add", [made, d.input([2, 3], TensorProto.FLOAT)])
    elif op == "Range":
        d.add(op, [d.input([], TensorProto.INT64) if d.often(0.3) else d.constant(value) for value in (0, 6, 2)])
    else:
        d.add(op, [d.input([3, 3], d.one_of(*FLOATS))])


@kind
def choosing(d: Draw) -> None:
    op = d.one_of("OneHot", "Trilu", "CumSum", "Where", "Compress", "ReverseSequence")
    if op == "OneHot":
        depth = d.input([], TensorProto.INT64) if d.often(0.2) else d.constant(5)
        inputs = [d.input([2, 3], TensorProto.INT64), depth, d.input([2], d.one_of(*FLOATS))]
        d.add(op, inputs, axis=d.one_of(None, 0, -1))
    elif op == "Trilu":
        d.add(op, [d.input([2, 4, 4], d.kind()), *([d.constant(1)] if d.often() else [])], upper=d.one_of(None, 0))
    elif op == "CumSum":
        axis = d.input([], TensorProto.INT64) if d.often(0.1) else d.constant(1)
        x = d.input([2, 4], d.one_of(*FLOATS, d.kind()))
        d.add(op, [x, axis], reverse=d.one_of(None, 1), exclusive=d.one_of(None, 1))
    elif op == "Where":
        type_ = d.kind()
        d.add(op, [d.input([2, 3], TensorProto.BOOL), d.input([2, 3], type_), d.input([3], type_)])
    elif op == "Compress":
        d.add(op, [d.input([4], TensorProto.FLOAT), d.input([4], TensorProto.BOOL)], axis=0)
    else:
        d.add(op, [d.input([4, 3], TensorProto.FLOAT), d.input([3], TensorProto.INT64)], time_axis=0, batch_axis=1)


@kind
def quantization(d: Draw) -> None:
    narrow = d.one_of(np.int8, np.int8, np.uint8)
    point = int(d.one_of(0, 0, 0, 3))
    shape = d.one_of([1, 4, 6, 6], [4, 6], [4])
    channels = len(shape) > 1 and d.often(0.3) and d.opset >= 13
    counts = [shape[1]] if channels else []
    scale = d.constant(np.full(counts, 0.1), np.float32) if d.often(0.9) else d.input(counts, TensorProto.FLOAT)
    zero = d.constant(np.full(counts, point), narrow)
    if d.often(0.1):
        zero = d.input(counts, helper.np_dtype_to_tensor_dtype(np.dtype(narrow)))
    axis = 1 if channels else None
    x = d.input(shape, TensorProto.FLOAT)
    points = [zero] if d.often(0.8) or narrow is np.int8 else []
    quantized = d.add("QuantizeLinear", [x, scale, *points], axis=axis)
    d.add("DequantizeLinear", [quantized, scale, *points], axis=axis)


@kind
def dequantization(d: Draw) -> None:
    narrow = d.one_of(np.int8, np.uint8)
    x = d.input([2, 4], helper.np_dtype_to_tensor_dtype(np.dtype(narrow)))
    d.add(
        "DequantizeLinear",
        [x, d.constant(0.1, np.float32), *([d.constant(d.one_of(0, 0, 5), narrow)] if d.often(0.7) else [])],
    )


@kind
def grid_sample(d: Draw) -> None:
    spatial, type_ = d.one_of(2, 2, 2, 3), d.one_of(*FLOATS, d.kind())
    x, grid = (
        d.input([1, 2, *[4] * spatial], type_),
        d.input([1, *[3] * spatial, spatial], d.one_of(type_, TensorProto.FLOAT)),
    )
    modes = ("bilinear", "nearest", "bicubic") if d.opset < 20 else ("linear", "nearest", "cubic")
    d.add(
        "GridSample",
        [x, grid],
        mode=d.one_of(None, *modes),
        padding_mode=d.one_of(None, "border", "reflection"),
        align_corners=d.one_of(None, 1),
    )


@kind
def recurrent(d: Draw) -> None:
    op, type_ = d.one_of("RNN", "LSTM", "GRU"), d.one_of(*FLOATS)
    gates, directions = {"RNN": 1, "LSTM": 4, "GRU": 3}[op], d.one_of(1, 1, 2)
    x = d.input([3, 2, 4], type_)
    inputs = [x, d.weights([directions, gates * 5, 4], type_), d.weights([directions, gates * 5, 5], type_)]
    if d.often():
        inputs.append(d.weights([directions, 2 * gates * 5], type_))
    d.add(op, inputs, hidden_size=5, direction="bidirectional" if directions == 2 else d.one_of(None, "reverse"))


@kind
def detection(d: Draw) -> None:
    if d.often():
        boxes = [d.input([3, 4], TensorProto.FLOAT), d.input([3], TensorProto.INT64)]
        d.add(
            "RoiAlign",
            [d.input([1, 2, 8, 8], TensorProto.FLOAT), *boxes],
            output_height=2,
            output_width=2,
            mode=d.one_of(None, "max"),
        )
    else:
        inputs = [d.input([1, 6, 4], TensorProto.FLOAT), d.input([1, 1, 6], TensorProto.FLOAT), d.constant([3])]
        d.add("NonMaxSuppression", inputs)


@kind
def branch(d: Draw) -> None:
    x, shape = d.input([2, 3], d.one_of(*FLOATS)), [2, 3]
    type_ = d.inputs[-1].type.tensor_type.elem_type
    bodies = {}
    for name in ("then_branch", "else_branch"):
        made = helper.make_node(d.one_of("Relu", "Tanh", "Exp", "Identity"), [x], [f"{name}_y"], name=f"{name}_n")
        bodies[name] = helper.make_graph([made], name, [], [helper.make_tensor_value_info(f"{name}_y", type_, shape)])
    d.add("If", [d.input(d.one_of([], [1]), TensorProto.BOOL)], **bodies)


@kind
def attention(d: Draw) -> None:
    shape = [1, 2, 4, 8]
    type_ = d.one_of(*FLOATS)
    d.add("Attention", [d.input(shape, type_) for _ in range(3)])


@kind
def signal(d: Draw) -> None:
    op = d.one_of("HannWindow", "HammingWindow", "BlackmanWindow", "STFT", "DFT")
    if op == "STFT":
        inputs = [d.input([1, 32, d.one_of(1, 1, 2)], TensorProto.FLOAT), d.constant(8), d.weights([16])]
        d.add(op, inputs, onesided=d.one_of(None, 0))
    elif op == "DFT":
        d.add(op, [d.input([1, 8, 2], TensorProto.FLOAT)])
    else:
        size = d.input([], TensorProto.INT64) if d.often(0.2) else d.constant(16)
        made = d.add(op, [size], periodic=d.one_of(None, 0))
        d.add("Mul", [made, d.input([16], TensorProto.FLOAT)])


def draw(seed: int) -> tuple[str, onnx.ModelProto] | None:
    """Kind and network of a seed; None where what was drawn is no valid ONNX."""
    rng = np.random.default_rng(seed)
    d = Draw(rng, int(rng.integers(11, 24)))
    name = d.one_of(*KINDS)
    try:
        KINDS[name](d)
        produced = {output for made in d.nodes for output in made.output}
        used = {entry for made in d.nodes for entry in made.input}
        outputs = [onnx.ValueInfoProto(name=entry) for entry in sorted(produced - used)]
        graph = helper.make_graph(d.nodes, name, d.inputs, outputs, d.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", d.opset)], ir_version=10)
        made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
        known = {info.name: info for info in made.graph.output}
        for entry in outputs:  # a rank that inference leaves open is declared as nothing
            if not known[entry.name].type.tensor_type.elem_type:
                return None
        for info in made.graph.output:
            if not info.type.tensor_type.HasField("shape"):
                info.type.tensor_type.shape.SetInParent()
                return None
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, TypeError, defs.SchemaError):
        return None
    return name, made


def networks(seed: int, count: int) -> Iterator[tuple[int, str, onnx.ModelProto]]:
    """The first ``count`` valid networks from a seed on."""
    found, number = 0, seed * 1_000_000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while found < count:
            made = draw(number)
            if made is not None:
                found += 1
                yield number, *made
            number += 1
