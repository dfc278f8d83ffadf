"""Every rewrite on graphs where it is exact, and on graphs where it would not be."""

from collections import Counter

import numpy as np
import onnx
import onnx.helper
import onnx_ir as ir
import onnxruntime as ort
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.graph.optimize import RULES, OptimizeResult, optimize
from csa_deploy.graph.rewrite import Rule

IMAGE = "float[1,4,6,6]"
BN = {"g": (4,), "o": (4,), "m": (4,), "v": (4,)}


def ops(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph.node))


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def check_equal(before: onnx.ModelProto, result: OptimizeResult) -> None:
    """Same answers on an input that the driver did not use, same signature, valid by ONNX's own full check."""
    after = result.model
    onnx.checker.check_model(after, full_check=True)
    assert [v.SerializeToString() for v in after.graph.input] == [v.SerializeToString() for v in before.graph.input]
    assert [v.name for v in after.graph.output] == [v.name for v in before.graph.output]
    names = [node.name for node in after.graph.node]
    assert len(set(names)) == len(names) and all(names)
    feeds = {}
    for value in before.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        feeds[value.name] = np.random.default_rng(99).standard_normal(shape).astype("f4")
    for expected, got in zip(run(before, **feeds), run(after, **feeds), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(np.ptp(expected), 1.0))


FOLDED = {
    "conv, BatchNorm": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv<pads=[1,1,1,1]>(x, w, b) y = BatchNormalization(a, g, o, m, v)",
        {"w": (4, 4, 3, 3), "b": (4,), **BN},
        {"Conv": 1},
    ),
    "conv without bias, BatchNorm with epsilon": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w) y = BatchNormalization<epsilon=0.5>(a, g, o, m, v)",
        {"w": (4, 4, 1, 1), **BN},
        {"Conv": 1},
    ),
    "grouped transposed conv, BatchNorm": (
        f"({IMAGE} x) => (float[1,4,12,12] y)",
        "a = ConvTranspose<group=2, strides=[2,2]>(x, w, b) y = BatchNormalization(a, g, o, m, v)",
        {"w": (4, 2, 2, 2), "b": (4,), **BN},
        {"ConvTranspose": 1},
    ),
    "Gemm with alpha and beta, BatchNorm": (
        "(float[2,3] x) => (float[2,4] y)",
        "a = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b) y = BatchNormalization(a, g, o, m, v)",
        {"w": (4, 3), "b": (4,), **BN},
        {"Gemm": 1},
    ),
    "BatchNorm, grouped unpadded conv": (
        f"({IMAGE} x) => (float[1,6,4,4] y)",
        "a = BatchNormalization(x, g, o, m, v) y = Conv<group=2>(a, w, b)",
        {"w": (6, 2, 3, 3), "b": (6,), **BN},
        {"Conv": 1},
    ),
    "BatchNorm, Gemm": (
        "(float[2,4] x) => (float[2,3] y)",
        "a = BatchNormalization(x, g, o, m, v) y = Gemm<alpha=0.5>(a, w, b)",
        {"w": (4, 3), "b": (3,), **BN},
        {"Gemm": 1},
    ),
    "scale, padded conv": (
        f"({IMAGE} x) => (float[1,2,6,6] y)",
        "a = Mul(s, x) y = Conv<pads=[1,1,1,1]>(a, w)",
        {"s": (1, 4, 1, 1), "w": (2, 4, 3, 3)},
        {"Conv": 1},
    ),
    "layer scale and a shift": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w, b) c = Mul(s, a) y = Sub(c, t)",
        {"w": (4, 4, 1, 1), "b": (4,), "s": (1, 4, 1, 1), "t": (4, 1, 1)},
        {"Conv": 1},
    ),
    "zero Pad": (
        f"({IMAGE} x) => (float[1,2,6,6] y)",
        "a = Pad(x, p) y = Conv(a, w)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": (2, 4, 3, 3)},
        {"Conv": 1},
    ),
    "reshapes and transposes": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Reshape(x, r) b = Reshape(a, s) c = Transpose<perm=[0,2,1,3]>(b) d = Transpose<perm=[0,2,1,3]>(c)"
        " y = Relu(d)",
        {"r": np.array([4, 36]), "s": np.array([1, 4, 6, 6])},
        {"Relu": 1},
    ),
    "shape arithmetic": (
        f"({IMAGE} x) => (float[1,144] y)",
        "s = Shape(x) n = Gather(s, i) u = Unsqueeze(n, z) q = Concat<axis=0>(u, m) y = Reshape(x, q)",
        {"i": np.array(0), "z": np.array([0]), "m": np.array([-1])},
        {"Reshape": 1},
    ),
    "identities": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Identity(x) b = Dropout(a) c = Mul(b, one) d = Relu(c) y = Identity(d)",
        {"one": np.float32(1)},
        {"Relu": 1},
    ),
    "no padding, no crop, same place": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Pad(x, p) b = Slice(a, s, e) c = Relu(b) y = Cast<to=1>(c)",
        {"p": np.zeros(8, "i8"), "s": np.array([0, 0, 0, 0]), "e": np.array([1, 4, 6, 6])},
        {"Relu": 1},
    ),
}


