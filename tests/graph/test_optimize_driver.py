"""What the driver of the rewrites promises: proofs, reverts, names, metadata, subgraphs, custom operators, opsets."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx.helper
import onnx_ir as ir
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.graph.optimize import RULES, optimize
from csa_deploy.graph.rewrite import Rewrite
from csa_deploy.results import plain
from csa_deploy.stages.optimize import record_of

IMAGE = "float[1,4,6,6]"
BN = {"g": (4,), "o": (4,), "m": (4,), "v": (4,)}


def ops(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph.node))


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


def test_shared_weights_fold_into_each_layer_apart(build, check_equal):
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


def test_subgraphs_are_left_alone(build, run):
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


@pytest.mark.shows("MEA-12")
def test_a_wrong_rule_is_reverted_and_said(build, check_equal):
    model = build(f"({IMAGE} x) => (float[1,4,6,6] y)", "y = Conv(x, w)", w=(4, 4, 1, 1))

    def wrong(candidate):
        weight = candidate.graph.initializers["w"]
        weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.01), name="w")
        return 1

    def crash(candidate):
        raise KeyError("x")

    result = optimize(model, rules=[Rewrite("wrong", "", wrong), Rewrite("crash", "", crash), *RULES])
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

    assert not optimize(model, rules=[Rewrite("wrong", "", wrong)]).steps[0].kept


def test_what_cannot_be_run_is_not_rewritten(build):
    model = with_custom_operator(build)
    result = optimize(model)
    assert ops(result.model) == ops(model) and result.error is None
    assert "shape of 'c' beside a custom operator is not known" in result.not_proved


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_opsets(build, opset, check_equal):
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
    model = build(f"({IMAGE} x) => ({IMAGE} y)", "a = Conv(x, w) y = Mul(a, s)", w=(4, 4, 1, 1), s=(1, 4, 1, 1))
    first, second = optimize(model), optimize(model)
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert replace(first, model=second.model) == second
    stated = record_of(first, "small.onnx").to_json()
    assert stated == plain(stated) == record_of(second, "small.onnx").to_json()
    assert stated["after"]["nodes"] == 1


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
