"""Convolution, deconvolution and pooling."""

from __future__ import annotations

from typing import Any

from csa_deploy.restricted.graph import Shape, Value
from csa_deploy.restricted.mapping.recorder import Recorder, UnmappableError, importer


@importer("Conv")
def _conv(net: Recorder) -> None:
    source, weights, bias = net.tensor(0), net.required(1), net.node.input(2)
    window = _window(net, source, weights.shape)
    kernel_inputs = [value for value in (weights, bias) if value is not None and not value.weights]
    maps, groups = weights.shape[0] if weights.shape else None, net.attr("group", 1)
    _require_groups(groups, source.shape, weights.shape)
    facts = {**window, "groups": groups, "output_maps": maps, "weights_const": not kernel_inputs}
    facts |= _buffer(source.shape, window)
    _windowed(net, "CONVOLUTION", source, facts, kernel_inputs)


@importer("ConvTranspose")
def _conv_transpose(net: Recorder) -> None:
    source, weights, bias = net.tensor(0), net.required(1), net.node.input(2)
    window = _window(net, source, weights.shape)
    groups = net.attr("group", 1)
    maps = weights.shape[1] * groups if weights.shape and weights.shape[1] is not None else None
    kernel_inputs = [value for value in (weights, bias) if value is not None and not value.weights]
    facts = {**window, "groups": groups, "output_maps": maps, "weights_const": not kernel_inputs}
    extra = net.attr("output_padding") or [0] * len(window["stride"])
    if (padding := _padding_of_output_shape(net, source, window, extra)) is not None:
        facts["pre_padding"], facts["post_padding"] = padding
        extra = [0] * len(extra)
    remaining = [pad - more for pad, more in zip(facts["post_padding"], extra, strict=True)]
    facts["post_padding"] = [max(pad, 0) for pad in remaining]
    _windowed(net, "DECONVOLUTION", source, facts, kernel_inputs)
    if min(remaining) < 0:  # what the padding cannot take up is added behind
        ones = [1] * (source.rank or 0)
        net.add("SLICE", [net.out], net.out, mode="FILL", stride=ones, axes=None, shape_const=True)


def _padding_of_output_shape(
    net: Recorder, source: Value, window: dict[str, Any], extra: list[int]
) -> tuple[list[int], list[int]] | None:
    """Padding of a ConvTranspose that names its output's size instead; a negative one behind is added by a Slice.

    Raises:
        UnmappableError: the input's size is not known.
    """
    same = net.attr("auto_pad", "NOTSET").startswith("SAME")
    target = net.attr("output_shape")
    if same and net.version >= (10,):
        return None  # the layer carries the mode; its padding attributes stay 0
    count = len(window["stride"])
    sides = (source.shape or ())[2:]
    if target is None and not same:
        return None
    if count == 1 and not same and net.version >= (10,):  # refused for most sizes, by a check of an axis it has not
        raise UnmappableError("mapping-failed", "the parser reads an output shape along one axis wrongly")
    if len(sides) != count or None in sides or None in window["kernel"]:
        raise UnmappableError("unknown-shape", "the padding of this ConvTranspose does not follow from its shapes")
    if target is None:
        target = [side * step for side, step in zip(sides, window["stride"], strict=True) if side is not None]
    pre, post = [], []
    for axis, (side, size) in enumerate(zip(sides, target[-count:], strict=True)):
        step, reach = window["stride"][axis], (window["kernel"][axis] - 1) * window["dilation"][axis] + 1
        total = step * ((side or 0) - 1) + extra[axis] + reach - size
        before = max(total, 0) // 2
        if total < -1 and net.attr("auto_pad", "NOTSET") == "NOTSET":
            net.refuse_from_10("an output shape that asks for negative padding in front")
        pre.append(before if net.attr("auto_pad") != "SAME_LOWER" else max(total, 0) - before)
        post.append(total - pre[-1])
    return pre, post


