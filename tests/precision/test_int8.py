"""Q/DQ: where it is placed, what it computes, and what NVIDIA's parser and builder make of it."""

import importlib.util
from dataclasses import replace

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime as ort
import pytest

from csa_deploy.engine.build import build as build_engine
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import UsageError
from csa_deploy.precision.bias_correction import corrected_biases
from csa_deploy.precision.calibration import calibrate
from csa_deploy.precision.calibration_data import open_calibration
from csa_deploy.precision.cost import latency, milliseconds, node_costs, not_known
from csa_deploy.precision.int8 import to_int8
from csa_deploy.precision.judging import compare
from csa_deploy.precision.propagation import propagated
from csa_deploy.precision.qdq import NOTHING, Adjustments, insert_qdq, quantize_weight
from csa_deploy.precision.qdq_placement import place
from csa_deploy.precision.search import search
from csa_deploy.precision.sensitivity import agreement, in_order, measure, rank_correlation
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.precision.why_slow import diagnose
from csa_deploy.records.precision import Sensitivity
from csa_deploy.restricted.check import check

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")

# A gated residual block with a reshape, a pooling and a head, as CSA has them; biases are shared.
BLOCK = """
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b)
    s = Sigmoid (a)
    g = Mul (a, s)
    d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 16> (g, w2, b)
    r = Add (a, d)
    m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
    p = AveragePool <kernel_shape = [4, 4]> (m)
    h = Conv (p, w3)
    y = Reshape (h, shape)
"""
SHAPES = {"x": (1, 3, 8, 8)}


@pytest.fixture(scope="module")
def model(build):
    draw = np.random.default_rng(1)
    weights = {
        "w1": 0.3 * draw.standard_normal((16, 3, 3, 3)),
        "w2": 0.3 * draw.standard_normal((16, 1, 3, 3)),
        "w3": 0.3 * draw.standard_normal((10, 16, 1, 1)),
        "b": 0.1 * draw.standard_normal(16),
    }
    return build(
        "(float[1,3,8,8] x) => (float[1,10] y)",
        BLOCK,
        **{name: array.astype("f4") for name, array in weights.items()},
        shape=np.asarray([1, 10]),
    )


@pytest.fixture(scope="module")
def placement(model):
    return place(model)


@pytest.fixture(scope="module")
def statistics(model, placement):
    return calibrate(model, open_calibration("random", None, SHAPES), placement.tensors, threads=1)


@pytest.fixture(scope="module")
def quantized(model, placement, statistics):
    return insert_qdq(model, placement, statistics.thresholds("mse"))


def images(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(99)
    return [{"x": draw.standard_normal(SHAPES["x"]).astype("f4")} for _ in range(count)]


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0]


def snr(model: onnx.ModelProto, other: onnx.ModelProto) -> float:
    pairs = [(run(model, feeds), run(other, feeds)) for feeds in images(8)]
    return 10 * np.log10(sum((a**2).sum() for a, _ in pairs) / sum(((a - b) ** 2).sum() for a, b in pairs))


def makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def test_layers_are_those_that_tensorrt_fuses(placement):
    found = {layer.op: layer for layer in placement.layers}
    assert [layer.op for layer in placement.layers] == ["Conv", "Conv", "Add", "AveragePool", "Conv"]
    assert found["Add"].activations == {0: "a"}  # the skip branch; the layer that makes d takes the addition in
    assert set(placement.tensors) == {"x", "g", "a", "m", "p"}


