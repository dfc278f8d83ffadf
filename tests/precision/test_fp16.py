"""The FP16 graph: what is typed how, what stays FP32 and why, and that it runs."""

from collections import Counter

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnxruntime as ort
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.precision.fp16 import to_fp16
from csa_deploy.precision.int8 import to_int8
from csa_deploy.precision.qdq_placement import place

IMAGE = "float[1,4,6,6]"
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def ops(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph.node))


def types(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def checked(model: onnx.ModelProto, **options):
    """Convert; the result is valid, the argument untouched, and no Cast reads what it writes or undoes another."""
    before = model.SerializeToString()
    result = to_fp16(model, **options)
    assert model.SerializeToString() == before
    onnx.checker.check_model(result.model, full_check=True)
    makers = {name: node for node in result.model.graph.node for name in node.output}
    for node in result.model.graph.node:
        if node.op_type == "Cast":
            assert node.input[0] not in makers or makers[node.input[0]].op_type != "Cast"
    assert ops(result.model).get("Cast", 0) >= result.casts
    return result


@pytest.fixture
def network(build):
    return build(
        f"({IMAGE} x) => (float[1,4,12,12] y)",
        'a = Conv(x, w, b) s = Sigmoid(a) m = Mul(a, s) y = Resize<mode="linear">(m, , k)',
        w=(4, 4, 1, 1),
        b=(4,),
        k=np.array([1, 1, 2, 2], "f4"),
    )


def test_weights_and_activations_are_half_and_io_is_not(network):
    result = checked(network)
    kinds = types(result.model)
    assert {kinds[name] for name in ("w", "b", "a", "s", "m")} == {HALF}
    assert {kinds[name] for name in ("x", "y", "k")} == {FLOAT}
    assert (result.casts, result.nodes, result.weights, result.kept) == (2, 4, 20, ())
    x = np.random.default_rng(3).standard_normal((1, 4, 6, 6)).astype("f4")
    np.testing.assert_allclose(run(result.model, x=x)[0], run(network, x=x)[0], rtol=5e-3, atol=5e-3)


def test_io_can_be_half(network):
    result = checked(network, io="fp16")
    kinds = types(result.model)
    assert result.casts == 0 and kinds["x"] == kinds["y"] == HALF


def test_kept_neighbours_share_casts_and_need_none_between(network):
    result = checked(network, keep_fp32=["n1", "n2"])
    assert [(node.name, node.op, node.reason) for node in result.kept] == [
        ("n1", "Sigmoid", "kept on request"),
        ("n2", "Mul", "kept on request"),
    ]
    assert result.casts == 4  # input; the conv's output, read twice; the product's; output
    assert types(result.model)["s"] == FLOAT


def test_keeping_everything_changes_nothing(network):
    result = checked(network, keep_fp32=[node.name for node in network.graph.node])
    assert result.casts == 0 and ops(result.model) == ops(network)


def test_unknown_node_to_keep_is_refused_with_the_nearest(network):
    with pytest.raises(UsageError, match=r"no node 'n11' .* did you mean 'n1'"):
        to_fp16(network, keep_fp32=["n11"])


@pytest.mark.shows("MEA-17")
def test_a_weight_beyond_the_range_keeps_its_node_in_fp32(build):
    model = build(
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w) b = Add(a, mask) y = Softmax<axis=3>(b)",
        w=(4, 4, 1, 1),
        mask=np.array([0, 0, 0, 0, -1e9, -1e9], "f4"),
    )
    result = checked(model)
    kept, back = result.kept
    assert (kept.name, kept.op) == ("n1", "Add")
    assert (back.op, back.reason) == ("Softmax", "values beyond FP16's range come to it")
    assert kept.reason == "weight 'mask' holds 1e+09, beyond FP16's 65504"
    assert result.overflowing == 2


def test_infinite_weights_are_no_overflow(build):
    model = build("(float[1,3] x) => (float[1,3] y)", "y = Max(x, m)", m=np.array([-np.inf, 0, 1], "f4"))
    assert checked(model).kept == ()


def test_losses_of_small_weights_are_counted(build):
    model = build("(float[1,4] x) => (float[1,4] y)", "y = Mul(x, w)", w=np.array([1e-9, -1e-6, 0, 0.5], "f4"))
    result = checked(model)
    assert (result.underflowed, result.subnormal, result.largest_weight) == (1, 1, 0.5)