@importer("MaxPool", "AveragePool")
def _pool(net: Recorder) -> None:
    source = net.tensor(0)
    window = _window(net, source, None)
    if source.rank == 5 and net.dtype(source) in ("int8", "uint8"):
        net.refuse_from_10(f"3-D pooling of {net.dtype(source)}")
    if any(dilation != 1 for dilation in window["dilation"]):
        raise UnmappableError("not-imported", "a dilated pooling window")
    del window["dilation"]
    facts: dict[str, Any] = {"kind": "MAX" if net.node.op == "MaxPool" else "AVERAGE", **window}
    facts["count_include_pad"] = bool(net.attr("count_include_pad", 0))
    facts["ceil_mode"] = bool(net.attr("ceil_mode", 0))
    same = net.attr("auto_pad", "NOTSET").startswith("SAME")  # such windows end where the padding does
    facts["post_reach"] = facts["post_padding"] if same else _post_reach(source.shape, facts)
    sides = zip(facts["pre_padding"] + facts["post_reach"], facts["kernel"] * 2, strict=True)
    if (
        facts["kind"] == "AVERAGE"
        and not facts["count_include_pad"]
        and any(p is not None and p >= k for p, k in sides)
    ):
        net.refuse_from_10("average pooling that counts no padding and whose padding reaches the window")
    if len([output for output in net.node.outputs if output.name]) > 1:
        raise UnmappableError("not-imported", "the indices output of MaxPool")
    _windowed(net, "POOLING", source, facts, [])


