"""Probes of the remaining attributes: axes, modes, scales, constness, quantization."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.probe.probe import FLOATS, Probe, constant, integers, layer, probe, tensor

_SCALES = (0.1, 0.25, 0.3, 0.5, 0.9, 1.0, 1.1, 1.5, 2.0, 2.5, 3.0, 4.0, 8.0, 32.0, 33.0)
_QUANTIZED = ("int8", "float8", "int4", "float4")
_SCALE_TYPES = ("float32", "float16", "bfloat16", "float8")


def probes() -> Iterator[Probe]:
    """Yield the probes of this file."""
    yield from _axes()
    yield from _matrices()
    yield from _resizes()
    yield from _slices()
    yield from _samples_and_scales()
    yield from _quantizations()
    yield from _quantized_chains()
    yield from _normalizations()


def _axes() -> Iterator[Probe]:
    indices = tensor("int32", (1, 4, 8, 8))
    for axis in range(-5, 4):
        yield probe("axis.gather", axis, tensor(), tensor("int32", (2,)), layer("gather", 0, 1, axis=axis))
        yield probe("axis.gather-element", axis, tensor(), indices, layer("gather", 0, 1, axis=axis, mode="ELEMENT"))
        yield probe("axis.scatter", axis, tensor(), indices, tensor(), layer("scatter", 0, 1, 2, axis=axis))
        yield probe("axis.concatenation", axis, tensor(), tensor(), layer("concatenation", 0, 1, axis=axis))
        hot = (tensor("int32", (2, 3, 4)), constant("float32", (2,)), integers(5, scalar=True, dtype="int32"))
        yield probe("axis.one-hot", axis, *hot, layer("one_hot", 0, 1, 2, axis=axis))
    for axes in ([0], [1], [2], [3], [0, 1], [2, 3], [1, 2, 3], [0, 1, 2, 3], [0, 2]):
        for keep in (True, False):
            reduce = layer("reduce", kind="AVG", axes=axes, keep=keep)
            yield probe(f"axis.reduce.{'kept' if keep else 'dropped'}", axes, tensor(), reduce)
    for axis in range(4):
        yield probe("axis.softmax", axis, tensor(), layer("softmax", axes=[axis]))
        yield probe("axis.top-k", axis, tensor(), layer("topk", kind="MAX", k=1, axes=[axis]))
    for k in (0, 1, 2, 100, 1000, 3839, 3840, 3841, 5000):
        yield probe("top-k.k", k, tensor(shape=(2, 5000)), layer("topk", kind="MIN", k=k, axes=[1]))
    for batch_dims in range(3):
        gather = layer("gather", 0, 1, mode="ND", batch_dims=batch_dims)
        yield probe("gather-nd.batch", batch_dims, tensor(), tensor("int32", (1, 4, 1)), gather)
    for count in (1, 2, 3, 10, 100, 300, 1000):
        parts = [tensor(shape=(1, 2))] * count
        yield probe("concatenation.inputs", count, *parts, layer("concatenation", *range(count), axis=1))


def _matrices() -> Iterator[Probe]:
    for left, right in product(("NONE", "TRANSPOSE"), repeat=2):
        multiply = layer("matrix_multiply", 0, 1, left=left, right=right)
        yield probe("matrix-multiply.operations", (left, right), tensor(), tensor(), multiply)
    vectors = layer("matrix_multiply", 0, 1, left="VECTOR", right="VECTOR")
    yield probe("matrix-multiply.vectors", 8, tensor(shape=(8,)), tensor(shape=(8,)), vectors)
    for dtype in FLOATS:
        operands = (tensor(dtype, (2, 8)), constant(dtype, (8, 4)))
        yield probe("matrix-multiply.constant", dtype, *operands, layer("matrix_multiply", 0, 1))
    for equation in ["ij,jk->ik", "ij,ij->", "ij,ij->ij", "ij,kl->ijkl", "ii,jk->", "ij,kj->ik", "ij,jk->ki"]:
        yield probe("einsum.two", equation, *[tensor(shape=(4, 4))] * 2, layer("einsum", 0, 1, equation=equation))
    for equation in ["ij->ji", "ij->", "ii->i", "ij->i", "ii->"]:
        yield probe("einsum.one", equation, tensor(shape=(4, 4)), layer("einsum", equation=equation))
    three = layer("einsum", 0, 1, 2, equation="ij,jk,kl->il")
    yield probe("einsum.three", "ij,jk,kl->il", *[tensor(shape=(4, 4))] * 3, three)


def _resizes() -> Iterator[Probe]:
    modes = ("NEAREST", "LINEAR", "CUBIC")
    for mode, coordinate in product(modes, ("ALIGN_CORNERS", "ASYMMETRIC", "HALF_PIXEL")):
        resize = layer("resize", mode=mode, shape=[1, 4, 16, 16], coordinate=coordinate)
        yield probe(f"resize.{mode.lower()}.coordinate", coordinate, tensor(), resize)
    for mode, scale in product(modes, _SCALES):
        resize = layer("resize", mode=mode, scales=[1.0, 1.0, scale, scale])
        yield probe(f"resize.{mode.lower()}.scale", scale, tensor(), resize)
    for mode, selector in product(modes, ("FORMULA", "UPPER")):
        resize = layer("resize", mode=mode, shape=[1, 4, 1, 1], selector=selector)
        yield probe(f"resize.{mode.lower()}.selector", selector, tensor(), resize)
    for rounding in ("HALF_UP", "HALF_DOWN", "FLOOR", "CEIL"):
        resize = layer("resize", mode="NEAREST", shape=[1, 4, 16, 16], nearest=rounding)
        yield probe("resize.nearest.rounding", rounding, tensor(), resize)
    for mode, outside in product(modes, (True, False)):
        resize = layer("resize", mode=mode, shape=[1, 4, 4, 4], exclude_outside=outside)
        yield probe(f"resize.{mode.lower()}.outside", outside, tensor(), resize)
    for scales in product((1.0, 2.0), repeat=4):
        yield probe("resize.nearest.axes", scales, tensor(), layer("resize", mode="NEAREST", scales=list(scales)))
        yield probe("resize.linear.axes", scales, tensor(), layer("resize", mode="LINEAR", scales=list(scales)))
    for scales in ((1.0, 1.1, 2.0, 2.0), (1.5, 1.0, 2.0, 2.0)):
        yield probe("resize.nearest.scale-without-change", scales, tensor(), layer("resize", scales=list(scales)))
    for mode, dtype in product(modes, ("int32", "int64")):
        shape = integers(1, 4, 16, 16, dtype=dtype)
        yield probe(f"resize.{mode.lower()}.shape-tensor", dtype, tensor(), shape, layer("resize", 0, 1, mode=mode))


def _slices() -> Iterator[Probe]:
    for step in (-8, -3, -2, -1, 0, 1, 2, 3, 7):
        start = [0, 0, 7 if step < 0 else 0, 0]
        cut = layer("slice", start=start, size=[1, 2, 2 if step > -8 else 1, 2], stride=[1, 1, step, 1])
        yield probe("slice.stride", step, tensor(), cut)
    for axis in range(-1, 4):
        yield probe("slice.axes", axis, tensor(), layer("slice", start=[0], size=[1], stride=[1], axes=[axis]))
    for size in ([0, 2, 2, 2], [1, 2, 2, 0]):
        yield probe("slice.empty", size, tensor(), layer("slice", start=[0] * 4, size=size, stride=[1] * 4))
    cut = layer("slice", 0, 1, start=[0] * 4, size=[1, 2, 2, 2], stride=[1] * 4, places=[1])
    yield probe("slice.start", "constant", tensor(), integers(0, 0, 0, 0, dtype="int32"), cut)
    yield probe("slice.start", "computed", tensor(), tensor("int32", (4,)), cut)
    for name, fill in (("constant", constant()), ("computed", tensor(shape=()))):
        padded = layer("slice", 0, 1, start=[0] * 4, size=[1, 2, 2, 12], stride=[1] * 4, places=[4], mode="FILL")
        yield probe("slice.fill-value", name, tensor(), fill, padded)


def _samples_and_scales() -> Iterator[Probe]:
    paddings = ("STRICT_BOUNDS", "WRAP", "CLAMP", "FILL", "REFLECT")
    for mode, padding, corners in product(("NEAREST", "LINEAR", "CUBIC"), paddings, (True, False)):
        sample = layer("grid_sample", 0, 1, mode=mode, padding=padding, corners=corners)
        yield probe(
            f"grid-sample.{mode.lower()}.{padding.lower()}", corners, tensor(), tensor(shape=(1, 5, 5, 2)), sample
        )
    for parts in ("h", "s", "p", "hs", "hsp", ""):
        for mode in ("UNIFORM", "CHANNEL", "ELEMENTWISE"):
            yield probe(
                f"scale.{mode.lower()}.parts", parts or "none", tensor(), layer("scale", mode=mode, parts=parts)
            )
    for mode, power in product(("UNIFORM", "CHANNEL", "ELEMENTWISE"), (1, 2)):
        yield probe(f"scale.{mode.lower()}.power", power, tensor(), layer("scale", mode=mode, power=power))
    for kind, alpha, beta in product(
        ("CLIP", "LEAKY_RELU", "ELU", "HARD_SIGMOID"), (-1.0, 0.0, 0.2), (1.0, 127.0, 1e30)
    ):
        active = layer("activation", kind=kind, alpha=alpha, beta=beta)
        yield probe(f"activation.{kind.lower()}.bounds", (alpha, beta), tensor(), active)
    for exclusive, reverse in product((True, False), repeat=2):
        total = layer("cumulative", 0, 1, exclusive=exclusive, reverse=reverse)
        axis = integers(1, scalar=True, dtype="int32")
        yield probe("cumulative.flags", (exclusive, reverse), tensor(), axis, total)
    for window in (1, 3, 5):
        yield probe("lrn.window", window, tensor(), layer("lrn", window=window))


def _quantizations() -> Iterator[Probe]:
    """One layer between a network input and a network output, so only 8-bit integers can pass."""
    for dtype, scale, low in product(FLOATS, _SCALE_TYPES, _QUANTIZED):
        for name, shape, axis in (("unset", (), None), ("tensor", (), 0), ("channel", (4,), 1)):
            quantize = layer("quantize", 0, 1, to=low, axis=axis)
            yield probe(f"quantize.{low}.{dtype}.{name}", scale, tensor(dtype), constant(scale, shape), quantize)
            back = layer("dequantize", 0, 1, to=dtype, axis=axis)
            yield probe(f"dequantize.{low}.{dtype}.{name}", scale, tensor(low), constant(scale, shape), back)
    for axis in range(-1, 5):
        for name, shape in (("tensor", ()), ("channel", (4,))):
            quantize = layer("quantize", 0, 1, to="int8", axis=axis)
            yield probe(f"quantize.axis.{name}", axis, tensor(shape=(4,) * 4), constant("float32", shape), quantize)
            back = layer("dequantize", 0, 1, to="float32", axis=axis)
            yield probe(f"dequantize.axis.{name}", axis, tensor("int8", (4,) * 4), constant("float32", shape), back)
    computed = layer("quantize", 0, 1, to="int8", axis=1)
    yield probe("quantize.scale", "computed", tensor(), tensor(shape=(4,)), computed)
    for low in ("int8", "float8", "int4"):
        blocked = layer("quantize", 0, 1, to=low, block=[1, 16])
        yield probe("quantize.blocked", low, tensor(shape=(16, 32)), constant("float32", (16, 2)), blocked)


def _quantized_chains() -> Iterator[Probe]:
    for dtype, low, axis in product(FLOATS, _QUANTIZED, (None, 0, 1)):
        shape: tuple[int, ...] = () if axis != 1 else (4,)
        pair = (layer("quantize", 0, 1, to=low, axis=axis), layer("dequantize", 2, 1, to=dtype, axis=axis))
        yield probe(f"quantize.pair.{low}.{dtype}", axis, tensor(dtype), constant("float32", shape), *pair)
    for dtype, low in product(FLOATS, _QUANTIZED):
        shape = (4,) if low != "float4" else (4, 1)
        weights = (constant(low, (4, 16)), constant(dtype, shape), layer("dequantize", 0, 1, to=dtype, axis=0))
        yield probe(f"dequantize.weights.{low}", dtype, *weights)
        pair = (layer("quantize", 0, 1, to=low, axis=0), layer("dequantize", 2, 1, to=dtype, axis=0))
        for op in ("identity", "shuffle", "concatenation"):
            body = {
                "identity": layer("identity", 2),
                "shuffle": layer("shuffle", 2, reshape=[4, 64]),
                "concatenation": layer("concatenation", 2, 2, axis=1),
            }[op]
            chain = (tensor(dtype), constant(dtype), pair[0], body, layer("dequantize", 3, 1, to=dtype, axis=0))
            yield probe(f"quantize.{op}.{low}", dtype, *chain)


def _normalizations() -> Iterator[Probe]:
    for axes in ([1], [2], [3], [2, 3], [1, 2, 3], [0, 2, 3], [0]):
        shape = (
            [8 if axis in axes and axis > 1 else 1 for axis in range(4)] if 1 in axes or axes == [3] else [1, 4, 1, 1]
        )
        shape[1] = 4
        parameters = (constant("float32", shape), constant("float32", shape))
        yield probe("normalization.axes", axes, tensor(), *parameters, layer("normalization", 0, 1, 2, axes=axes))
    for groups, second in product((1, 2, 4), (False, True)):
        shape = [1, 4 if second else groups, 1, 1]
        parameters = (constant("float32", shape), constant("float32", shape))
        normalize = layer("normalization", 0, 1, 2, axes=[2, 3], groups=groups, second=second)
        yield probe(f"normalization.groups.{'v2' if second else 'v1'}", groups, tensor(), *parameters, normalize)
    computed = (tensor(shape=(1, 4, 1, 1)), tensor(shape=(1, 4, 1, 1)))
    yield probe("normalization.scale", "computed", tensor(), *computed, layer("normalization", 0, 1, 2, axes=[2, 3]))
