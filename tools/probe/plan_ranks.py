"""Probes of ranks and sizes: every layer type at rank 0 to 8, and with very large, empty and odd dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from tools.probe.probe import Probe, Statement, constant, integers, layer, probe, tensor

RANKS = range(9)
_LETTERS = "abcdefgh"


def _two(rank: int) -> list[int]:
    return [2] * rank


_NETWORKS: dict[str, Callable[[int], list[Statement]]] = {
    "identity": lambda r: [tensor(shape=_two(r)), layer("identity")],
    "cast": lambda r: [tensor(shape=_two(r)), layer("cast", to="float16")],
    "relu": lambda r: [tensor(shape=_two(r)), layer("activation", kind="RELU")],
    "sigmoid": lambda r: [tensor(shape=_two(r)), layer("activation", kind="SIGMOID")],
    "clip": lambda r: [tensor(shape=_two(r)), layer("activation", kind="CLIP")],
    "unary": lambda r: [tensor(shape=_two(r)), layer("unary", kind="EXP")],
    "elementwise": lambda r: [tensor(shape=_two(r)), tensor(shape=_two(r)), layer("elementwise", 0, 1, kind="SUM")],
    "constant": lambda r: [constant("float32", _two(r))],
    "concatenation": lambda r: [tensor(shape=_two(r)), tensor(shape=_two(r)), layer("concatenation", 0, 1, axis=r - 1)],
    "softmax-first": lambda r: [tensor(shape=_two(r)), layer("softmax", axes=[0])],
    "softmax-last": lambda r: [tensor(shape=_two(r)), layer("softmax", axes=[max(r - 1, 0)])],
    "transpose": lambda r: [tensor(shape=_two(r)), layer("shuffle", first=list(range(r))[::-1])],
    "reshape-to-vector": lambda r: [tensor(shape=_two(r)), layer("shuffle", reshape=[2**r])],
    "reshape-from-vector": lambda r: [tensor(shape=[2**r]), layer("shuffle", reshape=_two(r))],
    "reduce-kept": lambda r: [tensor(shape=_two(r)), layer("reduce", kind="AVG", axes=[0])],
    "reduce-dropped": lambda r: [tensor(shape=_two(r)), layer("reduce", kind="SUM", axes=[0], keep=False)],
    "reduce-all": lambda r: [tensor(shape=_two(r)), layer("reduce", kind="MAX", axes=list(range(r)), keep=False)],
    "top-k": lambda r: [tensor(shape=_two(r)), layer("topk", kind="MAX", k=1, axes=[max(r - 1, 0)])],
    "gather-scalar": lambda r: [tensor(shape=_two(r)), tensor("int32", ()), layer("gather", 0, 1)],
    "gather-vector": lambda r: [tensor(shape=_two(r)), tensor("int32", (2,)), layer("gather", 0, 1)],
    "gather-matrix": lambda r: [tensor(shape=_two(r)), constant("int32", (2, 2)), layer("gather", 0, 1)],
    "gather-element": lambda r: [
        tensor(shape=_two(r)),
        tensor("int32", _two(r)),
        layer("gather", 0, 1, mode="ELEMENT"),
    ],
    "gather-nd": lambda r: [tensor(shape=_two(r)), tensor("int32", (2, 1)), layer("gather", 0, 1, mode="ND")],
    "scatter-element": lambda r: [
        tensor(shape=_two(r)),
        tensor("int32", _two(r)),
        tensor(shape=_two(r)),
        layer("scatter", 0, 1, 2),
    ],
    "scatter-nd": lambda r: [
        tensor(shape=_two(r)),
        tensor("int32", (2, 1)),
        tensor(shape=_two(r)),
        layer("scatter", 0, 1, 2, mode="ND"),
    ],
    "matrix-multiply": lambda r: [tensor(shape=_two(r)), tensor(shape=_two(r)), layer("matrix_multiply", 0, 1)],
    "matrix-vector": lambda r: [
        tensor(shape=_two(r)),
        tensor(shape=_two(max(r - 1, 0))),
        layer("matrix_multiply", 0, 1, right="VECTOR"),
    ],
    "slice": lambda r: [tensor(shape=_two(r)), layer("slice", start=[0] * r, size=[1] * r, stride=[1] * r)],
    "shape": lambda r: [tensor(shape=_two(r)), layer("shape")],
    "parametric-relu": lambda r: [
        tensor(shape=_two(r)),
        constant("float32", [1] * r),
        layer("parametric_relu", 0, 1),
    ],
    "select": lambda r: [
        tensor("bool", _two(r)),
        tensor(shape=_two(r)),
        tensor(shape=_two(r)),
        layer("select", 0, 1, 2),
    ],
    "einsum-copy": lambda r: [tensor(shape=_two(r)), layer("einsum", equation=f"{_LETTERS[:r]}->{_LETTERS[:r]}")],
    "einsum-product": lambda r: [
        tensor(shape=_two(r)),
        tensor(shape=_two(r)),
        layer("einsum", 0, 1, equation=f"{_LETTERS[:r]},{_LETTERS[:r]}->{_LETTERS[:r]}"),
    ],
    "normalization": lambda r: [
        tensor(shape=_two(r)),
        constant("float32", [1] * r),
        constant("float32", [1] * r),
        layer("normalization", 0, 1, 2, axes=[max(r - 1, 0)]),
    ],
    "squeeze": lambda r: [tensor(shape=[1, *_two(r - 1)]), integers(0), layer("squeeze", 0, 1)],
    "unsqueeze": lambda r: [tensor(shape=_two(r)), integers(0), layer("unsqueeze", 0, 1)],
    "cumulative": lambda r: [
        tensor(shape=_two(r)),
        integers(0, scalar=True, dtype="int32"),
        layer("cumulative", 0, 1),
    ],
    "fill": lambda r: [
        constant("float32", ()),
        constant("float32", (r,)),
        layer("fill", 0, 1, kind="LINSPACE", dtype="float32", shape=_two(r), places=[1, 2]),
    ],
    "one-hot": lambda r: [
        tensor("int32", _two(r)),
        constant("float32", (2,)),
        integers(5, scalar=True, dtype="int32"),
        layer("one_hot", 0, 1, 2, axis=0),
    ],
    "one-hot-last": lambda r: [
        tensor("int32", _two(r)),
        constant("float32", (2,)),
        integers(5, scalar=True, dtype="int32"),
        layer("one_hot", 0, 1, 2, axis=-1),
    ],
    "scale-uniform": lambda r: [
        tensor(shape=[1, 4, *[8] * (r - 2)][:r]),
        layer("scale", mode="UNIFORM", parts="hs"),
    ],
    "scale-channel": lambda r: [
        tensor(shape=[1, 4, *[8] * (r - 2)][:r]),
        layer("scale", mode="CHANNEL", parts="hs"),
    ],
    "scale-elementwise": lambda r: [
        tensor(shape=[1, 4, *[2] * (r - 2)][:r]),
        layer("scale", mode="ELEMENTWISE", parts="hs"),
    ],
    "convolution-2d": lambda r: [
        tensor(shape=[4] * max(r - 2, 0) + [8, 8]),
        layer("convolution", kernel=[3, 3]),
    ],
    "deconvolution-2d": lambda r: [
        tensor(shape=[4] * max(r - 2, 0) + [8, 8]),
        layer("convolution", kernel=[3, 3], transposed=True),
    ],
    "pooling-2d": lambda r: [
        tensor(shape=[4] * max(r - 2, 0) + [8, 8]),
        layer("pooling", kind="MAX", window=[2, 2]),
    ],
    "pooling-3d": lambda r: [
        tensor(shape=[4] * max(r - 3, 0) + [8, 8, 8]),
        layer("pooling", kind="AVERAGE", window=[2, 2, 2]),
    ],
    "convolution-3d": lambda r: [
        tensor(shape=[4] * max(r - 3, 0) + [8, 8, 8]),
        layer("convolution", kernel=[3, 3, 3]),
    ],
    "convolution-1d": lambda r: [tensor(shape=[4] * max(r - 1, 0) + [8]), layer("convolution", kernel=[3])],
    "conditional": lambda r: [tensor("bool", ()), tensor(shape=_two(r)), layer("conditional", 0, 1)],
    "iterator": lambda r: [tensor(shape=[3, *_two(r)]), layer("iterator")],
    "grid-sample": lambda r: [tensor(shape=_two(r)), tensor(shape=[2] * r), layer("grid_sample", 0, 1)],
}

_SIZES = (
    (1, 4097),
    (1, 8193),
    (65536, 1),
    (1, 1 << 20),
    (1 << 24, 1),
    (1 << 30,),
    ((1 << 31) - 1,),
    (1 << 16, 1 << 15),
    (1 << 16, 1 << 16),
    (1 << 20, 1 << 20),
    (0,),
    (0, 4),
    (4, 0, 4),
    (1, 1, 1, 1),
    (64, 3, 224, 224),
    (1, 3, 4097, 4097),
)


def probes() -> Iterator[Probe]:
    """Yield the probes of this file."""
    for name, build in _NETWORKS.items():
        for rank in RANKS:
            yield probe(f"rank.{name}", rank, *build(rank))
    yield from _resizes()
    yield from _quantizations()
    yield from _sizes()


def _resizes() -> Iterator[Probe]:
    for mode, rank in product(("NEAREST", "LINEAR"), RANKS):
        for changed in range(1, min(rank, 4) + 1):
            shape = _two(rank - changed) + [4] * changed
            statements = (tensor(shape=_two(rank)), layer("resize", mode=mode, shape=shape))
            yield probe(f"rank.resize.{mode.lower()}.last-{changed}", rank, *statements)


def _quantizations() -> Iterator[Probe]:
    for to, rank in product(("int8", "float8"), range(1, 9)):
        for axis in range(-1, rank):
            quantize = layer("quantize", 0, 1, to=to, axis=axis)
            yield probe(
                f"rank.quantize.{to}.{rank}", axis, tensor(shape=_two(rank)), constant("float32", (2,)), quantize
            )


def _sizes() -> Iterator[Probe]:
    for shape in _SIZES:
        yield probe("size.identity", shape, tensor(shape=shape), layer("identity"))
        yield probe("size.relu", shape, tensor(shape=shape), layer("activation", kind="RELU"))
        yield probe("size.sum", shape, tensor(shape=shape), tensor(shape=shape), layer("elementwise", 0, 1, kind="SUM"))
        yield probe("size.reduce", shape, tensor(shape=shape), layer("reduce", kind="SUM", axes=[0]))
    for dims in ((-1, 4), (-1, 3, 8, 8), (1, 3, -1, -1)):
        yield probe("dynamic.relu", dims, tensor(shape=dims), layer("activation", kind="RELU"))
        yield probe("dynamic.lrn", dims, tensor(shape=dims), layer("lrn"))
