"""Equalization: what can be equalized, that outputs keep their bits, and that channels come to one range."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from csa_deploy.precision.activations import activations
from csa_deploy.precision.equalization import HEADROOM, equalize, find_groups, largest_by_channel
from csa_deploy.precision.qdq import insert_qdq
from csa_deploy.precision.qdq_placement import place

SIGNATURE = "(float[1,3,6,6] x) => (float[1,4,3,3] y)"
PADDED = "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Weights whose output channels differ by a factor of a hundred."""
    draw = np.random.default_rng(3)
    return {
        name: (draw.standard_normal(s) * np.logspace(-2, 0, s[0]).reshape(-1, *[1] * (len(s) - 1))).astype("f4")
        for name, s in shapes.items()
    }


@pytest.fixture(scope="module")
def residual(build):
    """A residual stream over ReLU, a depthwise convolution, a gate that only looks on, and pooling."""
    body = f"""
        a = Conv <{PADDED}> (x, w1, b1)
        r = Relu (a)
        d = Conv <{PADDED}, group = 8> (r, w2, b1)
        s = Add (r, d)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s)
        y = Conv (p, w3)
    """
    given = weights(w1=(8, 3, 3, 3), w2=(8, 1, 3, 3), w3=(4, 8, 1, 1), b1=(8,))
    return build(SIGNATURE, body, **given)


def images(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(5)
    return [{"x": draw.standard_normal((1, 3, 6, 6)).astype("f4")} for _ in range(count)]


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0]


def equalized(model: onnx.ModelProto, *, limited: bool = False) -> onnx.ModelProto:
    tensors = place(model).tensors
    groups = find_groups(model, tensors, limited=limited)
    return equalize(model, groups, largest_by_channel(model, groups, images(4), threads=1), tensors).model


def test_a_residual_stream_is_one_group(residual):
    (group,) = find_groups(residual, place(residual).tensors).found
    assert set(group.tensors) == {"a", "r", "d", "s", "p"}
    assert set(group.makers) == {"n0", "n2"}
    assert set(group.readers) == {"n2", "n5"}


def test_outputs_keep_every_bit_and_the_argument_is_left_alone(residual):
    before = residual.SerializeToString(deterministic=True)
    changed = equalized(residual)
    assert residual.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(changed, full_check=True)
    names = {t.name for t in changed.graph.initializer}
    assert {"n0_equalized_weight", "n2_equalized_bias", "n5_equalized_weight"} <= names
    assert "w1" not in names
    for feeds in images(8):
        np.testing.assert_array_equal(run(changed, feeds), run(residual, feeds))


def test_channels_come_to_one_range(residual):
    def spread(model: onnx.ModelProto, tensor: str) -> float:
        groups = find_groups(model, place(model).tensors)
        largest = largest_by_channel(model, groups, images(4), threads=1)[tensor]
        return float(largest.max() / largest.min())

    assert (
        spread(equalized(residual), "s_equalized") < spread(residual, "s") / 5
    )  # the weights that read them have their share


def test_it_is_deterministic(residual):
    first, second = (equalized(residual).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ("r = Clip (a, high, top)", "1 at Clip"),
        ("r = Clip (a, low, given)", "1 at Clip"),
        ("r = Clip (a, low)", "1 at Clip"),
        ("s = Sigmoid (a) r = Mul (a, s)", "1 at Sigmoid"),
        ("s = HardSwish (a) r = Identity (s)", "1 at HardSwish"),
    ],
)
def test_what_does_not_scale_bars_and_is_named(build, between, reason):
    limits = {"low": np.float32(0), "high": np.float32(6), "top": np.float32(7)}
    between = f"given = Abs (high) {between}" if "given" in between else between
    limits = {name: value for name, value in limits.items() if name in between}
    body = f"a = Conv <{PADDED}> (x, w1) {between} q = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r) "
    model = build(SIGNATURE, body + "y = Conv (q, w3)", **weights(w1=(8, 3, 3, 3), w3=(4, 8, 1, 1)), **limits)
    for limited in (False, True):
        groups = find_groups(model, place(model).tensors, limited=limited)
        assert groups.found == ()
        assert reason in groups.describe()