def test_graph_is_valid_sorted_and_symmetric(quantized):
    onnx.checker.check_model(quantized.model, full_check=True)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.model.graph.initializer}
    made = makers(quantized.model)
    for node in quantized.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = weights[node.input[1]], weights[node.input[2]]
            assert np.isfinite(scale).all() and (scale > 0).all()
            assert zero.dtype == np.int8 and not zero.any()
        if node.op_type == "Conv":
            assert [made[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert all(name in weights and weights[name].dtype == np.float32 for name in node.input[2:])  # the bias
        if node.op_type in ("Sigmoid", "Mul"):
            assert not any(name in made and made[name].op_type == "DequantizeLinear" for name in node.input)
    assert weights["w2_scale"].shape == (16,)
    assert "w1" not in weights


def test_a_tensor_has_one_pair_whoever_reads_it(quantized):
    pairs = [node.input[0] for node in quantized.model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) == len(set(pairs)) == 5


def test_what_it_computes_is_close_and_the_argument_is_left_alone(model, placement, statistics, quantized):
    before = model.SerializeToString(deterministic=True)
    again = insert_qdq(model, placement, statistics.thresholds("mse"))
    assert model.SerializeToString(deterministic=True) == before
    assert again.model.SerializeToString(deterministic=True) == quantized.model.SerializeToString(deterministic=True)
    assert snr(model, quantized.model) > 25


def test_weights_are_rounded_per_channel():
    weight = np.random.default_rng(0).standard_normal((4, 3, 2, 2)) * np.asarray([1, 10, 0.01, 0]).reshape(4, 1, 1, 1)
    quantized = quantize_weight(weight.astype("f4"), 0)
    assert (np.abs(quantized.dequantized() - weight).max(axis=(1, 2, 3)) <= 0.501 * quantized.scales).all()
    assert quantized.values.min() >= -127
    assert not quantized.values[3].any()


def test_rest_is_fp16_where_the_opset_has_it_and_scales_are_exact_there(model, build, placement, statistics):
    result = to_int8(model, placement, statistics.thresholds("mse"), largest=statistics.largest)
    assert result.rest == "fp16"
    assert result.model.opset_import[0].version == 19
    onnx.checker.check_model(result.model, full_check=True)
    scales = [t for t in result.model.graph.initializer if t.name.endswith("_scale")]
    assert all(t.data_type == onnx.TensorProto.FLOAT16 for t in scales)
    assert all(np.float16(scale) == scale > 0 for scale in result.scales.values())
    assert snr(model, result.model) > 25
    older = build("(float[1,2,4,4] x) => (float[1,2,4,4] y)", "y = Conv (x, w)", opset=17, w=(2, 2, 1, 1))
    assert to_int8(older, place(older), {"x": 3.0}).rest == "fp32"


def test_a_layer_kept_on_request_is_not_quantized_and_named(model, placement, statistics):
    name = placement.layers[0].name
    result = to_int8(model, placement, statistics.thresholds("mse"), keep_fp32=[name])
    assert result.kept[name] == "kept on request"
    assert name not in {layer.name for layer in result.layers}
    assert name in {node.name for node in result.kept_fp32}


def test_an_input_that_is_always_zero_stays_in_floating_point(build):
    model = build("(float[1,1,2,2] x) => (float[1,1,2,2] y)", "z = Relu (x) y = Conv (z, w)", w=(1, 1, 1, 1))
    result = insert_qdq(model, place(model), {})
    assert "zero on every calibration image" in result.kept["n1"]
    assert not any(node.op_type == "QuantizeLinear" for node in result.model.graph.node)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("reached", "weight", "named"),
    [(5e7, 1.0, "input 'x' reaches 5e+07"), (1.0, 1e7, "weight 'w' reaches 1e+07")],
)
def test_a_scale_that_fp16_cannot_represent_keeps_its_layer_out_of_int8(build, reached, weight, named):
    body, shape = "z = Conv (x, w) y = Conv (z, v)", "(float[1,1,2,2] x) => (float[1,1,2,2] y)"
    model = build(shape, body, opset=18, w=np.full((1, 1, 1, 1), weight, "f4"), v=(1, 1, 1, 1))
    result = to_int8(model, place(model), {"x": reached, "z": 1.0})
    assert [layer.name for layer in result.layers] == ["n1"] and named in result.kept["n0"]
    assert all(np.isfinite(scale) for scale in result.scales.values())


def test_activations_beyond_fp16_stay_fp32_in_the_mixed_graph(model, placement, statistics):
    result = to_int8(model, placement, statistics.thresholds("mse"), largest={**statistics.largest, "g": 1e6})
    assert any("'g' reaches 1e+06" in node.reason for node in result.kept_fp32)


@pytest.mark.parametrize(
    ("signature", "body", "opset", "message"),
    [
        ("(float[1,1,2,2] x) => (float[1,1,2,2] y)", "y = Conv (x, w)", 11, "opset 11 has no per-channel"),
        ("(float[1,1,2,2] x) => (float[1,1,2,2] y)", "y = Sigmoid (x)", 18, "no convolution or matrix product"),
    ],
)
def test_graphs_that_cannot_be_int8_are_refused(build, signature, body, opset, message):
    with pytest.raises(UsageError, match=message):
        place(build(signature, body, opset=opset, **({"w": (1, 1, 1, 1)} if "w" in body else {})))


def test_a_graph_already_quantized_is_refused(quantized):
    with pytest.raises(UsageError, match="quantized already: node"):
        place(quantized.model)


def test_switches_compute_what_the_written_graph_computes(model, placement, statistics, quantized):
    thresholds = statistics.thresholds("mse")
    network = Switchable(model, placement, thresholds, threads=1)
    names = [layer.name for layer in placement.layers]
    (feeds,) = images(1)
    np.testing.assert_allclose(network.run(feeds, ())["y"], run(model, feeds), atol=1e-5)
    np.testing.assert_allclose(network.run(feeds, names)["y"], run(quantized.model, feeds), atol=2e-2)
    partly = insert_qdq(model, placement.without(names[:2]), thresholds)
    np.testing.assert_allclose(network.run(feeds, names[2:])["y"], run(partly.model, feeds), atol=2e-2)


@pytest.fixture(scope="module")
def network(model, placement, statistics):
    return Switchable(model, placement, statistics.thresholds("mse"), threads=1)


def sensitivities(model, network, statistics) -> list[Sensitivity]:
    measured = measure(network, images(4))
    estimated = propagated(model, network.layers, statistics.thresholds("mse"), images(4), threads=1)
    costs = node_costs(model)
    return [
        Sensitivity(
            layer.name,
            layer.op,
            measured[layer.name],
            estimated[layer.name],
            costs[layer.name].saved("fp16"),
        )
        for layer in network.layers
    ]


def test_the_search_returns_the_fewest_layers_that_hold_the_budget(model, network, statistics):
    def find(bound: float):
        return search(
            network,
            images(8),
            None,
            {"snr_db": bound},
            node_costs(model),
            lambda: sensitivities(model, network, statistics),
        )

    easy, hard, impossible = find(20), find(45), find(200)
    assert easy.returned == () and easy.sensitivities == ()
    assert 0 < len(hard.returned) < len(network.layers)
    by_count = {point.returned: point for point in hard.pareto}
    chosen = len(hard.returned)
    assert by_count[chosen].holds and by_count[chosen].metrics["snr_db"] >= 45
    assert not by_count[chosen - 1].holds
    assert by_count[chosen].latency_ms > by_count[0].latency_ms
    assert len(impossible.returned) == len(network.layers)
    assert find(45).to_json() == hard.to_json()  # deterministic


def test_two_outputs_of_zeros_agree_as_at_the_gate():
    zeros, ones = [{"y": np.zeros((2, 3))}], [{"y": np.ones((2, 3))}]
    same, other = compare(zeros, zeros)["y"], compare(zeros, ones)["y"]
    assert (same["snr_db"], same["cosine"], same["top1_agreement"]) == (np.inf, 1.0, 1.0)
    assert (other["snr_db"], other["cosine"]) == (-np.inf, 0.0)


def test_estimates_rank_layers_much_as_measurements_do():
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == 1.0
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == -1.0
    layers = [Sensitivity(str(n), "Conv", float(n), float(-n), None) for n in range(3)]
    assert agreement(layers) == -1.0 and agreement([*layers, replace(layers[0], estimated=None)]) is None


def test_int8_saves_time_in_the_cost_model(model, placement):
    costs = node_costs(model)
    names = frozenset(layer.name for layer in placement.layers)
    assert latency(costs, names) < latency(costs, frozenset()) < latency(costs, frozenset(), "fp32")
    assert costs["n0"].macs == 16 * 8 * 8 * 27


UNKNOWN = ("(float[1,3,4,4] x) => (float[1,8,4,4] y)", "h = own.Thing(x) c = Conv(h, w) y = Relu(c)")


def test_the_cost_of_unknown_shapes_is_unknown_and_not_zero(build):
    model = build(*UNKNOWN, domains=', "own" : 1', w=(8, 3, 1, 1))
    costs = node_costs(model)
    assert not_known(costs) == ["n0", "n1", "n2"][: len(not_known(costs))] and "n1" in not_known(costs)
    assert costs["n1"].seconds("fp16") is None and costs["n1"].saved("fp16") is None
    assert latency(costs, frozenset()) is None and milliseconds(None) is None


def test_nodes_without_a_name_cost_as_much_as_with_one(build):
    model = build("(float[1,3,4,4] x) => (float[1,8,4,4] y)", "y = Conv(x, w)", w=(8, 3, 1, 1))
    named = latency(node_costs(model), frozenset())
    model.graph.node[0].name = ""
    assert latency(node_costs(model), frozenset()) == named > 0


def test_layers_go_back_by_their_loss_where_the_time_of_one_is_unknown():
    one, two = Sensitivity("one", "Conv", 0.1, None, 1e-6), Sensitivity("two", "Conv", 0.2, None, 1e-3)
    assert [s.name for s in in_order([two, one])] == ["one", "two"]  # by loss per time
    lost = Sensitivity("three", "Conv", 0.15, None, None)
    assert [s.name for s in in_order([one, lost, two])] == ["two", "three", "one"]
    assert lost.to_json()["rank"] is None


def test_bias_correction_takes_out_the_mean_error(build):
    """Weights whose rounding errors all point one way, and an input that is never negative."""
    row = np.full(32, 0.4 / 127)
    weight = np.stack([np.concatenate([[1.0], row[1:]]), np.concatenate([[-1.0], row[1:]])]).astype("f4")
    model = build("(float[1,32,2,2] x) => (float[1,2,2,2] y)", "y = Conv (x, w)", w=weight.reshape(2, 32, 1, 1))
    placement, draw = place(model), np.random.default_rng(0)
    samples = [{"x": draw.uniform(0, 1, (1, 32, 2, 2)).astype("f4")} for _ in range(50)]
    corrected = Adjustments(biases=corrected_biases(model, placement, {"x": 1.0}, samples))

    def mean_error(adjustments: Adjustments) -> float:
        int8 = insert_qdq(model, placement, {"x": 1.0}, adjustments=adjustments).model
        return float(np.abs(np.mean([run(int8, f) - run(model, f) for f in samples], axis=(0, 1, 3, 4))).max())

    assert mean_error(NOTHING) > 0.03
    assert mean_error(corrected) < 0.001


def test_the_doctor_names_islands_gates_borders_and_channels(model, placement, statistics):
    names = [layer.name for layer in placement.layers]
    result = insert_qdq(model, placement.without(names[1:2]), statistics.thresholds("mse"))
    hazards = diagnose(result.model).by_hazard()
    told = " ".join(hazards)
    for word in ("float island", "gate in floating point: Sigmoid", "channels no multiple of 16"):
        assert word in told
    assert all(total.seconds >= 0 and not total.unknown for total in hazards.values())
    with pytest.raises(UsageError, match="not quantized"):
        diagnose(model)


@pytest.mark.parametrize("scope", ["drive-os-7", "trt-11"])
def test_the_scopes_that_take_the_network_take_it_in_int8(model, quantized, scope):
    plain, int8 = (check(graph, [scope]).verdict for graph in (model, quantized.model))
    assert plain != "denied"
    assert int8 != "denied"


@needs_rtx
@pytest.mark.rtx
def test_tensorrt_builds_it_and_no_convolution_has_a_float_input(model, placement, statistics, tmp_path):
    result = to_int8(model, placement, statistics.thresholds("mse"))
    onnx.save(result.model, tmp_path / "int8.onnx")
    plan = BuildPlan(backend="tensorrt-rtx", precision="int8", compute_capabilities=("8.6",))
    built = build_engine(tmp_path / "int8.onnx", tmp_path / "int8.engine", plan)
    made = {tensor.name: layer for layer in built.layers for tensor in layer.outputs}
    convolutions = [layer for layer in built.layers if layer.type == "CONVOLUTION"]
    assert len(convolutions) == 3
    for layer in convolutions:
        for tensor in layer.inputs[:2]:
            dequantize = made[tensor.name]
            assert dequantize.type == "DEQUANTIZE"
            assert dequantize.inputs[0].dtype == "INT8"