@pytest.mark.parametrize("case", FOLDED, ids=list(FOLDED))
def test_rewrites_are_exact(build, case):
    signature, body, weights, expected = FOLDED[case]
    model = build(signature, body, **weights)
    original = model.SerializeToString()
    result = optimize(model)
    assert ops(result.model) == expected
    assert model.SerializeToString() == original
    assert result.steps and all(step.kept and step.error is not None for step in result.steps)
    check_equal(model, result)


KEPT = {
    "BatchNorm, padded conv": (
        f"({IMAGE} x) => (float[1,2,6,6] y)",
        "a = BatchNormalization(x, g, o, m, v) y = Conv<pads=[1,1,1,1]>(a, w)",
        {"w": (2, 4, 3, 3), **BN},
    ),
    "conv read by two": (
        f"({IMAGE} x) => (float[1,4,6,6] y, float[1,4,6,6] z)",
        "a = Conv(x, w) y = BatchNormalization(a, g, o, m, v) z = Relu(a)",
        {"w": (4, 4, 1, 1), **BN},
    ),
    "conv is an output too": (
        f"({IMAGE} x) => (float[1,4,6,6] a, float[1,4,6,6] y)",
        "a = Conv(x, w) y = BatchNormalization(a, g, o, m, v)",
        {"w": (4, 4, 1, 1), **BN},
    ),
    "scale that differs by position": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w) y = Mul(a, s)",
        {"w": (4, 4, 1, 1), "s": (1, 1, 6, 1)},
    ),
    "epsilon that guards a division": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Abs(x) b = Add(a, e) y = Div(x, b)",
        {"e": np.float32(1e-9)},
    ),
    "weights that are an input": (
        f"({IMAGE} x, float[4,4,1,1] w) => (float[1,4,6,6] y)",
        "a = Conv(x, w) y = BatchNormalization(a, g, o, m, v)",
        BN,
    ),
    "input passed through": (f"({IMAGE} x) => (float[1,4,6,6] y)", "y = Identity(x)", {}),
}


@pytest.mark.parametrize("case", KEPT, ids=list(KEPT))
def test_what_is_not_exact_is_left_alone(build, case):
    signature, body, weights = KEPT[case]
    model = build(signature, body, **weights)
    result = optimize(model)
    assert ops(result.model) == ops(model)
    check_equal(model, result)


def resize_then_conv(build, scale: float, out: int, mode: str = "linear"):
    return build(
        f"(float[1,2,8,8] x) => (float[1,3,{out},{out}] y)",
        f'a = Resize<mode="{mode}">(x, , s) y = Conv(a, w, b)',
        s=np.array([1, 1, scale, scale], "f4"),
        w=(3, 2, 1, 1),
        b=(3,),
    )


@pytest.mark.parametrize(("scale", "out", "order"), [(2, 16, "CR"), (0.5, 4, "RC")])
def test_conv_moves_to_the_smaller_side_of_a_resize(build, scale, out, order):
    model = resize_then_conv(build, scale, out)
    result = optimize(model)
    assert "".join(node.op_type[0] for node in result.model.graph.node) == order
    assert result.after.macs == 3 * 2 * min(64, out * out)
    check_equal(model, result)