@importer("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(net: Recorder) -> None:
    source = net.tensor(0)
    axes = None if source.rank is None else list(range(2, source.rank))
    if axes == []:
        net.refuse_from_10(f"an input of rank {source.rank}: no axis to reduce")
    if net.node.op == "GlobalLpPool":
        powered = net.elementwise("POW", source, net.scalar(source.dtype, source.rank))
        reduced = net.add("REDUCE", [powered], net.out, kind="SUM", axes=axes, keep_dims=True)
        net.elementwise("POW", reduced, net.scalar(source.dtype, source.rank), net.out)
        return
    kind = "AVG" if net.node.op == "GlobalAveragePool" else "MAX"
    net.add("REDUCE", [source], net.out, kind=kind, axes=axes, keep_dims=True)


@importer("LpPool")
def _lp_pool(net: Recorder) -> None:
    source = net.tensor(0)
    if any(dilation != 1 for dilation in net.attr("dilations", [])):
        raise UnmappableError("not-imported", "a dilated pooling window")
    if net.attr("p", 2) not in (1, 2):
        raise UnmappableError("not-imported", f"p = {net.attr('p')}; the parser knows 1 and 2")
    window = _window(net, source, None)
    del window["dilation"]
    if source.rank == 3:
        net.refuse_from_10("an LpPool over one axis")
    squares = net.attr("p", 2) == 2
    source = net.elementwise("PROD", source, source) if squares else net.unary("ABS", source, net.required(0))
    facts = {**window, "count_include_pad": True, "ceil_mode": bool(net.attr("ceil_mode", 0))}
    net.add("POOLING", [source], net.out, kind="AVERAGE", **facts, post_reach=_post_reach(source.shape, facts))
    net.elementwise("PROD", net.out, net.scalar(source.dtype, source.rank), net.out)
    if squares:
        net.unary("SQRT", net.out, net.out)


def _require_groups(groups: int, source: Shape | None, weights: Shape | None) -> None:
    if groups < 1 or (weights and weights[0] and weights[0] % groups):
        raise UnmappableError("invalid", f"{groups} groups do not divide the output channels")
    if source and weights and source[1] and weights[1] and source[1] != weights[1] * groups:
        raise UnmappableError(
            "invalid", f"{groups} groups of {weights[1]} channels are not the {source[1]} of the input"
        )


def _windowed(net: Recorder, layer: str, source: Value, facts: dict[str, Any], more: list[Value]) -> None:
    """The layer itself; over one spatial axis it runs as two-dimensional between two Shuffles."""
    output = net.out
    if output.shape is not None and any(dim is not None and dim < 1 for dim in output.shape):
        raise UnmappableError("not-imported", f"its output {list(output.shape)} is empty")
    if source.rank != 3:
        net.add(layer, [source, *more], output, **facts, **_reach(source, facts))
        return
    shape = source.shape
    wide = net.unsqueeze(source, None if shape is None else (*shape, 1))
    widened = Value("", output.dtype, None if output.shape is None else (*output.shape, 1))
    for name, fill in (
        ("kernel", 1),
        ("stride", 1),
        ("dilation", 1),
        ("pre_padding", 0),
        ("post_padding", 0),
        ("post_reach", 0),
    ):
        if facts.get(name) is not None:
            facts[name] = [*facts[name], fill]
    facts["spatial_rank"] = 2
    net.add(layer, [wide, *more], widened, **facts, **_reach(wide, facts))
    net.squeeze(widened, output)


def _post_reach(shape: Shape | None, facts: dict[str, Any]) -> list[int | None]:
    """Padding behind, plus how far the last window of a ceil_mode pooling reaches beyond it, per spatial axis."""
    found: list[int | None] = []
    names = ("kernel", "stride", "pre_padding", "post_padding")
    for axis, (window, step, before, after) in enumerate(zip(*(facts[name] for name in names), strict=True), 2):
        size = shape[axis] if shape is not None and axis < len(shape) else None
        if size is None or before is None or not facts["ceil_mode"]:
            found.append(None if size is None and facts["ceil_mode"] else after)
            continue
        steps = -(-(size + before + after - window) // step)
        found.append(after + max(steps * step + window - size - before - after, 0))
    return found


def _reach(source: Value, facts: dict[str, Any]) -> dict[str, Any]:
    """Reach of the dilated window and size of the padded input, per spatial axis."""
    kernel, dilation = facts["kernel"], facts.get("dilation")
    if dilation is None or None in kernel:
        return {}
    sides = zip((source.shape or ())[2:], facts["pre_padding"], facts["post_padding"], strict=False)
    padded = [None if size is None or before is None else size + before + after for size, before, after in sides]
    extent = [(size - 1) * spread + 1 for size, spread in zip(kernel, dilation, strict=True)]
    return {"extent": extent, "padded": padded}


def _window(net: Recorder, source: Value, weights: Shape | None) -> dict[str, Any]:
    """Kernel, stride, padding and dilation per spatial axis.

    Raises:
        UnmappableError: the rank or the window is not known.
    """
    kernel = net.attr("kernel_shape") or (list(weights[2:]) if weights else None)
    if source.rank is None or not kernel or len(kernel) != source.rank - 2:
        raise UnmappableError("unknown-shape", f"the window of this {net.node.op} does not follow from its shapes")
    count = len(kernel)
    stride = list(net.attr("strides", [1] * count))
    dilation = list(net.attr("dilations", [1] * count))
    pads = list(net.attr("pads", [0] * 2 * count))
    mode = net.attr("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER") and net.version >= (10,):
        pads = [0] * 2 * count  # the layer carries the mode; its padding attributes stay 0
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_padding(source.shape, kernel, stride, dilation, upper=mode == "SAME_UPPER")
    return {
        "spatial_rank": count,
        "kernel": list(kernel),
        "stride": stride,
        "dilation": dilation,
        "pre_padding": pads[:count],
        "post_padding": pads[count:],
    }


def _same_padding(
    shape: Shape | None, kernel: list[Any], stride: list[int], dilation: list[int], upper: bool
) -> list[Any]:
    before: list[int | None] = []
    after: list[int | None] = []
    for size, window, step, spread in zip((shape or ())[2:], kernel, stride, dilation, strict=False):
        if size is None or window is None:
            before.append(None)
            after.append(None)
            continue
        total = max((-(-size // step) - 1) * step + (window - 1) * spread + 1 - size, 0)
        less, more = total // 2, total - total // 2
        before.append(less if upper else more)
        after.append(more if upper else less)
    return before + after


def _buffer(shape: Shape | None, window: dict[str, Any]) -> dict[str, int | None]:
    """Banks of DLA's convolution buffer (weights plus data) in FP16 and INT8, of 16 in all; 2-D convolutions only.

    Formula of the DRIVE OS guide, chapter on DLA. It knows no groups, so a depth-wise convolution counts all input
    channels too.
    """
    known = shape is not None and len(shape) == 4 and None not in (*shape[1:], *window["kernel"])
    if not known or shape is None or shape[1] is None or shape[3] is None:
        return {"buffer_fp16": None, "buffer_int8": None}
    channels, width = shape[1], shape[3]
    rows, columns = window["kernel"]
    reach = (rows - 1) * window["dilation"][0] + 1

    def banks(size: int) -> int:
        weights = -(-(-(-(channels * rows * columns * size) // 128) * 128) // 32768)
        entries = -(-(-(-(channels * size) // 32) * width) // 4)
        return weights + -(-(entries * reach) // 256)

    return {"buffer_fp16": banks(2), "buffer_int8": banks(1)}
