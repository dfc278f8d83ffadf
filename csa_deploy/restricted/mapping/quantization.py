"""Quantization, and integer arithmetic, which no parser imports."""

from __future__ import annotations

import numpy as np

from csa_deploy.restricted.mapping.recorder import Recorder, UnmappableError, importer


@importer("QuantizeLinear", "DequantizeLinear")
def _quantize(net: Recorder) -> None:
    source, scale = net.tensor(0), net.tensor(1)
    zero_point = net.node.input(2)
    zero = False if zero_point is None else None if zero_point.data is None else bool(zero_point.data.any())
    unsigned = "uint8" in (net.dtype(source), net.dtype(net.out))
    if unsigned or (zero and "uint8" in (source.dtype, net.out.dtype)):
        raise UnmappableError("not-imported", "unsigned 8-bit quantization")
    if zero or (zero_point is not None and not zero_point.const):
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