def test_conv_moves_behind_a_shrinking_resize_by_sizes(build):
    model = build(
        "(float[1,2,8,8] x) => (float[1,3,4,5] y)",
        'a = Conv(x, w, b) y = Resize<mode="linear">(a, , , z)',
        z=np.array([1, 3, 4, 5]),
        w=(3, 2, 1, 1),
        b=(3,),
    )
    result = optimize(model)
    assert [node.op_type for node in result.model.graph.node] == ["Resize", "Conv"]
    check_equal(model, result)


def test_conv_does_not_cross_a_cubic_or_cropping_resize(build):
    assert not optimize(resize_then_conv(build, 2, 16, "cubic")).steps


def test_module_paths_and_metadata_survive(build):
    model = build(
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w) y = BatchNormalization(a, g, o, m, v)",
        w=(4, 4, 1, 1),
        **BN,
    )
    for node, scope in zip(model.graph.node, ("['', 'stem.conv']", "['', 'stem.norm']"), strict=True):
        onnx.helper.set_model_props(node, {"pkg.torch.onnx.name_scopes": scope})
    onnx.helper.set_model_props(model, {"csa_deploy.source": "test"})
    result = optimize(model).model
    (conv,) = result.graph.node
    props = {entry.key: entry.value for entry in conv.metadata_props}
    assert (conv.name, props["pkg.torch.onnx.name_scopes"]) == ("n0", "['', 'stem.conv']")
    assert {entry.key: entry.value for entry in result.metadata_props} == {"csa_deploy.source": "test"}


def test_shared_weights_fold_into_each_layer_apart(build):
    model = build(
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w, b) c = BatchNormalization(a, g, o, m, v)"
        " d = Conv(c, w, b) y = BatchNormalization(d, m, o, g, v)",
        w=(4, 4, 1, 1),
        b=(4,),
        **BN,
    )
    result = optimize(model)
    assert ops(result.model) == {"Conv": 2}
    check_equal(model, result)


def test_subgraphs_are_left_alone(build):
    body = (
        "k = Relu(x) y = If (c) <then_branch = t () => (float[1,4,6,6] p) { q = Conv(k, w)"
        " p = BatchNormalization(q, g, o, m, v) }, else_branch = e () => (float[1,4,6,6] p2) { p2 = Identity(k) }>"
    )
    model = build(f"({IMAGE} x, bool c) => (float[1,4,6,6] y)", body, w=(4, 4, 1, 1), **BN)
    result = optimize(model)
    (conditional,) = (node for node in result.model.graph.node if node.op_type == "If")
    inner = {node.op_type for attribute in conditional.attribute for node in attribute.g.node}
    assert inner == {"Conv", "BatchNormalization", "Identity"}
    image = np.random.default_rng(1).standard_normal((1, 4, 6, 6)).astype("f4")
    for choice in (True, False):
        feeds = {"x": image, "c": np.array(choice)}
        np.testing.assert_array_equal(run(result.model, **feeds)[0], run(model, **feeds)[0])


def test_a_wrong_rule_is_reverted_and_said(build):
    model = build(f"({IMAGE} x) => (float[1,4,6,6] y)", "y = Conv(x, w)", w=(4, 4, 1, 1))

    def wrong(candidate):
        weight = candidate.graph.initializers["w"]
        weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.01), name="w")
        return 1

    def crash(candidate):
        raise KeyError("x")

    result = optimize(model, rules=[Rule("wrong", "", wrong), Rule("crash", "", crash), *RULES])
    assert [(step.rule, step.kept) for step in result.reverted] == [("wrong", False), ("crash", False)]
    assert result.steps[0].error > 1e-5 and "differs" in result.steps[0].reason
    assert "KeyError" in result.steps[1].reason
    check_equal(model, result)


