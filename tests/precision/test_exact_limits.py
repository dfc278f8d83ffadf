"""Limits of an equalized Clip: exact for layers in floating point, on inputs far beyond what was calibrated on."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import csa_deploy
from csa_deploy.precision.equalization import Equalized, equalize, find_groups, largest_by_channel
from csa_deploy.precision.exact_limits import said_of_limits, with_exact_limits
from csa_deploy.precision.qdq_placement import place

PADDED = "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"
FAR = (1.0, 10.0, 1000.0)


@pytest.fixture(scope="module")
def relu6(build):
    """Two ReLU6 whose channels differ by a factor of a hundred, the first behind two readers."""
    draw = np.random.default_rng(3)

    def weight(*shape):
        spread = np.geomspace(0.01, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        return (draw.standard_normal(shape) * spread).astype("f4")

    body = f"""
        a = Conv <{PADDED}> (x, w1, b1) r = Clip (a, low, high)
        d = Conv <{PADDED}, group = 8> (r, w2) q = Clip (d, low, high)
        p = Conv (q, w3) e = Conv (r, w4) y = Add (p, e)
    """
    given = {"w1": weight(8, 3, 3, 3), "b1": weight(8), "w2": weight(8, 1, 3, 3)}
    given |= {"w3": weight(4, 8, 1, 1), "w4": weight(4, 8, 1, 1)}
    limits = {"low": np.float32(0), "high": np.float32(6)}
    return build("(float[1,3,6,6] x) => (float[1,4,6,6] y)", body, **given, **limits)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, 6, 6)).astype("f4")


def run(model: onnx.ModelProto, image: np.ndarray, names=None) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options).run(names, {"x": image})


def far_off(changed: onnx.ModelProto, model: onnx.ModelProto) -> float:
    """Largest difference of the outputs, relative to the largest output, over inputs to far beyond calibration."""
    pairs = [(run(changed, size * x[None]), run(model, size * x[None])) for x in images(3) for size in FAR]
    return max(
        float(np.abs(got - want).max() / np.abs(want).max())
        for have, exact in pairs
        for got, want in zip(have, exact, strict=True)
    )


@pytest.fixture(scope="module")
def equalized(relu6) -> Equalized:
    tensors = place(relu6).tensors
    groups = find_groups(relu6, tensors, limited=True)
    largest = largest_by_channel(relu6, groups, [{"x": x[None]} for x in images(4)], threads=1)
    return equalize(relu6, groups, largest, tensors)


def test_without_int8_layers_the_graph_is_the_one_before_everywhere(relu6, equalized):
    assert set(equalized.limits) == {"r_equalized", "q_equalized"}
    assert far_off(equalized.model, relu6) > 0.01
    before = equalized.model.SerializeToString(deterministic=True)
    exact, changed = with_exact_limits(equalized.model, equalized.limits, ())
    assert equalized.model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(exact, full_check=True)
    assert set(changed) == set(equalized.limits)
    assert "Clip" not in {node.op_type for node in exact.graph.node}
    assert far_off(exact, relu6) < 1e-5
    assert {"low", "high"}.isdisjoint(tensor.name for tensor in exact.graph.initializer)


def test_only_what_a_floating_layer_reads_is_changed(equalized):
    layers = place(equalized.model).layers
    assert with_exact_limits(equalized.model, equalized.limits, layers) == (equalized.model, ())
    for left, want in (("n2", "r_equalized"), ("n4", "q_equalized"), ("n5", "r_equalized")):
        rest = [layer for layer in layers if layer.name != left]
        exact, changed = with_exact_limits(equalized.model, equalized.limits, rest)
        assert changed == (want,)
        assert [node.op_type for node in exact.graph.node].count("Clip") == 1


def test_what_is_said_counts_both_kinds():
    only, exact = said_of_limits(["a", "b", "c"], ["b"])
    assert "2 tensors that only INT8" in only and "1 tensor that layers in floating point" in exact and "is b" in exact
    assert said_of_limits([], []) == []
    assert len(said_of_limits(["a"], ["a"])) == len(said_of_limits(["a"], [])) == 1


@pytest.mark.parametrize("opset", [17, 18])  # with the rest in FP32, and in FP16
def test_a_layer_that_stays_floating_reads_what_it_read_before(relu6, tmp_path, opset):
    """In the INT8 graph as it is written."""
    model = onnx.ModelProto()
    model.CopyFrom(relu6)
    model.opset_import[0].version = opset
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    made = csa_deploy.quantize(
        path, calib=images(24), search=False, techniques=["clip-equalization"], keep_fp32=["n4"], threads=1
    )
    assert made.report.int8.techniques["clip_equalization"].used
    assert sum("clip equalization" in note for note in made.report.notes) == 2
    graph = made.model.graph
    (image,) = images(1)[None]
    assert all(np.isfinite(array).all() for array in run(made.model, image))
    (least,) = (node for node in graph.node if node.op_type == "Min")
    (clip,) = (node for node in graph.node if node.op_type == "Clip")
    assert made.report.int8.scales[clip.output[0]] * 127 <= 6 * 1.001  # INT8 ends no later than the limit
    # The most that a channel can add to what is summed is what it was: its limit times the weight that reads it.
    constants = {t.name: onnx.numpy_helper.to_array(t).astype("f4") for t in graph.initializer}
    before = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    reader = next(node for node in graph.node if node.name == "n4")
    np.testing.assert_allclose(constants[least.input[1]] * constants[reader.input[1]], 6 * before["w3"], rtol=2e-3)
