"""Quantization, control flow, recurrent and detection operators."""

from __future__ import annotations

import numpy as np

from csa_deploy.restricted.graph import Value
from csa_deploy.restricted.mapping.recorder import Recorder, UnmappableError, importer


@importer("QuantizeLinear", "DequantizeLinear")
def _quantize(net: Recorder) -> None:
    source, scale = net.tensor(0), net.tensor(1)
    zero_point = net.node.input(2)
    zero = False if zero_point is None else None if zero_point.data is None else bool(zero_point.data.any())
    unsigned = "uint8" in (net.dtype(source), net.dtype(net.out))
    if unsigned or (zero and "uint8" in (source.dtype, net.out.dtype)):
        raise UnmappableError("not-imported", "unsigned 8-bit quantization")
    if zero or zero is None:
        net.refuse_from_10("a zero point other than 0" if zero else "a zero point that is known at run time only")
    block = net.attr("block_size", 0)
    granularity = "BLOCK" if block else "TENSOR" if scale.elements == 1 else "CHANNEL"
    axis = None if granularity == "TENSOR" else net.axis(net.attr("axis", 1), source.rank)
    with np.errstate(invalid="ignore"):  # a narrow type's NaN warns when it is widened
        finite = scale.data is None or bool(np.isfinite(scale.data.astype("float64")).all())
    layer = "QUANTIZE" if net.node.op == "QuantizeLinear" else "DEQUANTIZE"
    facts = {
        "granularity": granularity,
        "axis": axis,
        "block_size": block,
        "zero_point": zero,
        "non_finite": not finite,
    }
    net.add(layer, [source, scale], net.out, **facts, to=net.dtype(net.out))


@importer("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
def _integer_arithmetic(net: Recorder) -> None:
    raise UnmappableError(
        "not-imported", "no importer; INT8 is QuantizeLinear and DequantizeLinear around Conv or MatMul"
    )


@importer("If")
def _if(net: Recorder) -> None:
    condition = net.tensor(0)
    net.add("CONDITION", [condition], condition)
    for output in net.node.outputs:
        net.add("CONDITIONAL_OUTPUT", [output, output], output)


@importer("Loop", "Scan")
def _loop(net: Recorder) -> None:
    inputs = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    is_loop = net.node.op == "Loop"
    for index, dtype in enumerate(("int32", "bool") if is_loop else ("int32",)):  # trip count, then condition
        if not is_loop or net.node.input(index) is not None:
            limit = Value("", dtype, ())
            net.add("TRIP_LIMIT", [limit], limit)
    carried = [net.as_tensor(value) for value in net.node.inputs[2:] if value is not None] if is_loop else inputs
    for value in carried:
        net.add("RECURRENCE", [value], value)
    if not is_loop and carried and net.version >= (10,):  # the trip count is read off the last scanned input
        net.add("SHAPE", [carried[-1]], Value("", "int64", (carried[-1].rank,)))
    for output in net.node.outputs:
        net.add("LOOP_OUTPUT", [output], output)


@importer("RNN", "LSTM", "GRU")
def _recurrent(net: Recorder) -> None:
    source = net.tensor(0)
    if net.node.op != "LSTM" and net.dtype(source) != "float32":
        net.refuse_from_10(f"a {net.node.op} of {net.dtype(source)}: its initial state is float32")
    output = next((value for value in net.node.outputs if value.name), net.out)
    weights = net.required(2).shape
    batch = None if source.shape is None else source.shape[net.attr("layout", 0) ^ 1]
    # The state of all directions: [directions, batch, hidden size].
    state = Value("", source.dtype, None if weights is None else (weights[0], batch, weights[2]))
    step = Value("", source.dtype, None if source.shape is None else source.shape[1:])
    limit = Value("", "int32", ())
    net.add("TRIP_LIMIT", [limit], limit)
    net.add("ITERATOR", [source], step)
    net.add("RECURRENCE", [state], state)
    net.add("MATRIX_MULTIPLY", [state, state], state, transpose=["NONE", "TRANSPOSE"])
    net.activation("SIGMOID" if net.node.op != "RNN" else "TANH", state, state)
    net.elementwise("SUM", state, state, state)
    net.add("LOOP_OUTPUT", [state], output)


@importer("OneHot")
def _one_hot(net: Recorder) -> None:
    indices, depth, values = net.tensor(0), net.tensor(1), net.tensor(2)
    net.add("ONE_HOT", [indices, values, depth], net.out, axis=net.axis(net.attr("axis", -1), net.out.rank))


@importer("NonZero")
def _non_zero(net: Recorder) -> None:
    net.add("NON_ZERO", [net.tensor(0)], net.out)


@importer("GridSample")
def _grid_sample(net: Recorder) -> None:
    if net.required(0).rank not in (None, 4):
        net.refuse_from_10(f"an input of rank {net.required(0).rank}; GridSample layers have rank 4")
    kinds = [net.dtype(net.required(index)) for index in range(2)]
    if kinds[0] != kinds[1]:
        net.refuse_from_10(f"input and grid of different types, {kinds[0]} and {kinds[1]}")
    mode = {"bilinear": "LINEAR", "linear": "LINEAR", "nearest": "NEAREST", "bicubic": "CUBIC", "cubic": "CUBIC"}
    net.add("GRID_SAMPLE", [net.tensor(0), net.tensor(1)], net.out, mode=mode.get(net.attr("mode", "bilinear")))


@importer("NonMaxSuppression")
def _nms(net: Recorder) -> None:
    values = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    boxes, scores = values[0], values[1]
    turned = Value("", scores.dtype, None if scores.shape is None else tuple(scores.shape[i] for i in (0, 2, 1)))
    net.add("NMS", [boxes, net.shuffle(scores, turned, [0, 2, 1]), *values[2:]], net.out)


@importer("RoiAlign")
def _roi_align(net: Recorder) -> None:
    inputs = [net.tensor(index) for index in range(3)]
    recent = net.version >= (10,)
    facts = {"plugin": "ROIAlign_TRT", "plugin_kind": "IPluginV3" if recent else "IPluginV2DynamicExt"}
    net.add("PLUGIN_V3" if recent else "PLUGIN_V2", inputs, net.out, **facts)


@importer("DeformConv", since=(10,))
def _deform_conv(net: Recorder) -> None:
    inputs = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    net.add("PLUGIN_V2", inputs, net.out, plugin="ModulatedDeformConv2d", plugin_kind="IPluginV2DynamicExt")


@importer("Hardmax", since=(10,))
def _hardmax(net: Recorder) -> None:
    if net.opset >= 13:  # as for Softmax
        net.refuse_vectors()
    source = net.tensor(0)
    axis = net.axis(net.attr("axis", -1), source.rank)
    if net.opset >= 13:
        net.refuse_far_axis(axis, source.rank)
    kept = None
    if source.shape is not None and axis is not None:
        kept = (*source.shape[:axis], 1, *source.shape[axis + 1 :])
    best = Value("", "int32", kept)
    net.add("TOPK", [source], [Value("", source.dtype, kept), best], kind="MAX", k=1, axes=[axis])
    narrow = None if kept is None or axis is None else (*kept[:axis], *kept[axis + 1 :])
    best = net.squeeze(best, Value("", "int32", narrow))
    hot = Value("", "int32", source.shape)
    values, depth = net.as_tensor(Value("", "int32", (2,), True)), net.as_tensor(Value("", "int32", (), True))
    net.add("ONE_HOT", [best, values, depth], hot, axis=axis)
    net.cast(hot, source.dtype, net.out)
