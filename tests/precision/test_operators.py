"""INT8 of every operator that can have it, in all its forms: axes, factors, shared names. What is corrected or
equalized is compared with running the graph, never with a formula."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csa_deploy.precision.bias_correction import corrected_biases
from csa_deploy.precision.equalization import equalize, find_groups, largest_by_channel
from csa_deploy.precision.qdq import NOTHING, Adjustments, insert_qdq, quantize_weight
from csa_deploy.precision.qdq_placement import place
from csa_deploy.precision.weight_rounding import round_weights

F = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Case:
    """A network of one layer, and its inputs."""

    model: onnx.ModelProto
    samples: list[dict[str, np.ndarray]]


def network(nodes, inputs: dict[str, tuple[int, ...]], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info(name, F, shape) for name, shape in inputs.items()],
        [onnx.helper.make_tensor_value_info("y", F, None)],
        [onnx.numpy_helper.from_array(np.asarray(a, np.float32), name) for name, a in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True), full_check=True)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0]


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    """1-D to 3-D, with groups, and with the last axis as long as the channels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rank, groups, batch = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2]))
    sizes = tuple(draw(st.sampled_from([3, 4, 5])) for _ in range(rank))
    weights = {"w": rng.standard_normal((8, 4 // groups, *[1] * rank))}
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="layer", group=groups)
    if draw(st.booleans()):
        node.input.append("b")
        weights["b"] = rng.standard_normal(8)
    return Case(network([node], {"x": (batch, 4, *sizes)}, weights), samples((batch, 4, *sizes), rng, axis=1))


@st.composite
def products(draw: st.DrawFn) -> Case:
    """Gemm with its factors, both of its transpositions and every shape of its bias."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, inputs, outputs = draw(st.sampled_from([1, 3, 4])), 4, 5
    across, turned = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    weights = {"w": rng.standard_normal((outputs, inputs) if turned else (inputs, outputs))}
    factors = {name: draw(st.sampled_from([0.25, 1.0, -2.0, 4.0])) for name in ("alpha", "beta")}
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], name="layer", transA=across, transB=turned, **factors)
    if bias := draw(st.sampled_from(["", (), (5,), (1, 5), (rows, 1), (rows, 5)])) or None:
        node.input.append("b")
        weights["b"] = rng.standard_normal(bias)
    shape = (inputs, rows) if across else (rows, inputs)
    return Case(network([node], {"x": shape}, weights), samples(shape, rng, axis=0 if across else 1))


def samples(shape: tuple[int, ...], rng: np.random.Generator, axis: int) -> list[dict[str, np.ndarray]]:
    """Inputs whose channels differ, and which INT8 clips: the mean of an output moves."""
    spread = np.arange(1, shape[axis] + 1).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return [{"x": (np.abs(rng.standard_normal(shape)) * spread).astype("f4")} for _ in range(6)]


@settings(max_examples=60, deadline=None)
@given(st.one_of(convolutions(), products()))
def test_bias_correction_takes_the_mean_error_out_of_every_channel(case):
    placement, thresholds = place(case.model), {"x": 2.0}
    found = Adjustments(biases=corrected_biases(case.model, placement, thresholds, case.samples, threads=1))

    def mean_error(adjustments: Adjustments) -> np.ndarray:
        int8 = insert_qdq(case.model, placement, thresholds, adjustments=adjustments).model
        onnx.checker.check_model(int8, full_check=True)
        errors = np.mean([run(int8, f).astype("f8") - run(case.model, f) for f in case.samples], axis=0)
        axis = 1 if case.model.graph.node[0].op_type == "Conv" else errors.ndim - 1
        return np.abs(errors.mean(axis=tuple(i for i in range(errors.ndim) if i != axis)))

    plain, corrected = mean_error(NOTHING), mean_error(found)
    assert set(found.biases) == {"layer"}
    assert corrected.max() <= 1e-4 * max(1.0, plain.max())
    assert plain.max() > 0.05  # what is taken out was there


def test_a_bias_without_effect_is_left_alone():
    weights = {"w": np.ones((4, 2)), "b": np.ones(2)}
    node = onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", beta=0.0)
    model = network([node], {"x": (1, 4)}, weights)
    assert corrected_biases(model, place(model), {"x": 1.0}, [{"x": np.ones((1, 4), "f4")}], threads=1) == {}


def test_one_tensor_read_along_two_axes_has_two_means():
    """A square matrix that one product reads by rows and another by columns."""
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w"], ["a"], name="rows"),
        onnx.helper.make_node("Gemm", ["x", "w"], ["b"], name="columns", transA=1),
        onnx.helper.make_node("Concat", ["a", "b"], ["y"], name="both", axis=1),
    ]
    model = network(nodes, {"x": (4, 4)}, {"w": rng.standard_normal((4, 3))})
    feeds = samples((4, 4), rng, axis=1)
    found = Adjustments(biases=corrected_biases(model, place(model), {"x": 2.0}, feeds, threads=1))
    int8 = insert_qdq(model, place(model), {"x": 2.0}, adjustments=found).model
    errors = np.mean([run(int8, f) - run(model, f) for f in feeds], axis=(0, 1))
    assert np.abs(errors).max() < 1e-4


@pytest.mark.parametrize("taken", ["x_scale", "x_int8", "x_dq", "int8_zero", "w_scale", "w_dq", "w_zero", "w_int8"])
@pytest.mark.parametrize("kind", ["tensor", "weight", "node"])
def test_names_that_the_graph_has_already_are_not_taken(taken, kind):
    rng = np.random.default_rng(1)
    weights = {"w": rng.standard_normal((4, 3, 1, 1)), "v": rng.standard_normal((2, 4, 1, 1)), "b": np.ones(4)}
    made, bias, name = "a", "b", "first"
    if kind == "weight":
        bias = taken
        weights[taken] = weights.pop("b")
    elif kind == "tensor":
        made = taken
    else:
        name = f"{taken}_node"
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w", bias], [made], name=name),
        onnx.helper.make_node("Conv", [made, "v"], ["y"], name="second"),
    ]
    model = network(nodes, {"x": (1, 3, 4, 4)}, weights)
    int8 = insert_qdq(model, place(model), {"x": 4.0, made: 8.0}).model
    onnx.checker.check_model(int8, full_check=True)
    names = [node.name for node in int8.graph.node]
    assert len(set(names)) == len(names)
    feeds = {"x": rng.standard_normal((1, 3, 4, 4)).astype("f4")}
    np.testing.assert_allclose(run(int8, feeds), run(model, feeds), atol=0.3)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([1, 4]),
    st.sampled_from([1, 4]),
    st.sampled_from(["Sigmoid", "HardSigmoid", "Tanh"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_equalization_through_a_gate_keeps_every_bit_and_every_shape(mapped, gating, op, swapped, seed):
    """A map and a gate of one or of all channels: where one is broadcast, nothing is equalized."""
    rng = np.random.default_rng(seed)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="made", pads=[1] * 4),
        onnx.helper.make_node("Conv", ["x", "w2"], ["k"], name="gating"),
        onnx.helper.make_node("GlobalAveragePool", ["k"], ["p"], name="pooled"),
        onnx.helper.make_node(op, ["p"], ["s"], name="gate"),
        onnx.helper.make_node("Mul", ["s", "c"] if swapped else ["c", "s"], ["m"], name="gated"),
        onnx.helper.make_node("Conv", ["m", "w3"], ["y"], name="read"),
    ]
    joint = max(mapped, gating)
    weights = {
        "w1": rng.standard_normal((mapped, 3, 3, 3)) * np.logspace(-2, 0, mapped).reshape(-1, 1, 1, 1),
        "b1": rng.standard_normal(mapped),
        "w2": rng.standard_normal((gating, 3, 1, 1)),
        "w3": rng.standard_normal((5, joint, 1, 1)),
    }
    model = network(nodes, {"x": (1, 3, 6, 6)}, weights)
    feeds = [{"x": rng.standard_normal((1, 3, 6, 6)).astype("f4")} for _ in range(2)]
    groups = find_groups(model, {"x", "m"})
    changed = equalize(model, groups, largest_by_channel(model, groups, feeds, threads=1), {"x", "m"}).model
    onnx.checker.check_model(changed, full_check=True)
    assert [run(changed, f).tobytes() for f in feeds] == [run(model, f).tobytes() for f in feeds]
    assert bool(groups.found) == (mapped >= gating)
    shapes = {tuple(t.dims) for t in changed.graph.initializer}
    assert shapes == {tuple(t.dims) for t in model.graph.initializer}


def rounded(values: np.ndarray, scale: np.ndarray, lowest: int) -> np.ndarray:
    """Values at the nearest of the levels, halves to even, in plain NumPy."""
    return (np.clip(np.rint(values / scale), lowest, 127) * scale).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.one_of(convolutions(), products()), st.sampled_from([0.3, 2.0, 100.0]))
@pytest.mark.shows("MEA-18")
def test_the_int8_graph_computes_the_operator_on_rounded_values(case, threshold):
    """What the FP32 graph computes when it is fed rounded inputs and holds rounded weights.

    Sums in FP32 may differ in their last bits; a level of the input is a thousand times as much.
    """
    model = case.model
    (layer,) = place(model).layers
    int8 = insert_qdq(model, place(model), {"x": threshold}).model
    stated = {t.name: onnx.numpy_helper.to_array(t) for t in int8.graph.initializer}
    literal = onnx.ModelProto()
    literal.CopyFrom(model)
    for tensor in literal.graph.initializer:
        if tensor.name == "w":
            weight = onnx.numpy_helper.to_array(tensor)
            others = tuple(i for i in range(weight.ndim) if i != layer.axis)
            scales = (np.abs(weight).max(axis=others, keepdims=True) / 127).astype(np.float32)
            assert np.array_equal(scales.ravel(), stated["w_scale"])
            assert stated["w_int8"].min() >= -127 and not stated["w_zero"].any()
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded(weight, scales, -127), "w"))
    scale = np.float32(threshold / 127)
    assert stated["x_scale"] == scale
    for feeds in case.samples[:2]:
        expected = run(literal, {"x": rounded(feeds["x"], scale, -128)})
        np.testing.assert_allclose(run(int8, feeds), expected, rtol=1e-5, atol=1e-5 * threshold)


@settings(max_examples=200, deadline=None)
@given(st.floats(2.0**-40, 60000.0, width=32), st.booleans())
def test_scales_in_fp16_are_the_next_that_it_has(largest, negative):
    """Not the nearest: one below the largest value would clip it."""
    weight = np.asarray([[largest, 0.0], [0.0, largest / 2]], np.float32) * (-1 if negative else 1)
    found = quantize_weight(weight, 0, half_scales=True)
    halves = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)  # all that are finite, ascending
    wanted = np.abs(weight).max(axis=1).astype(np.float64) / 127
    expected = halves[np.searchsorted(halves, wanted)]
    np.testing.assert_allclose(found.scales, expected, rtol=0)
    assert np.abs(found.values).max() <= 127
    assert (np.abs(found.dequantized() - weight) <= found.scales[:, None] * (0.5 + 1e-6)).all()


def literal_obq(weight: np.ndarray, scales: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Optimal brain quantization as published, one weight after the other: the inverse is updated, not factored."""
    inputs = weight.shape[1]
    order = np.argsort(-np.diag(moments), kind="stable")
    damped = moments + np.eye(inputs) * (0.01 * np.diag(moments).mean() + np.finfo(np.float32).tiny)
    inverse, left, rounded = np.linalg.inv(damped), weight.astype(np.float64).copy(), np.zeros(weight.shape)
    for number in order:
        rounded[:, number] = np.clip(np.rint(left[:, number] / scales), -127, 127)
        error = (left[:, number] - rounded[:, number] * scales) / inverse[number, number]
        left -= np.outer(error, inverse[number])
        inverse = inverse - np.outer(inverse[:, number], inverse[number]) / inverse[number, number]
        inverse[number, number] = 1.0  # done with; its row and column are zero
    return rounded


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["MatMul", "Gemm", "Conv"]), st.integers(2, 12))
def test_weights_are_rounded_as_optimal_brain_quantization_has_it(seed, op, inputs):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((inputs, 6))
    shape, stored, more = (3, inputs), weight, {}
    if op == "Conv":
        shape, stored = (3, inputs, 1, 1), weight.T.reshape(6, inputs, 1, 1)
    elif op == "Gemm":
        stored, more = weight.T, {"transB": 1}
    model = network([onnx.helper.make_node(op, ["x", "w"], ["y"], name="layer", **more)], {"x": shape}, {"w": stored})
    feeds = samples(shape, rng, axis=1)
    (found,) = round_weights(model, place(model), {"x": 2.5}, feeds, threads=1).values()
    scale = np.float32(2.5 / 127)
    rows = np.concatenate([f["x"].reshape(3, inputs) for f in feeds])
    rows = np.clip(np.rint(rows / scale), -128, 127).astype(np.float32) * scale
    exact = weight.astype(np.float32).T
    scales = (np.abs(exact).max(axis=1) / 127).astype(np.float32)
    expected = literal_obq(exact, scales.astype(np.float64), (rows.T.astype("f8") @ rows))
    ours = found.values.reshape(6, inputs) if op == "Conv" else found.values.T if op == "MatMul" else found.values
    assert np.array_equal(found.scales, scales)
    loss = [((rows @ (q * scales[:, None] - exact).T) ** 2).sum() for q in (ours, expected)]
    assert (ours != expected).mean() < 0.03  # sums in FP32: a weight between two values may fall to either
    assert loss[0] <= 1.1 * loss[1] + 1e-6
