"""``prove`` on rewritten graphs and planted faults; ONNX's own reference says which are which."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from csa_deploy.cli.main import app
from csa_deploy.errors import AccuracyGateError, NotProvedError, UsageError
from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.graph.optimize import optimize
from csa_deploy.graph.prove import Proven, prove_equal
from csa_deploy.precision.fp16 import to_fp16

Change = Callable[[onnx.ModelProto], None]
SIGNATURE = "(float[1,3,12,12] x) => (float[1,6] y, float[1,8,6,6] features)"
BODY = """
    c = Conv <pads = [1,1,1,1]> (x, w1, b1)
    n = BatchNormalization <epsilon = 1e-5> (c, scale, shift, mean, variance)
    r = Relu (n)
    features = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r)
    m = ReduceMean <keepdims = 0> (features, axes)
    f = Flatten (m)
    g = Gemm <transB = 1> (f, w2, b2)
    y = Softmax <axis = 1> (g)
"""


@pytest.fixture(scope="module")
def net(build: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    draw = np.random.default_rng(3)
    weights: dict[str, Any] = {
        "w1": draw.standard_normal((8, 3, 3, 3)).astype("f4"),
        "b1": draw.standard_normal(8).astype("f4"),
        "scale": (8,),
        "shift": draw.standard_normal(8).astype("f4"),
        "mean": draw.standard_normal(8).astype("f4"),
        "variance": (8,),
        "axes": np.asarray([2], "i8"),
        "w2": draw.standard_normal((6, 48)).astype("f4") * 0.1,
        "b2": draw.standard_normal(6).astype("f4"),
    }
    return build(SIGNATURE, BODY, **weights)


def weight(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(item for item in model.graph.initializer if item.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def attribute(model: onnx.ModelProto, op: str, name: str, value: Any) -> None:
    node = next(item for item in model.graph.node if item.op_type == op)
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def one(array: np.ndarray, change: Callable[[float], float]) -> np.ndarray:
    array.flat[5] = change(float(array.flat[5]))
    return array


def operator(model: onnx.ModelProto, old: str, new: str, **attributes: Any) -> None:
    node = next(item for item in model.graph.node if item.op_type == old)
    node.op_type = new
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def folded(model: onnx.ModelProto) -> None:
    """The normalisation worked into the convolution, in double precision."""
    arrays = {item.name: numpy_helper.to_array(item).astype("f8") for item in model.graph.initializer}
    gain = arrays["scale"] / np.sqrt(arrays["variance"] + 1e-5)
    weight(model, "w1", lambda w: (w * gain[:, None, None, None]).astype("f4"))
    weight(model, "b1", lambda b: ((b - arrays["mean"]) * gain + arrays["shift"]).astype("f4"))
    model.graph.node[0].output[0] = "n"
    del model.graph.node[1]


def folded_under_the_name_of_the_convolution(model: onnx.ModelProto) -> None:
    """As onnxsim does it: a name of the original then stands for something else."""
    folded(model)
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "c"


def unfused(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    weight(model, "w2", lambda w: np.ascontiguousarray(w.T))
    nodes[6:7] = [helper.make_node("MatMul", ["f", "w2"], ["p"]), helper.make_node("Add", ["p", "b2"], ["g"])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


# What a fault changes, and the first tensor that it can change.
FAULTS: dict[str, tuple[Change, str]] = {
    "wrong axis of a softmax": (lambda m: attribute(m, "Softmax", "axis", 0), "y"),
    "wrong axis of a mean": (lambda m: weight(m, "axes", lambda a: a + 1), "m"),
    "pads off by one": (lambda m: attribute(m, "Conv", "pads", [0, 0, 2, 2]), "c"),
    "a weight's sign": (lambda m: weight(m, "w1", lambda w: one(w, lambda v: -v)), "c"),
    "a weight by a thousandth of itself": (lambda m: weight(m, "w1", lambda w: one(w, lambda v: 1.001 * v)), "c"),
    "two channels exchanged": (lambda m: weight(m, "w1", lambda w: w[[1, 0, *range(2, 8)]]), "c"),
    "epsilon": (lambda m: attribute(m, "BatchNormalization", "epsilon", 1e-3), "n"),
    "another activation": (lambda m: operator(m, "Relu", "LeakyRelu", alpha=0.01), "r"),
    "another pooling": (lambda m: operator(m, "MaxPool", "AveragePool"), "features"),
    "a bias of the last layer": (lambda m: weight(m, "b2", lambda b: one(b, lambda v: v + 0.01)), "g"),
}
REWRITES: dict[str, Change] = {
    "the same": lambda m: None,
    "folded": folded,
    "folded under the name of the convolution": folded_under_the_name_of_the_convolution,
    "unfused": unfused,
    "weights in another order": lambda m: m.graph.initializer.sort(key=lambda tensor: tensor.name),
}


def changed(net: onnx.ModelProto, change: Change) -> onnx.ModelProto:
    other = copy.deepcopy(net)
    change(other)
    return other


def apart(a: onnx.ModelProto, b: onnx.ModelProto) -> float:
    """By ONNX's own reference, on inputs of its own: the largest difference of an output relative to its range."""
    draw, found = np.random.default_rng(17), 0.0
    for scale in (1.0, 20.0):
        feeds = {"x": (scale * draw.standard_normal((1, 3, 12, 12))).astype("f4")}
        for want, got in zip(
            ReferenceEvaluator(a).run(None, feeds), ReferenceEvaluator(b).run(None, feeds), strict=True
        ):
            found = max(found, float(np.abs(want - got).max() / np.ptp(want)))
    return found


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.shows("MEA-16", "ERR-13")
def test_a_planted_fault_is_different_from_its_node_on(net: onnx.ModelProto, name: str) -> None:
    change, first = FAULTS[name]
    faulty = changed(net, change)
    found = prove_equal(net, faulty)
    assert apart(net, faulty) > 1e-5, "no fault at all"
    assert found.verdict == "different" and found.since == first, found
    assert found.output in ("y", "features") and found.on in found.inputs and (found.difference or 0) > 1e-5
    maker = next(node for node in net.graph.node if first in node.output)
    assert found.node == f"{maker.name} ({maker.op_type})"
    assert Proven.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("name", REWRITES)