def test_several_inputs_of_several_types(build):
    model = build(
        "(float[2,3] x, int64[2] i, bool[2,3] c, uint8[2,3] u) => (float[2,3] y, int64[2] j)",
        "a = Gather(x, i) f = Cast<to=1>(u) b = Where(c, a, f) e = Identity(b) y = Relu(e) j = Neg(i)",
    )
    result = optimize(model)
    assert ops(result.model) == {"Gather": 1, "Cast": 1, "Where": 1, "Relu": 1, "Neg": 1}
    assert all(step.kept for step in result.steps)


def with_custom_operator(build, *shapes: tuple[str, int]) -> onnx.ModelProto:
    model = build(
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w) b = BatchNormalization(a, g, o, m, v) i = Identity(b) c = own.Thing(i)"
        " d = Conv(c, w) e = BatchNormalization(d, g, o, m, v) y = own.Thing(e)",
        domains=', "own" : 1',
        w=(4, 4, 1, 1),
        **BN,
    )
    for name, channels in shapes:
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, 1, [1, channels, 6, 6]))
    return model


def test_around_custom_operators(build):
    model = with_custom_operator(build, ("c", 4))
    result = optimize(model)
    assert ops(result.model) == {"Conv": 2, "Thing": 2}
    assert all(step.kept and step.error < 1e-6 for step in result.steps)

    def wrong(candidate):
        weight = candidate.graph.initializers["w"]
        weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.01), name="w")
        return 1

    assert not optimize(model, rules=[Rule("wrong", "", wrong)]).steps[0].kept


def test_what_cannot_be_run_is_not_rewritten(build):
    model = with_custom_operator(build)
    result = optimize(model)
    assert ops(result.model) == ops(model) and result.error is None
    assert "shape of 'c' beside a custom operator is not known" in result.not_proved


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_opsets(build, opset):
    model = build(
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w) b = BatchNormalization(a, g, o, m, v) c = Dropout(b) y = Relu(c)",
        opset=opset,
        w=(4, 4, 1, 1),
        **BN,
    )
    result = optimize(model)
    assert ops(result.model) == {"Conv": 1, "Relu": 1}
    check_equal(model, result)


def test_dynamic_input_is_refused(build):
    with pytest.raises(UsageError, match=r"input 'x' has no fixed size on axis 0 \('N'\)"):
        optimize(build("(float[N,3] x) => (float[N,3] y)", "y = Relu(x)"))


def test_result_is_deterministic_and_plain_data(build):
    model = build(*FOLDED["layer scale and a shift"][:2], **FOLDED["layer scale and a shift"][2])
    first, second = optimize(model), optimize(model)
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert first.to_json() == second.to_json()
    assert first.to_json()["after"]["nodes"] == 1


def test_progress_reaches_the_end(build):
    calls = []
    optimize(build(f"({IMAGE} x) => ({IMAGE} y)", "y = Relu(x)"), progress=lambda *call: calls.append(call))
    assert calls[-1] == (len(RULES), len(RULES))


def test_weights_listed_as_inputs_by_old_ir_versions_are_constants(build):
    """Before IR version 4 every weight had to be an input too; what is left are the real inputs."""
    signature = f"({IMAGE} x, float[4,4,1,1] w, float[4] g, float[4] o, float[4] m, float[4] v) => ({IMAGE} y)"
    body = "a = Conv(x, w) y = BatchNormalization(a, g, o, m, v)"
    model = build(signature, body, opset=8, w=(4, 4, 1, 1), **BN)
    model.ir_version = 3
    result = optimize(model)
    assert ops(result.model) == {"Conv": 1} and [v.name for v in result.model.graph.input] == ["x"]
    onnx.checker.check_model(result.model, full_check=True)


def test_the_argument_is_never_changed(build):
    """Also not through the weights and constants whose bytes the result shares."""
    body = (
        "k = Constant<value = float {2.0}>() a = Mul(x, k) y = If (c) <then_branch = t () => (float[1,4,6,6] p)"
        " { h = Constant<value = float {3.0}>() p = Mul(a, h) },"
        " else_branch = e () => (float[1,4,6,6] q) { q = Identity(a) }>"
    )
    model = build(f"({IMAGE} x, bool c) => ({IMAGE} y)", body)
    before = model.SerializeToString()
    assert optimize(model).steps[0].rule == "fold_constants"
    assert model.SerializeToString() == before
