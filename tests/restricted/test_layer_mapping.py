import numpy as np
import pytest
from onnx import TensorProto
from restricted_networks import MAP, constant, model, node, resize, single, value, weights

from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.mapping.network import map_graph, parser_family
from csa_deploy.restricted.mapping.recorder import IMPORTERS
from csa_deploy.restricted.vocabulary import FACTS, LAYER_TYPES, PSEUDO_LAYERS

V8, V10 = (8, 6), (10, 12)
AXES = constant("axes", [2, 3], np.int64)
TRANSPOSED = [constant("w", np.zeros((8, 4, 2, 2)))]
CAST = model([node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)], outputs=[value("y", None, TensorProto.FLOAT16)])
BN = [constant(name, np.ones(8)) for name in "abcd"]


def types(network, version=V8):
    return [layer.type for layer in list(map_graph(load_graph(network), version))[:-1]]


CASES = {
    "convolution": (single("Conv", [weights(4, 8, 3, 3)]), ["CONVOLUTION"], ["CONVOLUTION"]),
    "convolution 1-D": (
        single("Conv", [weights(4, 8, 3)], shape=[1, 8, 14]),
        ["SHUFFLE", "CONVOLUTION", "SHUFFLE"],
        ["CONSTANT", "UNSQUEEZE", "CONVOLUTION", "CONSTANT", "SQUEEZE"],
    ),
    "deconvolution": (single("ConvTranspose", TRANSPOSED), ["DECONVOLUTION"], ["DECONVOLUTION"]),
    "batch norm": (single("BatchNormalization", BN), ["SCALE"], ["SCALE"]),
    "relu": (single("Relu"), ["ACTIVATION"], ["ACTIVATION"]),
    "clip": (single("Clip", [constant("lo", 0), constant("hi", 6)]), ["ACTIVATION"], ["ACTIVATION"]),
    "hard swish": (single("HardSwish"), ["ACTIVATION", "ELEMENTWISE"], ["ACTIVATION", "ELEMENTWISE"]),
    "gelu": (single("Gelu", opset=20), ["UNMAPPED"], ["ACTIVATION"]),
    "average pool": (single("AveragePool", kernel_shape=[2, 2]), ["POOLING"], ["POOLING"]),
    "global average pool": (single("GlobalAveragePool"), ["REDUCE"], ["REDUCE"]),
    "reduce mean": (single("ReduceMean", axes=[2, 3]), ["REDUCE"], ["REDUCE"]),
    "reduce mean, axes as input": (single("ReduceMean", [AXES], opset=18), ["REDUCE"], ["REDUCE"]),
    "softmax": (single("Softmax"), ["SOFTMAX", "SHUFFLE"], ["SOFTMAX", "SHUFFLE"]),
    "flatten": (single("Flatten"), ["SHUFFLE"], ["SHUFFLE"]),
    "squeeze": (single("Squeeze", shape=[1, 8, 1, 1]), ["SHUFFLE"], ["CONSTANT", "SQUEEZE"]),
    "transpose": (single("Transpose", perm=[0, 2, 3, 1]), ["SHUFFLE"], ["SHUFFLE"]),
    "matrix product": (
        single("MatMul", [constant("w", np.zeros((14, 3)))]),
        ["CONSTANT", "SHUFFLE", "MATRIX_MULTIPLY"],
        ["CONSTANT", "SHUFFLE", "MATRIX_MULTIPLY"],
    ),
    "gemm": (
        single("Gemm", [constant("w", np.zeros((8, 3))), constant("b", np.zeros(3))], shape=[1, 8]),
        ["CONSTANT", "MATRIX_MULTIPLY", "CONSTANT", "SHUFFLE", "ELEMENTWISE"],
        ["CONSTANT", "MATRIX_MULTIPLY", "CONSTANT", "SHUFFLE", "ELEMENTWISE"],
    ),
    "resize": (resize([1, 1, 2, 2]), ["RESIZE"], ["RESIZE"]),
    "layer norm": (
        single("LayerNormalization", [constant("s", np.ones(14))]),
        ["CONSTANT", "CONSTANT", "SHUFFLE", "NORMALIZATION"],
        ["CONSTANT", "CONSTANT", "SHUFFLE", "NORMALIZATION"],
    ),
    "pad": (single("Pad", [constant("p", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)]), ["SLICE"], ["SLICE"]),
    "split": (model([node("Split", ["x"], ["y", "z"], axis=1)]), ["SLICE", "SLICE"], ["SLICE", "SLICE"]),
    "cast": (CAST, ["CAST"], ["CAST"]),
    "depth to space": (single("DepthToSpace", blocksize=2), ["SHUFFLE"] * 2, ["SHUFFLE"] * 2),
    "identity": (single("Identity"), ["IDENTITY"], ["IDENTITY"]),
    "lrn": (single("LRN", size=3), ["LRN"], ["LRN"]),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_becomes_the_layers_of_its_parser_version(name):
    network, before, since = CASES[name]
    assert types(network, V8) == before
    assert types(network, V10) == since


def test_cast_is_an_identity_layer_up_to_8_5():
    assert types(CAST, (8, 5)) == ["IDENTITY"]


def test_families_follow_the_version():
    assert parser_family((8, 6, 11)) == (8, 6)
    assert parser_family((8, 5, 10)) == (8, 5)
    assert parser_family((10, 10, 10)) == (10, 7)
    assert parser_family((7, 0)) == (8, 5)


def test_64_bit_integers_are_32_bit_before_10():
    network = single("Identity", shape=[2])
    network.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    network.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    facts = [next(iter(map_graph(load_graph(network), version))).facts for version in (V8, V10)]
    assert [entry["in_dtype"] for entry in facts] == [["int32"], ["int64"]]


def facts_of(network, version=V8):
    return next(iter(map_graph(load_graph(network), version))).facts


def test_facts_of_a_convolution():
    network = single("Conv", [weights(16, 4, 3, 5)], group=2, strides=[2, 1], pads=[1, 2, 1, 2], dilations=[1, 2])
    facts = facts_of(network)
    assert facts["kernel"] == [3, 5]
    assert facts["extent"] == [3, 9]
    assert (facts["stride"], facts["dilation"], facts["groups"], facts["output_maps"]) == ([2, 1], [1, 2], 2, 16)
    assert (facts["pre_padding"], facts["post_padding"], facts["weights_const"]) == ([1, 2], [1, 2], True)
    assert facts["in_shape"] == [MAP]


@pytest.mark.parametrize(("mode", "before", "after"), [("SAME_UPPER", [0, 0], [1, 1]), ("SAME_LOWER", [1, 1], [0, 0])])
def test_same_padding_is_written_out(mode, before, after):
    facts = facts_of(single("MaxPool", kernel_shape=[2, 2], strides=[1, 1], auto_pad=mode))
    assert (facts["pre_padding"], facts["post_padding"]) == (before, after)


@pytest.mark.parametrize(
    ("channels", "width", "kernel", "groups", "fp16", "int8"),
    [
        (8, 14, 3, 1, 2, 2),
        (512, 64, 3, 1, 1 + 6, 1 + 3),  # weights: 9216 -> 1 bank; data: 512 entries * 3 rows / 256
        (4096, 64, 3, 1, 3 + 48, 2 + 24),
    ],
)
def test_the_convolution_buffer_of_dla(channels, width, kernel, groups, fp16, int8):
    network = single(
        "Conv", [weights(8, channels // groups, kernel, kernel)], shape=[1, channels, 8, width], group=groups
    )
    facts = facts_of(network)
    assert (facts["buffer_fp16"], facts["buffer_int8"]) == (fp16, int8)


def test_facts_of_resize_by_scales_sizes_and_run_time_scales():
    by_scales = facts_of(resize([1, 1, 0.5, 2]))
    assert (by_scales["by"], by_scales["mode"], by_scales["coordinate"]) == ("SCALES", "LINEAR", "HALF_PIXEL")
    assert by_scales["scales_whole"] == [True, True, False, True]
    sizes = [constant("sizes", [1, 8, 7, 7], np.int64)]
    by_sizes = model([node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear")], constants=sizes)
    layers = list(map_graph(load_graph(by_sizes), V8))
    assert [layer.facts.get("by") for layer in layers if layer.type == "RESIZE"] == ["SIZES"]
    made = node("Resize", ["x", "", "s"], ["y"], mode="linear")
    dynamic = model([made], [value("x", MAP), value("s", [4])], [value("y", [1, 8, 28, 28])])
    assert facts_of(dynamic)["by"] == "DYNAMIC"


def test_shuffle_knows_whether_the_batch_takes_part():
    kept = single("Reshape", [constant("s", [1, 4, 28, 14], np.int64)])
    moved = single("Reshape", [constant("s", [8, 14, 14, 1], np.int64)])
    assert facts_of(kept)["moves_batch"] is False
    assert facts_of(moved)["moves_batch"] is True
    assert facts_of(single("Transpose", perm=[1, 0, 2, 3]))["moves_batch"] is True


def test_bodies_of_control_flow_are_mapped_too():
    branch = model([node("LRN", ["x"], ["b"], name="inner", size=3)], outputs=[value("b", MAP)]).graph
    del branch.input[:]
    choice = node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    network = model([choice], [value("x", MAP), value("c", [], TensorProto.BOOL)])
    layers = list(map_graph(load_graph(network), V8))
    assert [layer.node.name for layer in layers if layer.type == "LRN"] == ["choice/inner"] * 2


@pytest.mark.parametrize("op", sorted(IMPORTERS))
@pytest.mark.parametrize("version", [V8, (10, 7), (11,)])
def test_no_importer_fails_on_a_bare_node_and_every_word_is_known(op, version):
    network = model([node(op, ["x", "x", "x"], ["y"])], outputs=[value("y", MAP)])
    layers = list(map_graph(load_graph(network), version))
    assert layers
    for layer in layers:
        assert layer.type in LAYER_TYPES | PSEUDO_LAYERS
        assert not set(layer.facts) - set(FACTS)


def test_weights_that_a_node_computes_are_a_tensor_for_the_parser():
    """TorchScript exports share equal parameters through Identity nodes; parsers then no longer see weights."""
    nodes = [node("Identity", ["w"], ["v"], "copy"), node("Conv", ["x", "v"], ["y"])]
    facts = next(
        layer.facts
        for layer in map_graph(load_graph(model(nodes, constants=[weights(4, 8, 3, 3)])), V8)
        if layer.type == "CONVOLUTION"
    )
    assert (facts["weights_const"], facts["inputs"]) == (False, 2)
    parameters = [node("Identity", ["a"], ["e"], "copy"), node("BatchNormalization", ["x", "e", "b", "c", "d"], ["y"])]
    shared = types(model(parameters, constants=BN))
    assert "SCALE" not in shared
    assert "UNARY" in shared


def test_scales_that_a_node_computes_are_dynamic_for_the_parser():
    nodes = [node("Concat", ["a", "b"], ["s"], axis=0), node("Resize", ["x", "", "s"], ["y"], mode="linear")]
    network = model(nodes, constants=[constant("a", [1, 1]), constant("b", [2, 2])])
    layers = list(map_graph(load_graph(network), V8))
    assert [layer.facts["by"] for layer in layers if layer.type == "RESIZE"] == ["DYNAMIC"]
    assert load_graph(network).outputs[0].shape == (1, 8, 28, 28)