def test_a_right_rewrite_is_equal(net: onnx.ModelProto, name: str) -> None:
    other = changed(net, REWRITES[name])
    assert apart(net, other) < 1e-5
    found = prove_equal(net, other)
    assert found.verdict == "equal" and found.since == "" and (found.difference or 0) < 1e-5, found


def test_what_optimizers_write_is_equal(net: onnx.ModelProto) -> None:
    for other in (onnxscript.optimizer.optimize(copy.deepcopy(net)), optimize(net).model):
        assert len(other.graph.node) < len(net.graph.node) or other.graph.initializer != net.graph.initializer
        found = prove_equal(net, other)
        assert found.verdict == "equal", found


@pytest.mark.shows("MEA-16")
def test_what_holds_by_the_range_of_a_value_alone_is_not_proved(build: Callable[..., onnx.ModelProto]) -> None:
    body = "s = Sigmoid (x) r = {} (s) y = Mul (r, r)"
    signature = "(float[1,4,6,6] x) => (float[1,4,6,6] y)"
    a, b = (build(signature, body.format(op)) for op in ("Relu", "Identity"))
    found = prove_equal(a, b)
    assert found.verdict == "not proved" and "when what it reads is free" in found.reason, found


@pytest.mark.shows("MEA-16", "ERR-13")
def test_an_output_that_shows_nothing_is_not_proved(build: Callable[..., onnx.ModelProto]) -> None:
    model = build("(float[1,4] x) => (bool[1,4] y)", "y = Greater (x, limit)", limit=np.asarray(1e9, "f4"))
    found = prove_equal(model, copy.deepcopy(model))
    assert found.verdict == "not proved" and "the same on all inputs" in found.reason
    real = [("a", {"x": np.full((1, 4), 2e9, "f4")}), ("b", {"x": np.zeros((1, 4), "f4")})]
    assert prove_equal(model, copy.deepcopy(model), data=real).verdict == "equal"


def test_an_output_that_no_input_reaches_need_not_vary(build: Callable[..., onnx.ModelProto]) -> None:
    body = "y = Relu (x) anchors = Identity (grid)"
    model = build("(float[1,4] x) => (float[1,4] y, float[4] anchors)", body, grid=np.arange(4, dtype="f4"))
    assert prove_equal(model, copy.deepcopy(model)).verdict == "equal"
    moved = changed(model, lambda m: weight(m, "grid", lambda g: g + 1))
    assert prove_equal(model, moved).output == "anchors"


def test_real_data_show_what_generated_inputs_do_not(build: Callable[..., onnx.ModelProto]) -> None:
    """Beyond all generated numbers a Clip acts."""
    body = "c = Clip (x, low, high) y = Mul (c, c)"
    edges = {"low": np.asarray(-1e4, "f4"), "high": np.asarray(1e4, "f4")}
    model = build("(float[1,8] x) => (float[1,8] y)", body, **edges)
    other = changed(model, lambda m: weight(m, "high", lambda a: a * 2))
    assert prove_equal(model, other).verdict != "different"
    real = {"x": np.linspace(0, 3e4, 8, dtype="f4").reshape(1, 8)}
    found = prove_equal(model, other, data=[("sample 0", real)])
    assert (found.verdict, found.on, found.since) == ("different", "sample 0", "c")