def test_a_weight_that_both_precisions_read_is_stored_twice(build):
    model = build("(float[1,4] x) => (float[1,4] y)", "a = Mul(x, w) y = Mul(a, w)", w=(4,))
    result = checked(model, keep_fp32=["n1"])
    assert sorted((t.name, t.data_type) for t in result.model.graph.initializer) == [("w", FLOAT), ("w_fp16", HALF)]


def test_casts_and_fills_of_the_network_become_half(build):
    model = build(
        "(uint8[1,4] x) => (float[1,4] y)",
        "a = Cast<to=1>(x) b = ConstantOfShape<value: tensor = float[1] {2.0}>(s) y = Mul(a, b)",
        s=np.array([1, 4]),
    )
    result = checked(model)
    assert result.casts == 1 and ops(result.model)["Cast"] == 2
    np.testing.assert_array_equal(run(result.model, x=np.array([[0, 1, 100, 255]], "u1"))[0], [[0, 2, 200, 510]])


def test_integer_parts_are_untouched(build):
    model = build(
        "(float[2,3] x, int64[2] i) => (float[2,3] y, int64[2] j)", "y = Gather(x, i) t, j = TopK<axis=0>(q, k)",
        q=(2,), k=np.array([2]),
    )  # fmt: skip
    result = checked(model)
    assert result.kept == () and types(result.model)["j"] == onnx.TensorProto.INT64


@pytest.mark.parametrize(("beyond", "kept"), [("x", {"n0": "x"}), ("a", {"n0": "a", "n1": "a"}), ("m", {"n1": "m"})])
def test_what_makes_or_reads_an_activation_beyond_the_range_stays_fp32(build, beyond, kept):
    model = build(f"({IMAGE} x) => ({IMAGE} y)", "a = Tanh(x) m = Conv(a, w) y = Sigmoid(m)", w=(4, 4, 1, 1))
    found = checked(model, largest={"x": 1.0, "a": 1.0, "m": 1.0, "y": 1.0} | {beyond: 7e4})
    reasons = {node.name: node.reason for node in found.kept}
    assert {
        name: f"activation '{tensor}' reaches 7e+04, beyond FP16's 65504" for name, tensor in kept.items()
    }.items() <= (reasons.items())
    assert types(found.model).get(beyond, FLOAT) == FLOAT


def test_subgraphs_stay_fp32_and_read_fp32(build):
    model = build(
        f"({IMAGE} x, bool c) => (float[1,4,6,6] y)",
        "k = Relu(x) h = If (c) <then_branch = t () => (float[1,4,6,6] p) { p = Neg(k) },"
        " else_branch = e () => (float[1,4,6,6] q) { q = Identity(k) }> y = Relu(h)",
    )
    result = checked(model)
    assert [(node.op, node.reason) for node in result.kept] == [("If", "it holds a subgraph")]
    x = np.random.default_rng(3).standard_normal((1, 4, 6, 6)).astype("f2").astype("f4")
    for choice in (True, False):
        np.testing.assert_array_equal(run(result.model, x=x, c=np.array(choice)), run(model, x=x, c=np.array(choice)))


def test_custom_operators_stay_fp32(build):
    model = build("(float[1,4] x) => (float[1,4] y)", "a = Relu(x) y = own.Thing(a)", domains=', "own" : 1')
    result = to_fp16(model)
    (kept,) = result.kept
    assert (kept.op, kept.reason) == ("Thing", "operator of domain 'own', whose types are not known")
    assert ops(result.model) == {"Cast": 2, "Relu": 1, "Thing": 1}


def test_quantized_weights_of_old_opsets_stay(build):
    model = build(
        "(float[1,4] x) => (float[1,4] y)", "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Relu(d)",
        opset=17, s=np.float32(0.1), z=np.int8(0),
    )  # fmt: skip
    result = checked(model)
    assert [node.reason for node in result.kept] == ["QuantizeLinear has no FP16 form in opset 17"]


