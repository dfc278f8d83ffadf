"""Nothing is allowed because it was not understood: every case is a finding or one clear error, never a traceback."""

from random import Random

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from restricted_networks import MAP, constant, model, node, resize, single, value, weights

from csa_deploy.errors import UsageError
from csa_deploy.records.check import Inspected
from csa_deploy.restricted.check import check
from csa_deploy.restricted.reporters.formats import FORMATS, render

MUTATIONS = 400

NAN, INF = float("nan"), float("inf")


def graph_of(nodes, output):
    return helper.make_graph(nodes, "body", [], [value(output, MAP)])


def choice(body):
    made = node(
        "If", ["c"], ["y"], name="choice", then_branch=body, else_branch=graph_of([node("Relu", ["x"], ["e"])], "e")
    )
    return model([made], [value("x", MAP), value("c", [], TensorProto.BOOL)], [value("y", MAP)])


def nested(depth):
    body = graph_of([node("Foreign", ["x"], ["t0"])], "t0")
    for level in range(1, depth):
        other = graph_of([node("Relu", ["x"], [f"o{level}"])], f"o{level}")
        body = graph_of([node("If", ["c"], [f"t{level}"], then_branch=body, else_branch=other)], f"t{level}")
    return choice(body)


def recursive_function():
    body = [helper.make_node("F", ["a"], ["b"], domain="local")]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    found = model([helper.make_node("F", ["x"], ["y"], domain="local")], domains=["local"])
    found.functions.append(helper.make_function("local", "F", ["a"], ["b"], body, imports))
    return found


def ints(name, *numbers):
    return constant(name, list(numbers), np.int64)


def scalar(name, number):
    return constant(name, number, np.int64)


QUANT = [constant("s", NAN), constant("z", 0, np.int8)]