def test_other_names_are_matched_by_position_and_said(net: onnx.ModelProto) -> None:
    def rename(model: onnx.ModelProto) -> None:
        names = {
            "x": "image",
            "y": "n",
            "n": "y",
        }  # the output takes the name of a value inside, and the other way round
        for node in model.graph.node:
            for field in (node.input, node.output):
                field[:] = [names.get(name, name) for name in field]
        for value in (*model.graph.input, *model.graph.output):
            value.name = names.get(value.name, value.name)

    other = changed(net, rename)
    found = prove_equal(net, other)
    assert found.verdict == "equal", found
    assert "'image' is 'x'" in found.notes[0] and "'n' is 'y'" in found.notes[1]
    weight(other, "w1", lambda w: -w)
    assert prove_equal(net, other).verdict == "different"


def test_graphs_of_other_interfaces_are_refused(net: onnx.ModelProto, build: Callable[..., onnx.ModelProto]) -> None:
    for signature, body in (
        ("(float[1,3,8,8] x) => (float[1,3,8,8] y)", "y = Relu (x)"),
        ("(float[1,3,12,12] x) => (float[1,3,12,12] y)", "y = Relu (x)"),
        ("(float[1,3,N,12] x) => (float[1,3,N,12] y)", "y = Relu (x)"),
    ):
        with pytest.raises(UsageError) as caught:
            prove_equal(net, build(signature, body), names=("a.onnx", "b.onnx"))
        assert "b.onnx" in caught.value.message and "\n" not in str(caught.value)


def test_what_does_not_run_is_told(net: onnx.ModelProto, build: Callable[..., onnx.ModelProto]) -> None:
    broken = changed(net, lambda m: operator(m, "Relu", "NoSuchOperator"))
    found = prove_equal(net, broken)
    assert found.verdict == "not proved" and "does not load" in found.reason
    gather = "i = Cast <to = 7> (x) y = Gather (table, i)"
    signature = "(float[2] x) => (float[2] y)"
    long = build(signature, gather, table=np.arange(512, dtype="f4"))
    short = build(signature, gather, table=np.arange(4, dtype="f4"))
    found = prove_equal(long, short, data=[("sample 0", {"x": np.asarray([300, 2], "f4")})])
    assert found.verdict == "different" and "does not run where" in found.reason


@pytest.mark.parametrize(("verdict", "code"), [("equal", 0), ("different", 6), ("not proved", 3)])
def test_the_exit_code_of_the_verb(
    net: onnx.ModelProto,
    build: Callable[..., onnx.ModelProto],
    verdict: str,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    constant = build("(float[1,3,12,12] x) => (bool[1,3,12,12] y)", "y = Greater (x, most)", most=np.asarray(1e9, "f4"))
    pairs = {
        "equal": (net, changed(net, folded)),
        "different": (net, changed(net, FAULTS["pads off by one"][0])),
        "not proved": (constant, constant),
    }
    paths = [str(tmp_path / name) for name in ("a.onnx", "b.onnx")]
    for model, path in zip(pairs[verdict], paths, strict=True):
        onnx.save(model, path)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).standard_normal((3, 3, 12, 12)).astype("f4"))
    words = ["prove", *paths, "--data", str(tmp_path / "d.npz"), "--json"]
    if code == 0:
        assert not app(words, standalone_mode=False)
    else:
        with pytest.raises((AccuracyGateError, NotProvedError)) as caught:
            app(words, standalone_mode=False)
        assert caught.value.exit_code == code and caught.value.fix, caught.value
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == verdict and told["samples"] == 3
    assert told.get("error", {"exit_code": 0})["exit_code"] == code


def around_custom(
    level: float = 1.0, weight: float = 2.0, *, swapped: bool = False, reads: str = "r"
) -> onnx.ModelProto:
    """Two outputs that a custom operator makes of a Relu, of a weight, and of an attribute."""
    values = {name: helper.make_tensor_value_info(name, 1, [1, 4]) for name in ("x", "y", "z")}
    outputs = ["z", "y"] if swapped else ["y", "z"]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Both", [reads, "w"], outputs, domain="my.ops", level=level),
    ]
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"], values["z"]])
    graph.initializer.append(numpy_helper.from_array(np.full(3, weight, "f4"), "w"))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"level": 2.0}, "my.ops::Both, which cannot run here, has other attributes"),
        ({"weight": 3.0}, "has other inputs"),
        ({"reads": "x"}, "has other inputs"),
        ({"swapped": True}, "has other outputs"),
    ],
)
def test_what_a_custom_operator_is_counts_though_it_cannot_run(settings: dict[str, Any], said: str) -> None:
    found = prove_equal(around_custom(), around_custom(**settings))
    assert found.verdict == "not proved" and said in found.reason
    assert (
        prove_equal(around_custom(), around_custom(), data=[("one", {"x": np.ones((1, 4), "f4")})]).verdict == "equal"
    )


