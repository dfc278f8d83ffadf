"""Operators that move data without computing: reshapes, slices, concatenations, gathers."""

from __future__ import annotations

import numpy as np

from csa_deploy.restricted.graph import Value
from csa_deploy.restricted.mapping.recorder import Recorder, UnmappableError, importer


@importer("Reshape")
def _reshape(net: Recorder) -> None:
    source = net.tensor(0)
    if net.attr("shape") is not None or net.required(1).data is not None:
        net.shuffle(source, net.out)
        return
    facts = {"reshapes": True, "shape_const": False, "moves_batch": None, "permutation": None}
    net.add("SHUFFLE", [source, net.required(1)], net.out, **facts)


@importer("Flatten")
def _flatten(net: Recorder) -> None:
    source = net.required(0)
    if source.rank == 2 and net.attr("axis", 1) in (1, -1):
        if net.version >= (10,):
            net.add("IDENTITY", [net.as_tensor(source)], net.out)
        return
    net.shuffle(net.as_tensor(source), net.out)


@importer("Squeeze")
def _squeeze(net: Recorder) -> None:
    source, axes = net.tensor(0), net.ints(1, "axes")
    if net.version >= (10, 7):
        net.add("SQUEEZE", [source, *_axes_tensor(net, axes)], net.out, axes=_front(net, axes, source.rank))
        return
    net.shuffle(source, net.out, const=axes is not None or net.node.input(1) is None)


@importer("Unsqueeze")
def _unsqueeze(net: Recorder) -> None:
    source, axes = net.tensor(0), net.ints(1, "axes")
    if axes is None:
        raise UnmappableError("mapping-failed", "its axes are not constant")
    if net.version >= (10, 7):
        net.add("UNSQUEEZE", [source, *_axes_tensor(net, axes)], net.out, axes=_front(net, axes, net.out.rank))
        return
    net.shuffle(source, net.out)


def _axes_tensor(net: Recorder, axes: list[int] | None) -> list[Value]:
    value = net.node.input(1)
    if value is not None and not value.const:
        return [value]
    count = len(axes) if axes else 1
    return [net.as_tensor(Value("", "int64", (count,), True))]


def _front(net: Recorder, axes: list[int] | None, rank: int | None) -> list[int] | None:
    if axes is None:
        return None
    return [axis for axis in (net.axis(axis, rank) for axis in axes) if axis is not None]


@importer("Transpose")
def _transpose(net: Recorder) -> None:
    source = net.tensor(0)
    permutation = net.attr("perm")
    if permutation is None and source.rank is not None:
        permutation = list(reversed(range(source.rank)))
    if permutation is None:
        raise UnmappableError("unknown-shape", "the rank of its input is not known")
    if source.rank is not None and sorted(permutation) != list(range(source.rank)):
        raise UnmappableError("mapping-failed", f"permutation {permutation} does not fit rank {source.rank}")
    net.shuffle(source, net.out, permutation)


@importer("Concat")
def _concat(net: Recorder) -> None:
    values = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    net.add("CONCATENATION", values, net.out, axis=net.axis(net.attr("axis", 1), net.out.rank))


@importer("Slice")
def _slice(net: Recorder) -> None:
    source = net.tensor(0)
    axes, steps, starts, ends = net.ints(3, "axes"), net.ints(4, ""), net.ints(1, "starts"), net.ints(2, "ends")
    const = starts is not None and ends is not None
    if axes is None and starts is not None and net.node.input(3) is None:
        axes = list(range(len(starts)))
    front = _front(net, axes, source.rank)
    stride = None
    if source.rank is not None and front is not None:
        stride = [1] * source.rank
        for axis, step in zip(front, steps or [], strict=False):
            stride[axis] = step
    cut = _cut_axes(source, net.out)
    more = [value for value in net.node.inputs[1:] if value is not None and not value.const]
    facts = {"mode": "STRICT_BOUNDS", "stride": stride, "axes": front if cut is None else cut, "shape_const": const}
    net.add("SLICE", [source, *more], net.out, **facts)


def _cut_axes(source: Value, output: Value) -> list[int] | None:
    """Axes whose length changes; None when a shape is not known."""
    if source.shape is None or output.shape is None or None in (*source.shape, *output.shape):
        return None
    pairs = zip(source.shape, output.shape, strict=False)
    return [axis for axis, (before, after) in enumerate(pairs) if before != after]


@importer("Split")
def _split(net: Recorder) -> None:
    source = net.tensor(0)
    axis = net.axis(net.attr("axis", 0), source.rank)
    stride = None if source.rank is None else [1] * source.rank
    for output in net.node.outputs:
        axes = None if axis is None else [axis]
        net.add("SLICE", [source], output, mode="STRICT_BOUNDS", stride=stride, axes=axes, shape_const=True)


@importer("Pad")
def _pad(net: Recorder) -> None:
    source, pads = net.tensor(0), net.ints(1, "pads")
    const = pads is not None
    if pads is not None and not any(pads):
        if net.version >= (10,):
            net.add("IDENTITY", [source], net.out)
        return
    mode = {"constant": "FILL", "reflect": "REFLECT", "edge": "CLAMP", "wrap": "WRAP"}.get(net.attr("mode", "constant"))
    if mode is None:
        raise UnmappableError("not-imported", f"mode {net.attr('mode')}")
    value = net.node.input(2)
    fill = [net.as_tensor(value)] if value is not None and mode == "FILL" and not _is_zero(value) else []
    stride = None if source.rank is None else [1] * source.rank
    facts = {"mode": mode, "stride": stride, "axes": _cut_axes(source, net.out), "shape_const": const}
    net.add("SLICE", [source, *fill], net.out, **facts)


