"""Weight rounding: the layer's error shrinks, scales and grid stay, and the rows are what the layer multiplies."""

import numpy as np
import onnx
import onnx.helper
import onnxruntime as ort
import pytest

from csa_deploy.graph.shapes import inferred
from csa_deploy.precision.patches import window_of
from csa_deploy.precision.qdq import Adjustments, QuantizedWeight, insert_qdq, quantize_weight
from csa_deploy.precision.qdq_placement import place
from csa_deploy.precision.weight_rounding import round_weights

CASES = {
    "dense, strided, padded": ("Conv <strides = [2, 2], pads = [1, 0, 1, 2], kernel_shape = [3, 3]>", (4, 6, 3, 3)),
    "depthwise": ("Conv <group = 6, pads = [1, 1, 1, 1], kernel_shape = [3, 3]>", (6, 1, 3, 3)),
    "grouped, dilated": ("Conv <group = 2, dilations = [2, 2], kernel_shape = [2, 3]>", (4, 3, 2, 3)),
    "columns": ("MatMul", (9, 5)),
}


def samples(count: int = 24) -> list[dict[str, np.ndarray]]:
    """Inputs whose channels and neighbours are correlated, as those of a network are."""
    draw = np.random.default_rng(2)
    mixed = draw.standard_normal((6, 6)) + 1.5
    noise = [np.einsum("oi,ihw->ohw", mixed, draw.standard_normal((6, 9, 9))) for _ in range(count)]
    return [{"x": (array + np.roll(array, 1, axis=2))[None].astype("f4")} for array in noise]


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def model(build, request):
    operator, shape = request.param
    weight = np.random.default_rng(1).standard_normal(shape).astype("f4")
    return build("(float[1,6,9,9] x) => (float[1,a,b,c] y)", f"y = {operator} (x, w)", w=weight)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0]


def test_rows_times_the_matrix_is_the_layers_output(model):
    (feeds, *_), (layer,) = samples(1), place(model).layers
    window = window_of(next(iter(inferred(model).graph)), layer)
    assert window is not None
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    rows = window.rows(feeds["x"], 10**6, np.random.default_rng(0))
    outputs = rows @ window.matrix(weight).transpose(0, 2, 1)  # (groups, positions, outputs)
    expected = run(model, feeds)
    if layer.op == "Conv":
        expected = expected[0].reshape(rows.shape[0], -1, expected[0, 0].size).transpose(0, 2, 1)
    np.testing.assert_allclose(outputs, expected.reshape(outputs.shape), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(window.weight(window.matrix(weight), weight.shape), weight)


def test_the_error_of_the_outputs_shrinks_on_samples_it_was_not_fitted_to(model):
    placement = place(model)
    (layer,) = placement.layers
    exact = onnx.numpy_helper.to_array(model.graph.initializer[0])
    window = window_of(next(iter(inferred(model).graph)), layer)
    fitted, held = samples()[:16], samples()[16:]
    (rounded,) = round_weights(model, placement, {"x": 12.0}, fitted, threads=1).values()

    def error(weight: QuantizedWeight) -> float:
        difference = window.matrix(weight.dequantized() - exact).transpose(0, 2, 1)
        rows = (window.rows(feeds["x"], 10**6, np.random.default_rng(0)) for feeds in held)
        return sum(float(((inputs @ difference) ** 2).sum()) for inputs in rows)

    assert error(rounded) < 0.9 * error(quantize_weight(exact, layer.axis))


def test_weights_stay_on_the_grid_of_plain_rounding_and_are_the_same_twice(model):
    placement = place(model)
    (layer,) = placement.layers
    first, second = (round_weights(model, placement, {"x": 12.0}, samples(), threads=1) for _ in range(2))
    (key,) = first
    plain = quantize_weight(onnx.numpy_helper.to_array(model.graph.initializer[0]), layer.axis)
    assert key == ("w", layer.axis)
    np.testing.assert_array_equal(first[key].scales, plain.scales)
    np.testing.assert_array_equal(first[key].values, second[key].values)
    assert first[key].values.min() >= -127
    assert (first[key].values != plain.values).any()


def test_a_weight_that_two_layers_share_is_rounded_for_both(build):
    weight = np.random.default_rng(1).standard_normal((6, 6, 1, 1)).astype("f4")
    body = "a = Conv (x, w) r = Relu (a) y = Conv (r, w)"
    model = build("(float[1,6,9,9] x) => (float[1,6,9,9] y)", body, w=weight)
    steps = []
    thresholds = {"x": 12.0, "r": 40.0}
    weights = round_weights(
        model, place(model), thresholds, samples(), threads=1, progress=lambda done, total: steps.append((done, total))
    )
    assert set(weights) == {("w", 0)}
    assert steps == [(1, 1)]
    int8 = insert_qdq(model, place(model), thresholds, adjustments=Adjustments(weights=weights))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in int8.model.graph.initializer}
    np.testing.assert_array_equal(stored["w_int8"], weights["w", 0].values)


def test_what_it_is_not_written_for_is_left_out(build):
    transposed = build("(float[1,6,9,9] x) => (float[1,4,9,9] y)", "y = ConvTranspose (x, w)", w=(6, 4, 1, 1))
    assert round_weights(transposed, place(transposed), {"x": 12.0}, samples(), threads=1) == {}