def test_module_paths_survive(network):
    for node in network.graph.node:
        onnx.helper.set_model_props(node, {"pkg.torch.onnx.name_scopes": f"['', '{node.name}']"})
    result = checked(network)
    scopes = {n.name: {p.key: p.value for p in n.metadata_props} for n in result.model.graph.node}
    assert scopes["n0"] == {"pkg.torch.onnx.name_scopes": "['', 'n0']"}
    assert scopes["y_to_fp32"] == {"pkg.torch.onnx.name_scopes": "['', 'n3']"}


def test_a_value_that_is_output_and_input_of_more(build):
    model = build(f"({IMAGE} x) => (float[1,4,6,6] a, float[1,4,6,6] y)", "a = Relu(x) y = Neg(a)")
    result = checked(model)
    assert [value.name for value in result.model.graph.output] == ["a", "y"] and result.casts == 3


def test_result_is_deterministic_plain_data(network):
    first, second = to_fp16(network), to_fp16(network)
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert "model" not in first.to_json() and first.to_json()["casts"] == 2


@pytest.mark.shows("MEA-18", "ERR-12")
def test_every_rounding_is_kept(build):
    """Products and sums in FP32 with each result rounded, bit for bit."""
    body = "a = Mul(x, w) b = Add(a, w) c = Mul(b, b) d = Mul(c, w) y = Add(d, x)"
    model = build("(float[1,512] x) => (float[1,512] y)", body, w=(512,))
    result = checked(model)
    x = np.random.default_rng(3).standard_normal((1, 512)).astype("f4")
    w = onnx.numpy_helper.to_array(model.graph.initializer[0])

    def rounded(values):
        return values.astype("f2").astype("f4")

    x16, w16 = rounded(x), rounded(w)
    b = rounded(rounded(x16 * w16) + w16)
    expected = rounded(rounded(rounded(b * b) * w16) + x16)
    kept = keep_rounding(result.model)
    onnx.checker.check_model(kept, full_check=True)
    np.testing.assert_array_equal(run(kept, x=x)[0], expected)


def test_every_rounding_is_kept_through_convolution_and_resize(network):
    """Each operator alone in FP32 on rounded inputs, its output rounded, gives the same as the pinned graph."""
    result = checked(network)
    x = np.random.default_rng(3).standard_normal((1, 4, 6, 6)).astype("f4")
    values = {"x": x} | {t.name: onnx.numpy_helper.to_array(t) for t in network.graph.initializer}
    values = {name: value if name == "k" else value.astype("f2").astype("f4") for name, value in values.items()}
    for node in network.graph.node:
        feeds = {name: values[name] for name in node.input if name}
        inputs = [onnx.helper.make_tensor_value_info(name, FLOAT, array.shape) for name, array in feeds.items()]
        output = onnx.helper.make_tensor_value_info(node.output[0], FLOAT, None)
        graph = onnx.helper.make_graph([node], "one", inputs, [output])
        one = onnx.helper.make_model(graph, opset_imports=network.opset_import, ir_version=8)
        values[node.output[0]] = run(one, **feeds)[0].astype("f2").astype("f4")
    np.testing.assert_array_equal(run(keep_rounding(result.model), x=x)[0], values["y"])


def test_what_int8_dequantizes_for_a_node_in_fp32_stays_in_fp32(build):
    w = np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype("f4")
    model = build(
        f"({IMAGE} x) => ({IMAGE} y)", "c = Conv(x, w) a = Relu(c) d = Conv(a, v) y = Sigmoid(d)", w=1e6 * w, v=1e-6 * w
    )
    x = np.random.default_rng(1).standard_normal((1, 4, 6, 6)).astype("f4")
    largest = dict.fromkeys("xd", 9.0) | dict.fromkeys("ca", 9e6)
    result = to_int8(model, place(model), {"x": 4.0, "a": 6e6}, largest=largest)
    assert {kept.op for kept in result.kept_fp32} >= {"Conv", "Relu"}
    makers = {name: node.op_type for node in result.model.graph.node for name in node.output}
    for node in result.model.graph.node:
        if node.op_type == "Conv":  # a Cast between would part TensorRT's INT8 convolution
            assert [makers[name] for name in node.input[:2]] == ["DequantizeLinear"] * 2
    exact, got = run(model, x=x)[0], run(result.model, x=x)[0]
    assert 20 * np.log10(np.abs(exact).max() / np.abs(got - exact).max()) > 25
