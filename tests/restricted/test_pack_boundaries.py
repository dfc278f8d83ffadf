"""Each number of the packs against the documented one, and each documented limit on both sides, by a model.

The numbers are written down here a second time, from NVIDIA's documents (DLA) and from what the validator was found to
refuse (drive-os-7). They are compared with those that stand in the packs, and a number that stands in a pack only
fails too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from restricted_networks import constant, model, node, resize, single, value

from csa_deploy.restricted.check import check
from csa_deploy.restricted.schema import load_pack

Numbers = set[tuple[str, float]]

BETWEEN: dict[str, dict[str, dict[str, Numbers]]] = {
    "dla-orin": {
        "dla.batch": {"batch": {("le", 4096)}},
        "dla.dimensions": {"largest_side": {("le", 8192)}},
        "dla.convolution.kernel": {"kernel": {("ge", 1), ("le", 32)}},
        "dla.convolution.padding": {
            "pre_padding": {("ge", 0), ("le", 31)},
            "post_padding": {("ge", 0), ("le", 31)},
        },
        "dla.convolution.stride": {"stride": {("ge", 1), ("le", 8)}},
        "dla.convolution.maps": {"output_maps": {("ge", 1), ("le", 8192)}, "groups": {("ge", 1), ("le", 8192)}},
        "dla.convolution.dilation": {"dilation": {("ge", 1), ("le", 32)}},
        "dla.convolution.buffer": {"buffer_fp16": {("le", 16)}},
        "dla.deconvolution.window": {"kernel": {("ge", 1), ("le", 32)}, "stride": {("ge", 1), ("le", 32)}},
        "dla.deconvolution.square": {"kernel.0": {("ge", 23), ("le", 32)}},
        "dla.pooling": {
            "kernel": {("ge", 1), ("le", 8)},
            "pre_padding": {("ge", 0), ("le", 7)},
            "post_reach": {("ge", 0), ("le", 7)},
            "stride": {("ge", 1), ("le", 16)},
        },
        "dla.pooling.limits": {
            "kernel": {("ge", 1), ("le", 8)},
            "pre_padding": {("ge", 0), ("le", 7)},
            "post_reach": {("ge", 0), ("le", 7)},
            "stride": {("ge", 1), ("le", 16)},
        },
        "dla.activation.clip": {"beta": {("ge", 1), ("le", 127)}},
        "dla.resize.nearest": {"scales": {("ge", 1), ("le", 32)}},
        "dla.resize.linear": {"scales": {("ge", 1), ("le", 4)}},
        "dla.resize.downsizing-fraction": {"scales": {("lt", 1)}},
        "dla.resize.downsizing": {"scales": {("lt", 1)}},
        "dla.resize.scales": {"scales": {("lt", 1), ("le", 32), ("le", 4)}},
        "dla.slice": {"axes": {("ge", 1)}},
        "dla.slice.form": {"axes": {("ge", 1)}},
        "dla.loadables": {"loadables": {("le", 16)}},
        "dla.softmax": {"axis": {("ge", 1)}, "axis_length": {("le", 1024)}},
        "dla.softmax.axis": {"axis": {("ge", 1)}, "axis_length": {("le", 1024)}},
    },
    "drive-os-6": {
        "reduce": {"axes": {("ge", 2)}},
        "reduce.axes": {"axes": {("ge", 2)}},
        "scale": {"in_rank": {("le", 4)}},
        "activation.sigmoid": {"in_rank": {("le", 4)}},
        "activation.relu": {"in_rank": {("le", 4)}},
        "elementwise.sum-product": {"in_rank": {("le", 4)}},
        "shuffle.static": {"in_rank": {("le", 4)}, "out_rank": {("le", 4)}},
        "shuffle.rank": {"in_rank": {("gt", 4)}, "out_rank": {("gt", 4)}},
        "limits.xavier-era": {"batch": {("le", 16)}, "largest_side": {("le", 4096)}},
        "opset.newer-than-parser": {"opset": {("gt", 17)}},
    },
    "drive-os-7": {
        "convolution.kernel": {"kernel": {("le", 18)}},
        "convolution.stride": {"stride": {("le", 8)}},
        "convolution.dilation": {"dilation": {("le", 18)}},
        "convolution.pre-padding": {"pre_padding": {("le", 18)}},
        "convolution.post-padding": {"post_padding": {("le", 18)}},
        "convolution.groups": {"groups": {("le", 16384)}},
        "convolution.output-maps": {"output_maps": {("le", 16384)}},
        "convolution.input-channels": {"in_shape.0.1": {("le", 16384)}},
        "deconvolution.kernel": {"kernel": {("le", 8)}},
        "deconvolution.stride": {"stride": {("le", 8)}},
        "deconvolution.dilation": {"dilation": {("le", 1)}},
        "deconvolution.pre-padding": {"pre_padding": {("le", 8)}},
        "deconvolution.post-padding": {"post_padding": {("le", 8)}},
        "deconvolution.groups": {"groups": {("le", 16384)}},
        "deconvolution.output-maps": {"output_maps": {("le", 4096)}},
        "deconvolution.input-channels": {"in_shape.0.1": {("le", 4096)}},
        "dequantize.axis": {"axis": {("lt", 0)}, "in_rank.0": {("ge", 1)}},
        "dequantize.scale-rank": {"in_rank.1": {("le", 1)}},
        "quantize.axis": {"axis": {("lt", 0)}, "in_rank.0": {("ge", 1)}},
        "quantize.scale-rank": {"in_rank.1": {("le", 1)}},
        "one-hot.axis": {"axis": {("ge", 0)}},
        "pooling.stride": {"stride": {("le", 6)}},
        "pooling.pre-padding": {"pre_padding": {("le", 10)}},
        "pooling.post-padding": {"post_padding": {("le", 10)}},
        "pooling.window": {"kernel": {("le", 22)}},
        "resize.rank": {"in_rank.0": {("ge", 2)}},
        "resize.output-rank": {"out_rank.0": {("ge", 2)}},
        "resize.last-two": {"in_rank.0": {("gt", rank) for rank in range(2, 8)}},
        "scatter.axis": {"axis": {("lt", 0)}},
        "scatter.rank": {"in_rank.0": {("ge", 1)}},
        "scatter.index-rank": {"in_rank.1": {("ge", 1)}},
        "slice.stride": {"stride": {("ge", -1)}},
    },
}
SAME = {
    "dla-orin-8.6.12": "dla-orin",
    "drive-os-6.0.9": "drive-os-6",
    "drive-os-6.0.10": "drive-os-6",
    "drive-os-6.12.1": "drive-os-6",
}
SCALED = {"in_scales.len": {("ge", 1)}}  # no limit of DLA's: whether a convolution computes in INT8
BETWEEN["dla-orin-11"] = BETWEEN["dla-orin"] | {
    "dla.convolution.buffer": {"buffer_fp16": {("le", 16)}, **SCALED},
    "dla.convolution.buffer.int8": {"buffer_int8": {("le", 16)}, **SCALED},
}


def bounds(condition: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(fact, operator, number) of each comparison in a condition; equalities are not limits."""
    for key, test in condition.items():
        parts = test if key in ("all", "any") else [test] if key == "not" else []
        for part in parts:
            yield from bounds(part)
        if not parts and isinstance(test, Mapping):
            for name, operand in test.items():
                if name == "any":
                    yield from bounds({key: operand})
                elif name in ("ge", "gt", "le", "lt") and not isinstance(operand, str):
                    yield key, name, operand