def _is_zero(value: Value) -> bool:
    return value.data is not None and not np.any(value.data)


@importer("Expand", "Tile")
def _expand(net: Recorder) -> None:
    source, target = net.tensor(0), net.required(1)
    if net.node.op == "Expand" and source.rank is not None and net.out.rank is not None and source.rank < net.out.rank:
        source = net.same_rank(source, net.out)[0]
    facts = {
        "mode": "WRAP" if net.node.op == "Tile" else "STRICT_BOUNDS",
        "stride": None if source.rank is None else [1] * source.rank,
        "axes": _cut_axes(source, net.out),
        "shape_const": target.data is not None,
    }
    net.add("SLICE", [source], net.out, **facts)


@importer("Gather", "GatherElements", "GatherND")
def _gather(net: Recorder) -> None:
    source, indices = net.tensor(0), net.index(net.tensor(1))
    kind = {"Gather": "DEFAULT", "GatherElements": "ELEMENT", "GatherND": "ND"}[net.node.op]
    axis = None if kind == "ND" else net.axis(net.attr("axis", 0), source.rank)
    net.add("GATHER", [source, indices], net.out, mode=kind, axis=axis, indices_const=indices.const)


@importer("ScatterND", "ScatterElements", "Scatter")
def _scatter(net: Recorder) -> None:
    if net.attr("reduction", "none") != "none":
        raise UnmappableError("not-imported", f"reduction {net.attr('reduction')}")
    source, indices, updates = net.tensor(0), net.tensor(1), net.tensor(2)
    nd = net.node.op == "ScatterND"
    axis = None if nd else net.axis(net.attr("axis", 0), source.rank)
    mode = "ND" if nd else "ELEMENT"
    net.add("SCATTER", [source, indices, updates], net.out, mode=mode, axis=axis, indices_const=indices.const)


@importer("DepthToSpace", "SpaceToDepth")
def _depth_space(net: Recorder) -> None:
    """Two Shuffles: split and transpose, then join."""
    source = net.tensor(0)
    if net.dtype(source) in ("bool", "uint8"):
        net.refuse_from_10(f"a {net.node.op} of {net.dtype(source)}")
    block = net.attr("blocksize", 1)
    moved = None
    order = [0, 3, 5, 1, 2, 4]
    if source.shape is not None and len(source.shape) == 4 and None not in source.shape:
        n, c, h, w = (dim or 0 for dim in source.shape)
        split = (n, c, h // block, block, w // block, block)
        if net.node.op == "DepthToSpace":
            depth = c // (block * block)
            crd = net.attr("mode", "DCR") == "CRD"
            split = (n, depth, block, block, h, w) if crd else (n, block, block, depth, h, w)
            order = [0, 1, 4, 2, 5, 3] if crd else [0, 3, 4, 1, 5, 2]
        moved = tuple(split[axis] for axis in order)
    facts = {"permutation": order, "reshapes": True, "moves_batch": False, "shape_const": True}
    net.shuffle(net.add("SHUFFLE", [source], Value("", source.dtype, moved), **facts), net.out)


@importer("Shape")
def _shape(net: Recorder) -> None:
    source = net.tensor(0)
    net.add("SHAPE", [source], net.out)


@importer("Size")
def _size(net: Recorder) -> None:
    shape = net.add("SHAPE", [net.tensor(0)], Value("", "int64", (net.required(0).rank,)))
    net.add("REDUCE", [shape], net.out, kind="PROD", axes=[0], keep_dims=False)


@importer("ConstantOfShape")
def _constant_of_shape(net: Recorder) -> None:
    value = net.scalar(net.out.dtype, net.out.rank)
    stride = None if net.out.rank is None else [0] * net.out.rank
    net.add(
        "SLICE", [value, net.required(0)], net.out, mode="STRICT_BOUNDS", stride=stride, axes=None, shape_const=False
    )


@importer("EyeLike")
def _eye(net: Recorder) -> None:
    net.scalar(net.out.dtype, net.out.rank)


@importer("Range")
def _range(net: Recorder) -> None:
    inputs = [value for value in net.node.inputs if value is not None and not value.const]
    net.add("FILL", inputs, net.out, kind="LINSPACE")


@importer("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
def _random(net: Recorder) -> None:
    kind = "RANDOM_NORMAL" if "Normal" in net.node.op else "RANDOM_UNIFORM"
    net.add("FILL", [], net.out, kind=kind)


@importer("ReverseSequence")
def _reverse_sequence(net: Recorder) -> None:
    net.add("REVERSE_SEQUENCE", [net.tensor(0), net.tensor(1)], net.out)


@importer("Trilu")
def _trilu(net: Recorder) -> None:
    source = net.tensor(0)
    index, mask = Value("", "int32", source.shape), Value("", "bool", source.shape)
    rows, columns = net.add("FILL", [], index, kind="LINSPACE"), net.add("FILL", [], index, kind="LINSPACE")
    if net.version >= (10,):
        rows, columns = net.cast(rows, "int64"), net.cast(columns, "int64")
    rows = net.elementwise("SUM", rows, net.scalar(rows.dtype, rows.rank))
    kept = net.elementwise("GREATER" if net.attr("upper", 1) else "LESS", columns, rows, mask)
    edge = net.elementwise("EQUAL", columns, rows, mask)
    net.elementwise("OR", kept, edge, mask)
    net.add("SELECT", [mask, source, net.scalar(source.dtype, source.rank)], net.out)
