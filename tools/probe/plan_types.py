"""Probes of dtypes: every layer type, with every operation it has, on every dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from tools.probe.probe import (
    COMMON,
    EVERY,
    FLOATS,
    Probe,
    Statement,
    constant,
    integers,
    layer,
    probe,
    tensor,
)

ACTIVATIONS = [
    "RELU",
    "SIGMOID",
    "TANH",
    "LEAKY_RELU",
    "ELU",
    "SELU",
    "SOFTSIGN",
    "SOFTPLUS",
    "CLIP",
    "HARD_SIGMOID",
    "SCALED_TANH",
    "THRESHOLDED_RELU",
    "GELU_ERF",
    "GELU_TANH",
]
UNARIES = [
    "EXP",
    "LOG",
    "SQRT",
    "RECIP",
    "ABS",
    "NEG",
    "SIN",
    "COS",
    "TAN",
    "SINH",
    "COSH",
    "ASIN",
    "ACOS",
    "ATAN",
    "ASINH",
    "ACOSH",
    "ATANH",
    "CEIL",
    "FLOOR",
    "ERF",
    "NOT",
    "SIGN",
    "ROUND",
    "ISINF",
    "ISNAN",
]
ELEMENTWISES = [
    "SUM",
    "PROD",
    "MAX",
    "MIN",
    "SUB",
    "DIV",
    "POW",
    "FLOOR_DIV",
    "AND",
    "OR",
    "XOR",
    "EQUAL",
    "GREATER",
    "LESS",
]
REDUCTIONS = ["SUM", "PROD", "MAX", "MIN", "AVG"]
POOLINGS = ["MAX", "AVERAGE", "MAX_AVERAGE_BLEND"]
INTERPOLATIONS = ["NEAREST", "LINEAR", "CUBIC"]
SLICE_MODES = ["STRICT_BOUNDS", "WRAP", "CLAMP", "FILL", "REFLECT"]

_NETWORKS: dict[str, Callable[[str], list[Statement]]] = {
    "identity": lambda d: [tensor(d), layer("identity")],
    "shuffle": lambda d: [tensor(d), layer("shuffle", first=[0, 1, 3, 2])],
    "reshape": lambda d: [tensor(d), layer("shuffle", reshape=[4, 64])],
    "constant": lambda d: [constant(d, (4, 64))],
    "constant-added": lambda d: [tensor(d), constant(d, (1, 4, 1, 1)), layer("elementwise", 0, 1, kind="SUM")],
    "convolution": lambda d: [tensor(d), layer("convolution", kernel=[3, 3], dtype=d)],
    "convolution-without-bias": lambda d: [tensor(d), layer("convolution", kernel=[3, 3], dtype=d, bias=False)],
    "convolution-kernel-tensor": lambda d: [
        tensor(d),
        tensor(d, (4, 4, 3, 3)),
        layer("convolution", 0, 1, kernel=[3, 3], dtype=d),
    ],
    "deconvolution": lambda d: [tensor(d), layer("convolution", kernel=[3, 3], dtype=d, transposed=True)],
    "deconvolution-kernel-tensor": lambda d: [
        tensor(d),
        tensor(d, (4, 4, 3, 3)),
        layer("convolution", 0, 1, kernel=[3, 3], dtype=d, transposed=True),
    ],
    "scale": lambda d: [tensor(d), layer("scale", mode="UNIFORM", dtype=d, parts="hs")],
    "softmax": lambda d: [tensor(d), layer("softmax", axes=[1])],
    "concatenation": lambda d: [tensor(d), tensor(d), layer("concatenation", 0, 1, axis=1)],
    "padding": lambda d: [tensor(d), layer("padding", pre=[1, 1], post=[1, 1])],
    "top-k": lambda d: [tensor(d), layer("topk", kind="MAX", k=2, axes=[1])],
    "top-k-min": lambda d: [tensor(d), layer("topk", kind="MIN", k=2, axes=[3])],
    "gather-data": lambda d: [tensor(d), tensor("int32", (2,)), layer("gather", 0, 1, axis=1)],
    "gather-index": lambda d: [tensor(), tensor(d, (2,)), layer("gather", 0, 1, axis=1)],
    "gather-element": lambda d: [
        tensor(d),
        tensor("int64", (1, 4, 2, 8)),
        layer("gather", 0, 1, mode="ELEMENT", axis=2),
    ],
    "gather-nd": lambda d: [tensor(d), tensor("int32", (3, 2)), layer("gather", 0, 1, mode="ND")],
    "scatter-element": lambda d: [
        tensor(d),
        tensor("int32", (1, 4, 2, 8)),
        tensor(d, (1, 4, 2, 8)),
        layer("scatter", 0, 1, 2, axis=2),
    ],
    "scatter-nd": lambda d: [
        tensor(d),
        tensor("int64", (1, 1)),
        tensor(d),
        layer("scatter", 0, 1, 2, mode="ND"),
    ],
    "scatter-index": lambda d: [
        tensor(),
        tensor(d, (1, 4, 2, 8)),
        tensor("float32", (1, 4, 2, 8)),
        layer("scatter", 0, 1, 2, axis=2),
    ],
    "matrix-multiply": lambda d: [tensor(d), tensor(d), layer("matrix_multiply", 0, 1)],
    "matrix-multiply-constant": lambda d: [tensor(d), constant(d, (1, 1, 8, 8)), layer("matrix_multiply", 0, 1)],
    "shape": lambda d: [tensor(d), layer("shape")],
    "parametric-relu": lambda d: [tensor(d), constant(d, (1, 4, 1, 1)), layer("parametric_relu", 0, 1)],
    "select": lambda d: [tensor("bool"), tensor(d), tensor(d), layer("select", 0, 1, 2)],
    "select-condition": lambda d: [tensor(d), tensor(), tensor(), layer("select", 0, 1, 2)],
    "einsum": lambda d: [tensor(d), tensor(d), layer("einsum", 0, 1, equation="abcd,abde->abce")],
    "reverse-sequence": lambda d: [tensor(d), tensor("int32", (4,)), layer("reverse_sequence", 0, 1)],
    "normalization": lambda d: [
        tensor(d),
        constant(d, (1, 4, 1, 1)),
        constant(d, (1, 4, 1, 1)),
        layer("normalization", 0, 1, 2, axes=[2, 3]),
    ],
    "normalization-v2": lambda d: [
        tensor(d),
        constant(d, (1, 4, 1, 1)),
        constant(d, (1, 4, 1, 1)),
        layer("normalization", 0, 1, 2, axes=[2, 3], second=True),
    ],
    "squeeze": lambda d: [tensor(d), integers(0), layer("squeeze", 0, 1)],
    "unsqueeze": lambda d: [tensor(d), integers(0), layer("unsqueeze", 0, 1)],
    "cumulative": lambda d: [tensor(d), integers(1, scalar=True, dtype="int32"), layer("cumulative", 0, 1)],
    "lrn": lambda d: [tensor(d), layer("lrn")],
    "nms": lambda d: [
        tensor(d, (1, 10, 4)),
        tensor(d, (1, 10, 3)),
        integers(5, scalar=True, dtype="int32"),
        layer("nms", 0, 1, 2),
    ],
    "non-zero": lambda d: [tensor(d), layer("non_zero")],
    "ragged-softmax": lambda d: [tensor(d, (1, 4, 8)), tensor("int32", (1, 4, 1)), layer("ragged_softmax", 0, 1)],
    "conditional": lambda d: [tensor("bool", ()), tensor(d), layer("conditional", 0, 1)],
    "iterator": lambda d: [tensor(d, (3, 4)), layer("iterator")],
    "assertion": lambda d: [
        tensor(d),
        integers(1, dtype="int32"),
        layer("elementwise", 1, 1, kind="EQUAL"),
        layer("assertion", 2),
        layer("identity"),
    ],
    "rotary-embedding": lambda d: [
        tensor(d, (1, 2, 4, 8)),
        tensor(d, (1, 4, 4)),
        tensor(d, (1, 4, 4)),
        layer("rotary_embedding", 0, 1, 2),
    ],
    "kv-cache-update": lambda d: [
        tensor(d, (1, 2, 8, 8)),
        tensor(d, (1, 2, 1, 8)),
        tensor("int32", (1,)),
        layer("kv_cache_update", 0, 1, 2),
    ],
    "one-hot-values": lambda d: [
        tensor("int32", (3,)),
        constant(d, (2,)),
        integers(5, scalar=True, dtype="int32"),
        layer("one_hot", 0, 1, 2, axis=1),
    ],
    "one-hot-index": lambda d: [
        tensor(d, (3,)),
        constant("float32", (2,)),
        integers(5, scalar=True, dtype="int32"),
        layer("one_hot", 0, 1, 2, axis=0),
    ],
    "dynamic-quantize": lambda d: [
        tensor(d, (16, 32)),
        layer("dynamic_quantize", axis=1, block=16, to="float4", scale="float8"),
    ],
}


def probes() -> Iterator[Probe]:
    """Yield the probes of this file."""
    for name, build in _NETWORKS.items():
        for dtype in EVERY:
            yield probe(f"type.{name}", dtype, *build(dtype))
    yield from _kinds()
    yield from _casts()
    yield from _fills()
    yield from _between_layers()


def _kinds() -> Iterator[Probe]:
    """Each operation of the layers that have several, on each dtype that could pass."""
    families: list[tuple[str, list[str], tuple[str, ...], Callable[[str, str], list[Statement]]]] = [
        ("activation", ACTIVATIONS, EVERY, lambda k, d: [tensor(d), layer("activation", kind=k)]),
        ("unary", UNARIES, COMMON, lambda k, d: [tensor(d), layer("unary", kind=k)]),
        ("elementwise", ELEMENTWISES, EVERY, lambda k, d: [tensor(d), tensor(d), layer("elementwise", 0, 1, kind=k)]),
        ("reduce", REDUCTIONS, COMMON, lambda k, d: [tensor(d), layer("reduce", kind=k, axes=[1])]),
        ("pooling", POOLINGS, COMMON, lambda k, d: [tensor(d), layer("pooling", kind=k, window=[2, 2])]),
        ("slice", SLICE_MODES, EVERY, _slice),
        ("resize", INTERPOLATIONS, COMMON, lambda k, d: [tensor(d), layer("resize", mode=k, shape=[1, 4, 16, 16])]),
        ("grid-sample", INTERPOLATIONS, COMMON, _grid_sample),
        ("attention", ["SOFTMAX", "NONE"], COMMON, _attention),
    ]
    for name, kinds, dtypes, build in families:
        for kind, dtype in product(kinds, dtypes):
            yield probe(f"type.{name}.{kind.lower()}", dtype, *build(kind, dtype))


def _slice(kind: str, dtype: str) -> list[Statement]:
    return [tensor(dtype), layer("slice", start=[0] * 4, size=[1, 2, 2, 2], stride=[1] * 4, mode=kind)]


def _grid_sample(kind: str, dtype: str) -> list[Statement]:
    return [tensor(dtype), tensor(dtype, (1, 5, 5, 2)), layer("grid_sample", 0, 1, mode=kind)]


def _attention(kind: str, dtype: str) -> list[Statement]:
    return [*[tensor(dtype, (1, 2, 8, 8))] * 3, layer("attention", 0, 1, 2, kind=kind)]


def _casts() -> Iterator[Probe]:
    for source in EVERY:
        for target in EVERY:
            yield probe(f"type.cast.{source}", target, tensor(source), layer("cast", to=target))


def _fills() -> Iterator[Probe]:
    for kind in ("LINSPACE", "RANDOM_UNIFORM", "RANDOM_NORMAL"):
        for dtype in COMMON:
            fill = {**layer("fill", kind=kind, dtype=dtype, shape=[2, 4], alpha=0.0, beta=1.0), "in": []}
            yield probe(f"type.fill.{kind.lower()}", dtype, fill)
    for dtype in COMMON:
        fill = layer("fill", 0, 1, kind="LINSPACE", dtype=dtype, shape=[2, 4], places=[1, 2])
        yield probe("type.fill.linspace-tensors", dtype, constant(dtype), constant(dtype, (2,)), fill)


def _between_layers() -> Iterator[Probe]:
    """Dtypes that the inputs and outputs of a network cannot have, met inside one."""
    for dtype in FLOATS:
        for inner in ("bfloat16", "int8", "uint8", "int32", "int64", "bool"):
            for op, attributes in (
                ("identity", {}),
                ("unary", {"kind": "NEG"}),
                ("activation", {"kind": "SIGMOID"}),
                ("shuffle", {"reshape": [4, 64]}),
                ("cumulative", {}),
                ("squeeze", {}),
                ("unsqueeze", {}),
            ):
                axes = [] if attributes or op == "identity" else [integers(0)]
                if op == "cumulative":
                    axes = [integers(0, scalar=True, dtype="int32")]
                head = [tensor(dtype), *axes, layer("cast", 0, to=inner)]
                cast = len(axes) + 1
                body = layer(op, cast, *range(1, len(axes) + 1), **attributes)
                yield probe(f"inside.{op}.{dtype}", inner, *head, body, layer("cast", cast + 1, to=dtype))