def test_only_the_second_step_takes_what_meets_a_limit(build, residual):
    assert find_groups(residual, place(residual).tensors, limited=True).found == ()
    model = relu6(build, 1.0)
    exact = find_groups(model, place(model).tensors)
    assert exact.found == () and "2 at Clip" in exact.describe()
    assert len(find_groups(model, place(model).tensors, limited=True).found) == 2


def relu6(build, size: float) -> onnx.ModelProto:
    """Through ReLU6 into a depthwise and a dense convolution; the largest channels are of the given size."""
    body = f"""
        a = Conv <{PADDED}> (x, w1, b1) r = Clip (a, low, high)
        d = Conv <{PADDED}, group = 8> (r, w2) q = Clip (d, low, high)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (q) y = Conv (p, w3)
    """
    given = weights(w1=(8, 3, 3, 3), w2=(8, 1, 3, 3), w3=(4, 8, 1, 1), b1=(8,))
    given = {name: array if name == "w3" else size * array for name, array in given.items()}
    return build(SIGNATURE, body, low=np.float32(0), high=np.float32(6), **given)


@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])  # below the limit, near it, cut off by it
def test_a_limit_is_passed_where_it_does_not_cut_off_what_was_seen(build, size):
    model = relu6(build, size)
    groups = find_groups(model, place(model).tensors, limited=True)
    assert [(set(g.tensors), dict(g.limits)) for g in groups.found] == [
        ({"a", "r"}, {"r": 6.0}),
        ({"d", "q", "p"}, {"q": 6.0}),
    ]
    assert "a limit cuts off 2 tensors" in groups.describe()
    largest = largest_by_channel(model, groups, images(4), threads=1)
    changed = equalized(model, limited=True)
    for feeds in images(4):
        want = run(model, feeds)
        np.testing.assert_allclose(run(changed, feeds), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    done = {new for group in groups.found for new in group.renamed.values()}
    assert not find_groups(changed, place(changed).tensors, limited=True, done=done).found  # each once
    assert len(find_groups(changed, place(changed).tensors, limited=True).found) == 2  # not by their names
    after = {"r_equalized": np.zeros(8), "q_equalized": np.zeros(8)}
    for values in activations(changed, list(after), images(4), threads=1):
        after = {name: np.maximum(size, values[name].max(axis=(0, 2, 3))) for name, size in after.items()}
    for name in ("r", "q"):
        before, now = (array[array > 0] for array in (largest[name], after[f"{name}_equalized"]))
        assert now.max() <= 6.0
        assert now.max() / now.min() < before.max() / before.min()
        cut = (largest[name] > 0) & (largest[name] < 6 / HEADROOM)
        assert (after[f"{name}_equalized"][cut] <= 6 / HEADROOM * (1 + 1e-5)).all()  # the room that is promised


def test_beyond_the_room_a_limit_cuts_off_earlier(build):
    """Of a graph that is right only near what was seen, the rule is tested on its other side, too."""
    model = relu6(build, 1.0)
    changed = equalized(model, limited=True)
    (near,), far = images(1), {"x": 100 * images(1)[0]["x"]}
    assert np.abs(run(changed, near) - run(model, near)).max() < 1e-4 * np.abs(run(model, near)).max()
    assert np.abs(run(changed, far) - run(model, far)).max() > 1e-2 * np.abs(run(model, far)).max()


def test_a_gate_computed_elsewhere_is_passed(build):
    """The gate's product is linear in what it controls."""
    body = f"""
        a = Conv <{PADDED}> (x, w1) g = Conv <{PADDED}> (x, w2) s = Sigmoid (g) m = Mul (s, a)
        p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (m) y = Conv (p, w3)
    """
    model = build(SIGNATURE, body, **weights(w1=(8, 3, 3, 3), w2=(8, 3, 3, 3), w3=(4, 8, 1, 1)))
    (group,) = find_groups(model, place(model).tensors).found
    assert set(group.tensors) == {"a", "m", "p"}
    for feeds in images(3):
        np.testing.assert_array_equal(run(equalized(model), feeds), run(model, feeds))


def test_grouped_readers_are_rescaled_by_their_own_channels(build):
    body = f"a = Conv <{PADDED}> (x, w1) y = Conv <group = 2, strides = [2, 2], kernel_shape = [1, 1]> (a, w2)"
    model = build(SIGNATURE, body, **weights(w1=(8, 3, 3, 3), w2=(4, 4, 1, 1)))
    for feeds in images(3):
        np.testing.assert_array_equal(run(equalized(model), feeds), run(model, feeds))


def test_a_tensor_that_control_flow_reads_is_left_alone(build):
    body = f"""
        a = Conv <{PADDED}> (x, w1)
        c = If (flag) <then_branch = g1 () => (float[1,8,6,6] t) {{ t = Exp (a) }},
                       else_branch = g2 () => (float[1,8,6,6] e) {{ e = Relu (a) }}>
        q = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        z = Conv (q, w3)
        m = ReduceMax <keepdims = 1> (c)
        y = Add (z, m)
    """
    model = build(SIGNATURE, body, **weights(w1=(8, 3, 3, 3), w3=(4, 8, 1, 1)), flag=np.asarray(True))
    assert find_groups(model, place(model).tensors).found == ()


@pytest.mark.parametrize("between", ["r = Relu (a)", "r = Clip (a, low, high)"])
def test_names_that_the_graph_has_already_are_left_to_their_owners(build, between):
    """Another convolution reads a weight, and another tensor has the name, that equalization would give."""
    body = f"""
        a = Conv <{PADDED}> (x, n0_equalized_weight) {between}
        r_equalized = Conv <{PADDED}> (x, n0_equalized_weight) s = Sigmoid (r_equalized)
        d = Conv <{PADDED}, group = 8> (r, w2) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (d)
        z = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s) c = Conv (z, w3) e = Conv (p, w3) y = Add (c, e)
    """
    given = weights(n0_equalized_weight=(8, 3, 3, 3), w2=(8, 1, 3, 3), w3=(4, 8, 1, 1))
    limits = {"low": np.float32(0), "high": np.float32(6)} if "Clip" in between else {}
    model = build(SIGNATURE, body, **given, **limits)
    changed = equalized(model, limited=bool(limits))
    onnx.checker.check_model(changed, full_check=True)
    assert changed != model
    for feeds in images(4):
        np.testing.assert_allclose(run(changed, feeds), run(model, feeds), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["Relu (a)", "Add (a, a)"])
def test_a_foreign_operator_of_a_known_name_bars(build, op):
    pooled = "q = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)"
    body = f"a = Conv <{PADDED}> (x, w1) r = {op} {pooled} y = Conv (q, w3)"
    model = build(SIGNATURE, body, **weights(w1=(8, 3, 3, 3), w3=(4, 8, 1, 1)))
    assert find_groups(model, place(model).tensors).found
    model.graph.node[1].domain = "vendor"
    model.opset_import.add(domain="vendor", version=1)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [1, 8, 6, 6]))
    groups = find_groups(model, place(model).tensors)
    assert groups.found == () and "1 at vendor." in groups.describe()