CASES: dict[str, ModelProto] = {
    "cycle": model([node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"], "two"), node("Add", ["x", "a"], ["y"])]),
    "reads itself": model([node("Add", ["x", "y"], ["y"])]),
    "undefined input": model([node("Relu", ["nowhere"], ["y"])]),
    "written twice": model([node("Relu", ["x"], ["y"], "a"), node("Sigmoid", ["x"], ["y"], "b")]),
    "input overwritten": model([node("Relu", ["x"], ["x"]), node("Relu", ["x"], ["y"])]),
    "constant twice": single("Add", [constant("c", 1.0), constant("c", 2.0)]),
    "foreign domain": model([node("Foo", ["x"], ["y"], domain="mine")], outputs=[value("y", MAP)], domains=["mine"]),
    "domain without version": model([node("Foo", ["x"], ["y"], domain="mine")], outputs=[value("y", MAP)]),
    "unknown operator": model([node("Foo", ["x"], ["y"])], outputs=[value("y", MAP)]),
    "unknown operator in a body": choice(graph_of([node("Foo", ["x"], ["t"])], "t")),
    "deeply nested": nested(12),
    "recursive function": recursive_function(),
    "not a number as scale": resize([1, 1, NAN, 2], MAP),
    "infinite scale": resize([1, 1, INF, 2], MAP),
    "negative scale": resize([1, 1, -1, 2], MAP),
    "zero scale": resize([1, 1, 0, 2], MAP),
    "huge scale": resize([1, 1, 1e30, 1]),
    "too few scales": resize([1, 1, 2], MAP),
    "not a number as bound": single("Clip", [constant("low", NAN), constant("high", 6)]),
    "not a number as quantization scale": model([node("QuantizeLinear", ["x", "s", "z"], ["y"])], constants=QUANT),
    "no shape": model([node("Relu", ["x"], ["y"])], [value("x", None)]),
    "no type": model([node("Relu", ["x"], ["y"])], [ValueInfoProto(name="x")], [ValueInfoProto(name="y")]),
    "type 999": model([node("Relu", ["x"], ["y"])], [value("x", MAP, 999)], [value("y", MAP, 999)]),
    "text": model([node("Identity", ["x"], ["y"])], [value("x", [1], 8)], [value("y", [1], 8)]),
    "negative dimension": single("Relu", shape=[1, -3, 8, 8]),
    "wrong declared shape": model(
        [node("Relu", ["x"], ["a"], "a"), node("Relu", ["a"], ["y"])], values=[value("a", [7])]
    ),
    "wrong declared output": model([node("Relu", ["x"], ["y"])], outputs=[value("y", [5, 5])]),
    "wrong channels": single("Conv", [weights(4, 5, 3, 3)]),
    "no weights": single("Conv"),
    "zero groups": single("Conv", [weights(4, 8, 3, 3)], group=0),
    "zero stride": single("Conv", [weights(4, 8, 3, 3)], strides=[0, 0], auto_pad="SAME_UPPER"),
    "text as stride": single("Conv", [weights(4, 8, 3, 3)], strides="two"),
    "two inputs too many": model([node("Relu", ["x", "x", "x"], ["y"])]),
    "no input": model([node("Add", [], ["y"])], outputs=[value("y", MAP)]),
    "no output": model([node("Relu", ["x"], []), node("Relu", ["x"], ["y"], "b")]),
    "axis out of range": model([node("Softmax", ["x"], ["y"], axis=9)], outputs=[value("y", MAP)]),
    "axis missing": model([node("Concat", ["x", "x"], ["y"])], outputs=[value("y", MAP)]),
    "bad permutation": model([node("Transpose", ["x"], ["y"], perm=[0, 9, 1, 2])], outputs=[value("y", MAP)]),
    "too short": single("BatchNormalization", [constant("s", np.ones(8))]),
    "division by zero": model(
        [node("Div", ["a", "b"], ["q"]), node("Reshape", ["x", "q"], ["y"])],
        constants=[ints("a", 4, 4), ints("b", 0, 2)],
    ),
    "a petabyte of constants": model(
        [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])], constants=[ints("s", 10**6, 10**9)]
    ),
    "a quadrillion of numbers": model(
        [node("Range", ["a", "b", "c"], ["r"]), node("Cast", ["r"], ["f"], to=1), node("Add", ["x", "f"], ["y"])],
        constants=[scalar("a", 0), scalar("b", 10**15), scalar("c", 1)],
    ),
    "graph as attribute": model([node("Relu", ["x"], ["y"], hidden=graph_of([node("Foo", ["x"], ["t"])], "t"))]),
    "sequence": model(
        [node("SequenceConstruct", ["x", "x"], ["s"]), node("SequenceAt", ["s", "i"], ["y"])],
        constants=[scalar("i", 0)],
    ),
    "operator set 99": single("Relu", opset=99),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.shows("MEA-07", "ERR-05")
def test_no_scope_allows_it_and_every_report_renders(name):
    report = check(CASES[name])
    assert {scope.verdict for scope in report.scopes} <= {"denied", "unknown"}
    for scope in report.scopes:
        assert all(finding.message and "\n" not in finding.message for finding in scope.findings)
    data = Inspected.from_json(report.to_json())
    assert all(render(data, form) for form in FORMATS)


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_judged_like_the_model_in_memory(tmp_path, name):
    path = tmp_path / "network.onnx"
    path.write_bytes(CASES[name].SerializeToString())
    from_file = check(path, name="network").to_json()
    assert from_file["scopes"] == check(CASES[name], name="network").to_json()["scopes"]


@pytest.mark.parametrize("part", ["opset_import", "graph"])
def test_a_model_without_its_essentials_is_one_clear_error(part):
    broken = single("Relu")
    broken.ClearField(part)
    with pytest.raises(UsageError, match="not an ONNX"):
        check(broken)


@pytest.mark.parametrize("nodes", [[], [node("Relu", ["c"], ["y"])]], ids=["no node", "constants only"])
def test_a_network_that_computes_nothing_is_not_allowed_by_silence(nodes):
    network = model(nodes, outputs=[value("y" if nodes else "x", MAP)], constants=[constant("c", np.ones(MAP))])
    assert check(network, ["drive-os-6"]).scopes[0].verdict == "unknown"


def test_shared_node_names_are_noted():
    network = model([node("Relu", ["x"], ["a"], "same"), node("Relu", ["a"], ["y"], "same")])
    found = {finding.rule: finding for finding in check(network, ["drive-os-6"]).scopes[0].findings}
    assert "same" in found["network.duplicate-names"].message


def test_names_with_markup_and_control_characters_survive_every_format():
    made = node("LRN", ["x"], ["y"], "\x00\x1b[31m<script>[red]&\u2028", size=3)
    data = Inspected.from_json(check(model([made])).to_json())
    rendered = {form: render(data, form) for form in FORMATS}
    assert "<script>" not in rendered["html"] + rendered["markdown"]
    assert "\x1b" not in rendered["junit"]
    assert "\x1b" not in rendered["text"] + rendered["markdown"]
    assert "\x00" not in rendered["text"]


def mutated(data: bytes, random: Random) -> bytes:
    """A few bytes changed, removed, inserted or repeated."""
    found = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 5, 20])):
        place, length = random.randrange(len(found)), random.randrange(1, 8)
        match random.randrange(4):
            case 0:
                found[place] = random.randrange(256)
            case 1:
                del found[place : place + length]
            case 2:
                found[place:place] = random.randbytes(length)
            case _:
                found[place:place] = found[max(0, place - 40) : place]
    return bytes(found)


@pytest.mark.parametrize("name", ["unknown operator in a body", "not a number as quantization scale", "zero groups"])
def test_damaged_files_are_judged_or_refused_and_nothing_else(tmp_path, name):
    random = Random(name)
    path = tmp_path / "damaged.onnx"
    verdicts = set()
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(CASES[name].SerializeToString(), random))
        try:
            verdicts.add(check(path, ["drive-os-6"]).verdict)
        except UsageError as error:
            assert "\n" not in str(error)
            verdicts.add("refused")
    assert {"refused", "denied"} <= verdicts or {"refused", "unknown"} <= verdicts
