import numpy as np
import pytest
from restricted_networks import MAP, constant, model, node, resize, single, value, weights

from csa_deploy.restricted.check import check


def report(network, scope="dla-orin"):
    return check(network, [scope]).scopes[0]


def pool(**attributes):
    return single("MaxPool", **attributes)


def conv(kernel, channels=8, groups=1, size=40, **attributes):
    tensor = weights(8, channels // groups, *kernel)
    return single("Conv", [tensor], shape=[1, channels, size, size], group=groups, **attributes)


def deconv(kernel, size=30, **attributes):
    return single("ConvTranspose", [constant("w", np.zeros((8, 8, *kernel)))], shape=[1, 8, size, size], **attributes)


CLIP = [constant("low", 0), constant("high", 6)]
WIDE_CLIP = [constant("low", 0), constant("high", 200)]
JOIN = [value("x", MAP), value("z", MAP)]
TO_2D = [constant("s", [1, -1], np.int64)]
WITH_BATCH = [constant("s", [2, 4, 14, 14], np.int64)]
CUT = [constant(name, [number], np.int64) for name, number in (("start", 1), ("end", 9), ("axis", 2), ("step", 1))]
CUT_STEP = [*CUT[:3], constant("step", [2], np.int64)]

ALLOWED = {
    "convolution": conv((3, 3), pads=[1, 1, 1, 1]),
    "largest kernel": conv((32, 32)),
    "largest stride": conv((3, 3), strides=[8, 8]),
    "largest dilation": conv((2, 2), dilations=[32, 32]),
    "depth-wise": conv((5, 5), groups=8, pads=[2, 2, 2, 2]),
    "deconvolution": deconv((2, 2), strides=[2, 2]),
    "rectangular deconvolution": deconv((23, 24)),
    "max pooling": pool(kernel_shape=[8, 8], strides=[14, 14]),
    "average pooling": single("AveragePool", kernel_shape=[7, 7]),
    "relu": single("Relu"),
    "sigmoid": single("Sigmoid"),
    "tanh": single("Tanh"),
    "leaky relu": single("LeakyRelu"),
    "clipped relu": single("Clip", CLIP),
    "sum": model([node("Add", ["x", "z"], ["y"])], JOIN),
    "maximum": model([node("Max", ["x", "z"], ["y"])], JOIN),
    "channels joined": model([node("Concat", ["x", "z"], ["y"], axis=1)], JOIN),
    "linear resize": resize([1, 1, 4, 2]),
    "nearest resize": resize([1, 1, 32, 1], mode="nearest"),
    "slice": single("Slice", CUT),
    "reshape to two dimensions": single("Reshape", TO_2D),
    "transpose": single("Transpose", perm=[0, 2, 3, 1]),
    "absolute value": single("Abs"),
    "softmax": model([node("Softmax", ["x"], ["y"], axis=1)]),
}

DENIED = {
    "kernel": (conv((33, 1)), "dla.convolution.kernel"),
    "padding": (conv((3, 3), pads=[3, 0, 0, 0]), "dla.convolution.padding"),
    "stride": (conv((3, 3), strides=[9, 1]), "dla.convolution.stride"),
    "dilation": (conv((2, 1), dilations=[33, 1]), "dla.convolution.dilation"),
    "buffer": (conv((3, 3), channels=4096, size=64), "dla.convolution.buffer"),
    "deconvolution padding": (deconv((2, 2), pads=[1, 1, 1, 1]), "dla.deconvolution.form"),
    "square deconvolution": (deconv((23, 23)), "dla.deconvolution.square"),
    "deconvolution stride": (deconv((2, 2), size=2, strides=[33, 33]), "dla.deconvolution.window"),
    "pooling window": (pool(kernel_shape=[9, 9]), "dla.pooling.limits"),
    "pooling stride": (pool(kernel_shape=[2, 2], strides=[17, 1]), "dla.pooling.limits"),
    "clip bound": (single("Clip", WIDE_CLIP), "no-rule"),
    "elu": (single("Elu"), "no-rule"),
    "division": (model([node("Div", ["x", "z"], ["y"])], JOIN), "no-rule"),
    "constant operand": (single("Mul", [constant("c", np.ones((1, 8, 1, 1)))]), "dla.constant"),
    "rows joined": (model([node("Concat", ["x", "z"], ["y"], axis=2)], JOIN), "dla.concatenation.axis"),
    "downsizing": (resize([1, 1, 0.5, 0.5]), "dla.resize.downsizing"),
    "fractional resize": (resize([1, 1, 1.5, 1.5]), "dla.resize.scales"),
    "large linear resize": (resize([1, 1, 5, 5]), "dla.resize.scales"),
    "channels resized": (resize([1, 2, 2, 2]), "dla.resize.scales"),
    "aligned corners": (resize([1, 1, 2, 2], coordinate_transformation_mode="align_corners"), "dla.resize.scales"),
    "slice step": (single("Slice", CUT_STEP), "dla.slice.form"),
    "batch reshaped": (single("Reshape", WITH_BATCH), "dla.shuffle.form"),
    "batch transposed": (single("Transpose", perm=[1, 0, 2, 3]), "dla.shuffle.form"),
    "three dimensions": (single("Transpose", shape=[1, 8, 14], perm=[0, 2, 1]), "dla.shuffle.form"),
    "flatten": (single("Flatten"), "dla.onnx-op.reshape"),
    "squeeze": (single("Squeeze", shape=[1, 8, 1, 1]), "dla.onnx-op.reshape"),
    "global average pool": (single("GlobalAveragePool"), "dla.onnx-op.global-pool"),
    "pad": (single("Pad", [constant("p", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)]), "dla.onnx-op.pad"),
    "exponential": (single("Exp"), "dla.onnx-op"),
    "sine": (single("Sin"), "no-rule"),
    "matrix product": (single("MatMul", [constant("w", np.zeros((14, 3)))]), "dla.matrix-multiply"),
    "wide": (single("Relu", shape=[1, 8, 2, 8193]), "dla.dimensions"),
    "batch": (single("Relu", shape=[4097, 1, 1, 1]), "dla.batch"),
    "dynamic": (single("Relu", shape=["n", 8, 14, 14]), "dla.dynamic"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_runs_on_dla(name):
    found = report(ALLOWED[name])
    assert found.verdict == "allowed", found.findings
    assert found.placement.fallbacks == ()
    assert found.placement.subgraphs == 1


@pytest.mark.parametrize("name", DENIED)
def test_falls_back_for_the_documented_reason(name):
    network, rule = DENIED[name]
    found = report(network)
    assert found.verdict == "denied"
    assert rule in {finding.rule for finding in found.findings}
    assert len(found.placement.fallbacks) == 1
    assert found.placement.subgraphs == 0


def test_orin_8_6_12_takes_more():
    for name in ("division", "sine"):
        assert report(DENIED[name][0], "dla-orin-8.6.12").verdict == "allowed"
    assert report(single("GlobalMaxPool")).verdict == "denied"
    assert report(single("GlobalMaxPool"), "dla-orin-8.6.12").verdict == "allowed"


def test_xavier_takes_less():
    assert report(ALLOWED["softmax"], "dla-xavier").verdict == "denied"
    padded = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    assert report(single("AveragePool", **padded), "dla-orin").verdict == "allowed"
    assert report(single("AveragePool", **padded), "dla-xavier").verdict == "denied"
    assert report(single("AveragePool", count_include_pad=1, **padded), "dla-xavier").verdict == "allowed"


def test_softmax_on_a_long_axis_only_alone():
    assert report(single("Softmax", shape=[1, 2048, 1, 1], axis=1)).verdict == "allowed"
    assert report(single("Softmax", shape=[1, 2048, 1, 2], axis=1)).verdict == "denied"


def interleaved(count, op="Elu"):
    """relu, op, relu, op, ..., relu."""
    nodes, last = [], "x"
    for index in range(count):
        nodes += [
            node("Relu", [last], [f"r{index}"], name=f"r{index}"),
            node(op, [f"r{index}"], [f"e{index}"], name=f"e{index}"),
        ]
        last = f"e{index}"
    return model([*nodes, node("Relu", [last], ["y"], name="last")], [value("x", [1, 8, 4, 4])])


def test_placement_counts_subgraphs_and_what_crosses():
    placement = report(interleaved(3)).placement
    assert placement.subgraphs == 4
    assert [fallback.node for fallback in placement.fallbacks] == ["e0", "e1", "e2"]
    assert placement.tensors_crossing == 6
    assert placement.bytes_crossing == 6 * 8 * 4 * 4 * 2
    assert placement.dla == ("r0", "r1", "r2", "last")


def test_more_than_sixteen_subgraphs_are_denied():
    def loadables(found):
        return "dla.loadables" in {finding.rule for finding in found.findings}

    assert not loadables(report(interleaved(15)))
    assert loadables(report(interleaved(16)))


def test_a_branch_around_the_gpu_does_not_join_the_subgraphs_that_wait_for_it():
    """relu -> elu -> add, and relu -> add: one loadable cannot hold both relu and add."""
    nodes = [
        node("Relu", ["x"], ["r"], name="r"),
        node("Elu", ["r"], ["e"], name="e"),
        node("Add", ["r", "e"], ["y"], name="add"),
    ]
    assert report(model(nodes)).placement.subgraphs == 2


def test_independent_branches_are_subgraphs_of_their_own():
    nodes = [node("Relu", ["x"], ["y"], name="a"), node("Relu", ["z"], ["w"], name="b")]
    assert report(model(nodes, JOIN, [value("y", MAP), value("w", MAP)])).placement.subgraphs == 2