@pytest.mark.parametrize("name", ["low", "high"])
def test_a_limit_that_the_caller_may_override_bars(build, name):
    model = relu6(build, 1.0)
    model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []))
    assert find_groups(model, place(model).tensors, limited=True).found == ()


def test_an_initializer_that_the_caller_may_override_stays(build, residual):
    """Without it the caller would have to give the input."""
    model = onnx.ModelProto()
    model.CopyFrom(residual)
    model.graph.input.append(onnx.helper.make_tensor_value_info("spare", onnx.TensorProto.FLOAT, [1]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, "f4"), "spare"))
    changed = equalized(model)
    assert "spare" in {tensor.name for tensor in changed.graph.initializer}
    quantized = insert_qdq(changed, place(changed), dict.fromkeys(place(changed).tensors, 1.0)).model
    for graph in (changed, quantized):
        run(graph, images(1)[0])


def test_halves_are_left_alone(build):
    body = f"""
        h = Cast <to = 10> (x) a = Conv <{PADDED}> (h, w1) p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        z = Conv (p, w3) f = Cast <to = 1> (z) y = Conv (f, w4)
    """
    halves = {name: a.astype("f2") for name, a in weights(w1=(8, 3, 3, 3), w3=(4, 8, 1, 1)).items()}
    model = build(SIGNATURE, body, **halves, **weights(w4=(4, 4, 1, 1)))
    assert find_groups(model, {"a", "p", "f"}).found == ()
