"""Reductions, normalizations, matrix products and softmax."""

from __future__ import annotations

from csa_deploy.restricted.graph import Shape, Value
from csa_deploy.restricted.mapping.recorder import Recorder, UnmappableError, importer

_REDUCTIONS = {"ReduceMax": "MAX", "ReduceMean": "AVG", "ReduceMin": "MIN", "ReduceProd": "PROD", "ReduceSum": "SUM"}


@importer(*_REDUCTIONS)
def _reduce(net: Recorder) -> None:
    _add_reduce(net, net.tensor(0), _REDUCTIONS[net.node.op])


@importer("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
def _composed_reduce(net: Recorder) -> None:
    source, op = net.tensor(0), net.node.op
    inner = Value("", source.dtype, source.shape)
    if op == "ReduceL1":
        source = net.unary("ABS", source, inner)
    elif op in ("ReduceL2", "ReduceSumSquare"):
        source = net.elementwise("PROD", source, source, inner)
    elif op == "ReduceLogSumExp":
        source = net.unary("EXP", source, inner)
    _add_reduce(net, source, "SUM")
    if op == "ReduceL2":
        net.unary("SQRT", net.out, net.out)
    elif op.startswith("ReduceLog"):
        net.unary("LOG", net.out, net.out)


def _add_reduce(net: Recorder, source: Value, kind: str) -> None:
    axes = net.ints(1, "axes")
    given = net.node.input(1)
    if given is not None and given.computed:
        net.refuse_from_10("axes that a node computes, constant or not; the parser wants an initializer")
    if axes is None and net.node.input(1) is not None:
        raise UnmappableError("not-imported", "axes that are not constant")
    if not axes:
        if net.attr("noop_with_empty_axes", 0):
            net.add("IDENTITY", [source], net.out)
            return
        if source.rank == 0:
            net.refuse_from_10("an input without dimensions")
        axes = None if source.rank is None else list(range(source.rank))
    front = None if axes is None else [net.axis(axis, source.rank) for axis in axes]
    net.add("REDUCE", [source], net.out, kind=kind, axes=front, keep_dims=bool(net.attr("keepdims", 1)))


@importer("ArgMax", "ArgMin")
def _arg(net: Recorder) -> None:
    net.refuse_vectors()
    source = net.tensor(0)
    axis = net.axis(net.attr("axis", 0), source.rank)
    net.refuse_far_axis(axis, source.rank)
    kept = None
    if source.shape is not None and axis is not None:
        kept = (*source.shape[:axis], 1, *source.shape[axis + 1 :])
    values, indices = Value("", source.dtype, kept), Value("", "int32", kept)
    kind = "MAX" if net.node.op == "ArgMax" else "MIN"
    last = bool(net.attr("select_last_index", 0))
    if last:  # the first of the reversed axis
        if source.rank is None:
            raise UnmappableError("unknown-shape", "the rank of its input is not known")
        stride = [-1 if index == axis else 1 for index in range(source.rank)]
        facts = {"mode": "STRICT_BOUNDS", "stride": stride, "axes": [], "shape_const": True}
        source = net.add("SLICE", [source], Value("", source.dtype, source.shape), **facts)
    net.add("TOPK", [source], [values, indices], kind=kind, k=1, axes=None if axis is None else [axis])
    if net.version >= (10,):
        indices = net.cast(indices, "int64")
    if last:
        for _ in range(2):
            indices = net.elementwise("SUB", net.scalar(indices.dtype, indices.rank), indices)
    if not net.attr("keepdims", 1):
        indices = net.squeeze(indices, Value("", indices.dtype, net.out.shape))
    if net.version >= (10,):
        net.cast(indices, "int64", net.out)


@importer("TopK")
def _topk(net: Recorder) -> None:
    source, count = net.tensor(0), net.ints(1, "k")
    axis = net.axis(net.attr("axis", -1), source.rank)
    net.refuse_far_axis(axis, source.rank)
    kind = "MAX" if net.attr("largest", 1) else "MIN"
    k = count[0] if count else None
    more = [value for value in net.node.inputs[1:] if value is not None and not value.const]
    facts = {"kind": kind, "k": k, "axes": None if axis is None else [axis]}
    if not (10,) <= net.version < (11,) or len(net.node.outputs) < 2:
        net.add("TOPK", [source, *more], list(net.node.outputs), **facts)
        return
    values, indices = net.node.outputs[:2]
    found = Value("", "int32", indices.shape)
    net.add("TOPK", [source, *more], [values, found], **facts)
    net.cast(found, "int64", indices)


@importer("Softmax", "LogSoftmax")
def _softmax(net: Recorder) -> None:
    if net.opset >= 13:  # older ones are flattened to two dimensions
        net.refuse_vectors()
    source = net.tensor(0)
    axis = net.axis(net.attr("axis", -1 if net.opset >= 13 else 1), source.rank)
    if source.shape is None or axis is None:
        raise UnmappableError("unknown-shape", "the rank of its input is not known")
    flat, output = source, net.out
    if net.opset < 13:
        flat = net.reshape(source, _flattened(source.shape, axis))
        axis = 1
        output = Value("", source.dtype, flat.shape)
    lengths = list(flat.shape or ())
    others = [dim for index, dim in enumerate(lengths) if index not in (0, axis)]
    known = None not in others
    facts = {"axes": [axis], "axis": axis, "axis_length": lengths[axis] if lengths else None}
    facts["other_axes_max"] = max((dim for dim in others if dim is not None), default=1) if known else None
    net.add("SOFTMAX", [flat], output, **facts)
    net.shuffle(output, net.out)
    if net.node.op == "LogSoftmax":
        net.unary("LOG", net.out, net.out)


def _flattened(shape: Shape, axis: int) -> Shape:
    def length(dims: Shape) -> int | None:
        total = 1
        for dim in dims:
            if dim is None:
                return None
            total *= dim
        return total

    return length(shape[:axis]), length(shape[axis:])


@importer("Gemm")
def _gemm(net: Recorder) -> None:
    net.require_opset_7()
    a, b = net.tensor(0), net.tensor(1)
    scaled = net.attr("alpha", 1.0) != 1.0 or (net.attr("beta", 1.0) != 1.0 and net.node.input(2) is not None)
    if scaled and net.dtype(a) != "float32":
        net.refuse_from_10(f"alpha or beta of a Gemm of {net.dtype(a)}: they become float32 constants")
    transpose = ["TRANSPOSE" if net.attr(name, 0) else "NONE" for name in ("transA", "transB")]
    product = Value("", net.out.dtype, net.out.shape)
    net.add("MATRIX_MULTIPLY", [a, b], product, transpose=transpose)
    bias = net.node.input(2)
    if net.attr("alpha", 1.0) != 1.0:
        net.elementwise("PROD", net.scalar(a.dtype, 2), product, product)
    if bias is None:
        return
    added = net.as_tensor(bias)
    if net.attr("beta", 1.0) != 1.0:
        added = net.elementwise("PROD", net.scalar(a.dtype, added.rank), added)
    net.elementwise("SUM", product, added, net.out)


@importer("MatMul")
def _matmul(net: Recorder) -> None:
    a, b = net.tensor(0), net.tensor(1)
    if a.rank == 1 and b.shape is not None and any(dim != 1 for dim in b.shape[:-2]):
        net.refuse_from_10(f"a vector times a tensor of shape {list(b.shape)}: the result loses its first dimension")
    if a.rank is None or b.rank is None:
        raise UnmappableError("unknown-shape", "the ranks of its inputs are not known")
    squeeze = (a.rank == 1) != (b.rank == 1)
    if b.rank == 1 and a.rank > 1:
        b = net.unsqueeze(b, (*(b.shape or ()), 1))
    a, b = net.same_rank(a, b)
    transpose = ["VECTOR" if value.rank == 1 else "NONE" for value in (a, b)]
    net.add("MATRIX_MULTIPLY", [a, b], net.out, transpose=transpose)
    if squeeze:
        net.squeeze(net.out, net.out)


@importer("Einsum")
def _einsum(net: Recorder) -> None:
    values = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    net.add("EINSUM", values, net.out, equation=net.attr("equation", "").replace(" ", ""))


@importer("BatchNormalization")
def _batch_norm(net: Recorder) -> None:
    if net.attr("training_mode", 0):
        raise UnmappableError("not-imported", "BatchNormalization in training mode")
    source = net.tensor(0)
    parameters = [net.required(index) for index in range(1, 5)]
    if not all(value.weights for value in parameters):
        _unfolded_batch_norm(net, source, parameters)
        return
    shape, output = source.shape, net.out
    if shape is None:
        raise UnmappableError("unknown-shape", "the rank of its input is not known")
    if len(shape) in (4, 5):
        net.add("SCALE", [source], output, mode="CHANNEL", power=False)
        return
    wide = (*shape, *(1,) * (4 - len(shape))) if len(shape) < 4 else (*shape[:3], _flattened(shape, 3)[1])
    narrow = len(shape) < 4
    inner = net.unsqueeze(source, wide) if narrow else net.reshape(source, wide)
    scaled = net.add("SCALE", [inner], Value("", output.dtype, wide), mode="CHANNEL", power=False)
    net.reshape(scaled, shape)


def _unfolded_batch_norm(net: Recorder, source: Value, parameters: list[Value]) -> None:
    if source.rank is None:
        raise UnmappableError("unknown-shape", "the rank of its input is not known")
    rank = max(source.rank, 1)
    scale, bias, mean, variance = (
        net.unsqueeze(net.as_tensor(value), (1, *(value.shape or (None,)), *(1,) * (rank - 2))) for value in parameters
    )
    divisor = net.unary("SQRT", net.elementwise("SUM", variance, net.scalar(source.dtype, rank)), variance)
    quotient = net.elementwise("DIV", net.elementwise("SUB", source, mean), divisor)
    net.elementwise("SUM", net.elementwise("PROD", scale, quotient), bias, net.out)


@importer("LayerNormalization")
def _layer_norm(net: Recorder) -> None:
    source = net.tensor(0)
    if source.rank is None:
        raise UnmappableError("unknown-shape", "the rank of its input is not known")
    if len([output for output in net.node.outputs if output.name]) > 1:
        raise UnmappableError("not-imported", "outputs other than the normalized tensor")
    scale = net.tensor(1)
    bias = net.tensor(2) if net.node.input(2) is not None else net.scalar(source.dtype, source.rank)
    first = net.axis(net.attr("axis", -1), source.rank) or 0
    values = net.same_rank(source, scale, bias)
    facts = {"axes": list(range(first, source.rank)), "epsilon": net.attr("epsilon", 1e-5), "groups": 1}
    net.add("NORMALIZATION", values, net.out, **facts)


@importer("InstanceNormalization", "GroupNormalization")
def _channel_norm(net: Recorder) -> None:
    source = net.tensor(0)
    if source.rank is None or source.rank < 3:
        raise UnmappableError("not-imported", "its input has fewer than three dimensions")
    if net.node.op == "InstanceNormalization" and net.version < (10,):
        kind = "IPluginV2DynamicExt"
        net.add("PLUGIN_V2", [source], net.out, plugin="InstanceNormalization_TRT", plugin_kind=kind)
        return
    ones = (1,) * (source.rank - 2)
    weights = [net.tensor(index) for index in (1, 2)]
    scale, bias = (net.unsqueeze(value, (1, *(value.shape or (None,)), *ones)) for value in weights)
    facts = {"axes": list(range(2, source.rank)), "epsilon": net.attr("epsilon", 1e-5)}
    net.add("NORMALIZATION", [source, scale, bias], net.out, **facts, groups=net.attr("num_groups", 1))


@importer("LRN")
def _lrn(net: Recorder) -> None:
    net.add("LRN", [net.tensor(0)], net.out, kernel=[net.attr("size", 1)])


@importer("LpNormalization")
def _lp_norm(net: Recorder) -> None:
    source = net.tensor(0)
    if source.rank == 0:
        net.refuse_from_10("an input without dimensions")
    axis = net.axis(net.attr("axis", -1), source.rank)
    powered = Value("", source.dtype, source.shape)
    if net.attr("p", 2) == 2:
        net.elementwise("PROD", source, source, powered)
    else:
        net.unary("ABS", source, powered)
    reduced = None
    if source.shape is not None and axis is not None:
        reduced = (*source.shape[:axis], 1, *source.shape[axis + 1 :])
    norm = Value("", source.dtype, reduced)
    net.add("REDUCE", [powered], norm, kind="SUM", axes=[axis], keep_dims=True)
    if net.attr("p", 2) == 2:
        net.unary("SQRT", norm, norm)
    zero = net.scalar(source.dtype, source.rank)
    mask = net.elementwise("EQUAL", norm, zero, Value("", "bool", reduced))
    shifted = net.elementwise("SUM", norm, net.cast(mask, source.dtype))
    net.elementwise("DIV", source, shifted, net.out)


@importer("MeanVarianceNormalization")
def _mean_variance(net: Recorder) -> None:
    source = net.tensor(0)
    axes = net.attr("axes", [0, 2, 3])
    shape = None
    if source.shape is not None:
        shape = tuple(1 if index in axes else dim for index, dim in enumerate(source.shape))
    mean = Value("", source.dtype, shape)
    net.add("REDUCE", [source], mean, kind="AVG", axes=list(axes), keep_dims=True)
    centred = net.elementwise("SUB", source, mean)
    squared = net.elementwise("POW", centred, net.scalar(source.dtype, source.rank))
    net.add("REDUCE", [squared], mean, kind="AVG", axes=list(axes), keep_dims=True)
    deviation = net.unary("SQRT", mean, mean)
    net.elementwise("DIV", centred, net.elementwise("SUM", deviation, net.scalar(source.dtype, source.rank)), net.out)


@importer("CumSum")
def _cumsum(net: Recorder) -> None:
    source = net.tensor(0)
    if net.version >= (10, 12):
        net.add("CUMULATIVE", [source], net.out, kind="SUM")
        return
    for layer in ("RECURRENCE", "TRIP_LIMIT", "ITERATOR", "LOOP_OUTPUT"):
        net.add(layer, [source], net.out)