@pytest.mark.parametrize("scope", [*BETWEEN, *SAME, "dla-xavier"])
@pytest.mark.shows("MEA-02")
def test_each_number_of_a_pack_is_the_documented_one(scope: str) -> None:
    documented = dict(BETWEEN[SAME.get(scope, scope) if scope != "dla-xavier" else "dla-orin"])
    if scope == "dla-xavier":  # takes no Softmax at all
        documented = {rule: found for rule, found in documented.items() if "softmax" not in rule}
    stated: dict[str, dict[str, Numbers]] = {}
    for rule in load_pack(scope).rules:
        for fact, name, number in (*bounds(rule.when), *bounds(rule.unless)):
            stated.setdefault(rule.id, {}).setdefault(fact, set()).add((name, number))
    assert stated == documented


def conv(kernel=(1, 1), maps=1, channels=1, side=(80, 80), groups=1, batch=1, **attributes):
    """A convolution over a map that is large enough for any window of these tests."""
    weights = constant("w", np.zeros((maps, channels // groups, *kernel)))
    return single("Conv", [weights], shape=[batch, channels, *side], group=groups, **attributes)


def deconv(kernel=(1, 1), side=(2, 2), channels=1, maps=1, groups=1, **attributes):
    weights = constant("w", np.zeros((channels, maps // groups, *kernel)))
    return single("ConvTranspose", [weights], shape=[1, channels, *side], group=groups, **attributes)


def pool(op="MaxPool", side=(40, 40), **attributes):
    return single(op, shape=[1, 2, *side], **attributes)


def clip(low, high):
    return single("Clip", [constant("low", low), constant("high", high)])


def softmax(*shape, axis=1):
    return model([node("Softmax", ["x"], ["y"], axis=axis)], [value("x", shape)])


def joined(op, first, second, **attributes):
    return model([node(op, ["x", "z"], ["y"], **attributes)], [value("x", first), value("z", second)])


def enlarged(scale, mode="nearest", side=4):
    return resize([1, 1, scale, 1], mode=mode, shape=[1, 2, side, side])


def chain(count):
    """``count`` DLA subgraphs, cut by an operator that DLA does not take."""
    made, last = [], "x"
    for index in range(count):
        made.append(node("Relu", [last], [f"r{index}"], name=f"r{index}"))
        last = f"r{index}"
        if index + 1 < count:
            made.append(node("Elu", [last], [f"e{index}"], name=f"e{index}"))
            last = f"e{index}"
    made[-1].output[0] = "y"
    return model(made)


DLA: dict[str, tuple[Callable[[int], ModelProto], int, str]] = {
    "batch": (lambda n: single("Relu", shape=[n, 1, 1, 1]), 4096, "dla.batch"),
    "leading dimensions": (lambda n: single("Abs", shape=[2, n, 1, 1, 1]), 2048, "dla.batch"),
    "channels": (lambda n: single("Relu", shape=[1, n, 1, 1]), 8192, "dla.dimensions"),
    "height": (lambda n: single("Relu", shape=[1, 1, n, 1]), 8192, "dla.dimensions"),
    "width": (lambda n: single("Relu", shape=[1, 1, 1, n]), 8192, "dla.dimensions"),
    "width of the second input": (lambda n: joined("Add", [1, 1, 1, 1], [1, 1, 1, n]), 8192, "dla.dimensions"),
    "height of the second input": (lambda n: joined("Mul", [1, 1, 1, 2], [1, 1, n, 2]), 8192, "dla.dimensions"),
    "channels of a concatenation": (
        lambda n: joined("Concat", [1, 1, 1, 1], [1, n - 1, 1, 1], axis=1),
        8192,
        "dla.dimensions",
    ),
    "width of a Resize's output": (
        lambda n: resize([1, 1, 1, 2], mode="nearest", shape=[1, 1, 1, n]),
        4096,
        "dla.dimensions",
    ),
    "width of a deconvolution's output": (lambda n: deconv((1, 4), (1, n), strides=[1, 4]), 2048, "dla.dimensions"),
    "length of a flattened map": (
        lambda n: single("Reshape", [constant("s", [1, -1], np.int64)], shape=[1, 2, 1, n]),
        4096,
        "dla.dimensions",
    ),
    "kernel height": (lambda n: conv((n, 1)), 32, "dla.convolution.kernel"),
    "kernel width": (lambda n: conv((1, n)), 32, "dla.convolution.kernel"),
    "padding before": (lambda n: conv((n + 1, 1), pads=[n, 0, 0, 0]), 31, "dla.convolution.padding"),
    "padding after": (lambda n: conv((1, n + 1), pads=[0, 0, 0, n]), 31, "dla.convolution.padding"),
    "padding against the kernel": (lambda n: conv((3, 3), pads=[n, n, n, n]), 2, "dla.convolution.padding"),
    "convolution stride": (lambda n: conv(strides=[1, n]), 8, "dla.convolution.stride"),
    "maps": (lambda n: conv(maps=n, side=(2, 2)), 8192, "dla.convolution.maps"),
    "groups": (lambda n: conv(maps=n, channels=n, groups=n, side=(1, 1)), 8192, "dla.convolution.maps"),
    "dilation": (lambda n: conv((2, 1), dilations=[n, 1]), 32, "dla.convolution.dilation"),
    "deconvolution kernel": (lambda n: deconv((n, 1)), 32, "dla.deconvolution.window"),
    "deconvolution stride": (lambda n: deconv(strides=[n, 1]), 32, "dla.deconvolution.window"),
    "square deconvolution kernel": (lambda n: deconv((n, n)), 22, "dla.deconvolution.square"),
    "deconvolution padding": (lambda n: deconv((3, 3), (8, 8), pads=[n, 0, 0, 0]), 0, "dla.deconvolution.form"),
    "deconvolution groups": (lambda n: deconv(channels=2, maps=2, groups=n), 1, "dla.deconvolution.form"),
    "deconvolution dilation": (lambda n: deconv((2, 2), dilations=[n, 1]), 1, "dla.deconvolution.form"),
    "pooling window": (lambda n: pool(kernel_shape=[1, n]), 8, "dla.pooling.limits"),
    "pooling stride": (lambda n: pool(kernel_shape=[2, 2], strides=[n, 1]), 16, "dla.pooling.limits"),
    "clip bound": (lambda n: clip(0, n), 127, "no-rule"),
    "nearest scale": (lambda n: enlarged(n), 32, "dla.resize.scales"),
    "linear scale": (lambda n: enlarged(n, "linear"), 4, "dla.resize.scales"),
    "channel scale": (lambda n: resize([1, n, 2, 2], mode="nearest"), 1, "dla.resize.scales"),
    "softmax length": (lambda n: softmax(1, n, 2, 2), 1024, "dla.softmax.axis"),
    "subgraphs": (chain, 16, "dla.loadables"),
}


def rules(network: ModelProto, scope: str) -> set[str]:
    return {finding.rule for finding in check(network, [scope]).scopes[0].findings if finding.verdict == "denied"}


@pytest.mark.parametrize("name", DLA)
@pytest.mark.shows("MEA-02", "ERR-01")
def test_a_documented_limit_of_dla_on_both_sides(name: str) -> None:
    build, limit, rule = DLA[name]
    others = {"no-rule"} if name in ("subgraphs", "leading dimensions") else set()  # Elu; rank 5 is no rank of DLA
    for scope in ("dla-orin", "dla-orin-8.6.12") + (() if "softmax" in name else ("dla-xavier",)):
        assert rules(build(limit), scope) <= others, f"{scope}: {limit} is allowed"
        assert rule in rules(build(limit + 1), scope), f"{scope}: {limit + 1} is not"


def test_lower_limits_of_dla() -> None:
    assert rules(clip(0, 1), "dla-orin") == set() and rules(clip(0, 0.99), "dla-orin") == {"no-rule"}
    assert rules(clip(0.01, 6), "dla-orin") == {"no-rule"}
    assert rules(enlarged(1.5), "dla-orin") == {"dla.resize.scales"}
    assert rules(softmax(1, 8, 2, 2, axis=1), "dla-orin") == set()
    assert rules(softmax(2, 8, 2, 2, axis=0), "dla-orin") == {"dla.softmax.axis"}


BANKS = {  # channels, kernel, width -> banks in FP16, worked out on paper from the guide's formula
    (1024, 3, 16): 1 + 3,
    (512, 3, 64): 1 + 6,
    (512, 3, 160): 1 + 15,
    (512, 3, 161): 1 + 16,
    (2048, 7, 16): 7 + 14,
    (4096, 7, 8): 13 + 14,
    (1024, 11, 16): 8 + 11,
    (8192, 3, 4): 5 + 6,
}


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("shape", BANKS)
def test_the_convolution_buffer_counts_all_channels(shape: tuple[int, int, int], depthwise: bool) -> None:
    channels, kernel, width = shape
    groups, maps = (channels, channels) if depthwise else (1, 1)
    network = conv((kernel, kernel), maps, channels, (kernel, width), groups)
    expected = set() if BANKS[shape] <= 16 else {"dla.convolution.buffer"}
    assert rules(network, "dla-orin") == expected
    if expected:
        finding = check(network, ["dla-orin"]).scopes[0].findings[0]
        assert f"{BANKS[shape]} of the 16 banks" in finding.message


OVERHANG = {  # side, kernel, stride, padding -> whether the last window of a ceil_mode pooling leaves the padded map
    (7, 3, 2, 0): False,
    (8, 3, 2, 0): True,
    (8, 2, 2, 0): False,
    (9, 2, 2, 0): True,
    (9, 3, 3, 0): False,
    (4, 2, 3, 0): True,
    (6, 2, 4, 0): False,
}


def brute_overhang(side: int, kernel: int, stride: int, padding: int) -> int:
    """Windows laid one after another until one reaches the end of the padded map."""
    start = -padding
    while start + kernel < side + padding:
        start += stride
    return start + kernel - side - padding


@pytest.mark.parametrize("shape", OVERHANG)
def test_xavier_refuses_average_pooling_that_leaves_the_map(shape: tuple[int, int, int, int]) -> None:
    side, kernel, stride, _ = shape
    assert (brute_overhang(*shape) > 0) == OVERHANG[shape]
    made = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
    exclusive = pool("AveragePool", (side, side), ceil_mode=1, **made)
    expected = {"dla.pooling.exclusive"} if OVERHANG[shape] else set()
    assert rules(exclusive, "dla-xavier") == expected
    assert rules(exclusive, "dla-orin") == set()
    assert rules(pool("AveragePool", (side, side), ceil_mode=1, count_include_pad=1, **made), "dla-xavier") == set()
    assert rules(pool("MaxPool", (side, side), ceil_mode=1, **made), "dla-xavier") == set()


def test_the_overhang_is_that_of_a_brute_force_search() -> None:
    for side in range(4, 12):
        for kernel in range(2, 5):
            for stride in range(1, 6):
                network = pool(side=(side, side), kernel_shape=[kernel] * 2, strides=[stride] * 2, ceil_mode=1)
                reached = "dla.pooling.exclusive" in rules(
                    pool("AveragePool", (side, side), kernel_shape=[kernel] * 2, strides=[stride] * 2, ceil_mode=1),
                    "dla-xavier",
                )
                assert reached == (brute_overhang(side, kernel, stride, 0) > 0), (side, kernel, stride)
                assert rules(network, "dla-orin") == set()


@pytest.mark.parametrize("scope", ["dla-orin", "dla-xavier", "drive-os-6", "drive-os-6.0.9"])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.shows("MEA-02", "ERR-01")
def test_a_run_time_bias_is_not_the_constant_of_the_documents(op: str, scope: str) -> None:
    bias = value("b", [8])
    made = [node(op, ["x", "w", "b"], ["y"])]
    network = model(made, [value("x", [1, 8, 14, 14]), bias], constants=[constant("w", np.zeros((8, 8, 1, 1)))])
    assert check(network, [scope]).verdict != "allowed"


def test_drive_os_6_knows_resizes_of_the_map_only() -> None:
    for scales, expected in (([1, 1, 2, 2], "allowed"), ([1, 2, 2, 2], "unknown"), ([2, 1, 2, 2], "unknown")):
        assert check(resize(scales), ["drive-os-6"]).verdict == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"output_shape": [17, 17]}, set()),
        ({"output_shape": [16, 16]}, {"dla.deconvolution.form"}),
        ({"output_shape": [15, 15]}, {"dla.deconvolution.form"}),
        ({"output_shape": [18, 18]}, {"dla.slice.form"}),
        ({"auto_pad": "SAME_UPPER"}, {"dla.deconvolution.form"}),
        ({"auto_pad": "VALID"}, set()),
    ],
)
def test_the_padding_that_an_output_shape_implies(attributes: dict[str, Any], expected: set[str]) -> None:
    """Without padding, 8 become 2 * 7 + 3 = 17."""
    assert rules(deconv((3, 3), (8, 8), strides=[2, 2], **attributes), "dla-orin") == expected


SEVEN: dict[str, tuple[Callable[[int], ModelProto], int, str]] = {
    "convolution kernel": (lambda n: conv((n, 1)), 18, "convolution.kernel"),
    "convolution stride": (lambda n: conv(strides=[n, 1]), 8, "convolution.stride"),
    "convolution dilation": (lambda n: conv((2, 1), dilations=[n, 1]), 18, "convolution.dilation"),
    "convolution padding": (
        lambda n: conv((18, 1), dilations=[2, 1], pads=[n, 0, 0, 0]),
        18,
        "convolution.pre-padding",
    ),
    "convolution padding behind": (
        lambda n: conv((18, 1), dilations=[2, 1], pads=[0, 0, n, 0]),
        18,
        "convolution.post-padding",
    ),
    "convolution maps": (lambda n: conv(maps=n, side=(2, 2)), 16384, "convolution.output-maps"),
    "convolution channels": (lambda n: conv(channels=n, side=(2, 2)), 16384, "convolution.input-channels"),
    "convolution groups": (lambda n: conv(maps=n, channels=n, groups=n, side=(1, 1)), 16384, "convolution.groups"),
    "deconvolution kernel": (lambda n: deconv((n, 1)), 8, "deconvolution.kernel"),
    "deconvolution stride": (lambda n: deconv((8, 1), strides=[n, 1]), 8, "deconvolution.stride"),
    "deconvolution dilation": (lambda n: deconv((2, 1), dilations=[n, 1]), 1, "deconvolution.dilation"),
    "deconvolution padding": (lambda n: deconv((8, 8), (40, 40), pads=[n, 0, 0, 0]), 8, "deconvolution.pre-padding"),
    "deconvolution maps": (lambda n: deconv(maps=n), 4096, "deconvolution.output-maps"),
    "deconvolution channels": (lambda n: deconv(channels=n), 4096, "deconvolution.input-channels"),
    "pooling window": (lambda n: pool(kernel_shape=[n, 1]), 22, "pooling.window"),
    "pooling stride": (lambda n: pool(kernel_shape=[6, 6], strides=[n, 1]), 6, "pooling.stride"),
    "pooling padding": (lambda n: pool(kernel_shape=[12, 12], pads=[n, 0, 0, 0]), 10, "pooling.pre-padding"),
    "pooling padding behind": (lambda n: pool(kernel_shape=[12, 12], pads=[0, 0, n, 0]), 10, "pooling.post-padding"),
}


@pytest.mark.parametrize("name", SEVEN)
@pytest.mark.shows("MEA-02")
def test_a_limit_of_drive_os_7_on_both_sides(name: str) -> None:
    build, limit, rule = SEVEN[name]
    assert rules(build(limit), "drive-os-7") == set()
    assert rule in rules(build(limit + 1), "drive-os-7")