@pytest.mark.parametrize("first", [True, False])
def test_a_custom_operator_in_one_graph_alone_is_named(first: bool) -> None:
    plain = around_custom()
    plain.graph.node[1].CopyFrom(helper.make_node("Identity", ["r"], ["y"]))
    plain.graph.node.append(helper.make_node("Neg", ["r"], ["z"]))
    pair = (around_custom(), plain) if first else (plain, around_custom())
    found = prove_equal(*pair)
    assert found.verdict == "not proved" and "my.ops::Both" in found.reason and "none" in found.reason


@pytest.mark.parametrize(("domain", "named"), [("", "Both"), ("com.microsoft", "com.microsoft::Both")])
def test_an_operator_that_is_not_known_is_said_in_words(domain: str, named: str) -> None:
    model = around_custom()
    model.graph.node[1].domain = domain
    found = prove_equal(model, model, names=("mine", "other"))
    assert found.reason == f"ONNX Runtime does not load mine: it knows no operator {named}"


def _behind_sigmoid(limit: float) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
        net (float[1,6] x) => (float[1,6] y) {{ s = Sigmoid (x)
            y = own.Cut (s) }}
        <opset_import: ["" : 17], domain: "own"> Cut (a) => (b) {{
            c = Constant <value_float = {limit}> ()
            b = Min (a, c) }}""")


def test_bodies_of_local_functions_are_compared_by_themselves() -> None:
    """The fault lies where no input of the network comes: calls of two functions of one name are not the same node."""
    assert prove_equal(_behind_sigmoid(2.0), _behind_sigmoid(2.0)).by_parts == "the same nodes"
    found = prove_equal(_behind_sigmoid(2.0), _behind_sigmoid(3.0))
    assert (found.verdict, found.output) == ("not proved", "")
    assert "when what it reads is free" in found.reason
    assert prove_equal(_behind_sigmoid(0.5), _behind_sigmoid(0.75)).verdict == "different"


@pytest.mark.parametrize(("digits", "verdict"), [("one", "equal"), ("two", "different")])
def test_texts_are_compared_as_they_are(digits: str, verdict: str) -> None:
    first, second = (
        onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17]>
            net (float[1,6] x) => (string[1,6] y) {{ one = Sign (x)
                two = Add (one, one)
                y = Cast <to = 8> ({source}) }}""")
        for source in ("one", digits)
    )
    assert prove_equal(first, second).verdict == verdict


@pytest.mark.parametrize(("kind", "largest"), [("f2", 6e4), ("f4", 3e38), ("f8", 1.5e308)])
@pytest.mark.parametrize("share", [-1.0, 0.9, 1.0])
def test_numbers_near_the_largest_of_their_type(kind: str, largest: float, share: float) -> None:
    """On all inputs their range is infinite in the type itself, and so would be a bound that is a share of it."""
    both = []
    for number in (largest, largest * share):
        element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Add", ["s", "nine"], ["t"])]
        nodes.append(helper.make_node("Mul", ["t", "signs"], ["y"]))
        stored = {"nine": np.array(9, kind), "signs": (np.array([1, -1] * 3) * number / 10).astype(kind)}
        ends = ([helper.make_tensor_value_info(name, element, [1, 6])] for name in "xy")
        tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
        graph = helper.make_graph(nodes, "net", *ends, tensors)
        both.append(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    found = prove_equal(*both)
    assert (found.verdict, found.difference == 0.0) == (("equal", True) if share == 1.0 else ("different", False))


@pytest.mark.parametrize("turned", [False, True])
def test_a_fault_that_no_input_reaches_is_found_whatever_the_order_of_outputs(turned: bool) -> None:
    first, second = (
        onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17]>
            net (float[1,6] x) => (float[1,6] s, float[1,6] y) <float limit = {{{limit}}}> {{ s = Sigmoid (x)
                y = Min (s, limit) }}""")
        for limit in (2.0, 3.0)
    )
    if turned:
        second.graph.output.sort(key=lambda value: value.name, reverse=True)
    found = prove_equal(first, second)
    assert (found.verdict, found.output) == ("not proved", "") and "when what it reads is free" in found.reason


def test_sparse_weights_are_refused_where_a_rewritten_graph_would_lack_them() -> None:
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 17]>
        net (float[1,6] x) => (float[1,6] y) { y = Mul (x, w) }""")
    values, places = helper.make_tensor("w", 1, [2], [1.0, 2.0]), helper.make_tensor("at", 7, [2], [0, 4])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1, 6]))
    for attempt in (optimize, to_fp16, keep_rounding, lambda one: prove_equal(one, one)):
        with pytest.raises(UsageError, match="sparse initializers are not supported"):
            attempt(model)
