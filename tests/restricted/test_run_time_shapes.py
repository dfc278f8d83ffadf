"""Shapes that depend on values: never allowed, whatever the file declares about them."""

from __future__ import annotations

import base64
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from restricted_networks import constant, model, node, value

from csa_deploy.restricted.check import check
from csa_deploy.restricted.schema import scopes
from csa_deploy.restricted.validator import ValidatorSession, interpret, validator_status
from tools.probe.run import WORKER

I64 = TensorProto.INT64
X = value("x", [2, 3, 4, 4])


def operand(name: str, *shape: int, kind: int = I64) -> onnx.ValueInfoProto:
    return value(name, shape, kind)


def network(op: str, more: list[onnx.ValueInfoProto], declared: list[int], **attributes: object) -> onnx.ModelProto:
    inputs = [X, *more]
    return model(
        [node(op, [info.name for info in inputs], ["y"], **attributes)], inputs, [value("y", declared)], opset=18
    )


def loop_until(stop: str) -> onnx.ModelProto:
    """A Loop whose number of steps is a network input; it declares four of them."""
    body = helper.make_graph(
        [node("Identity", ["c"], ["again"]), node("Relu", ["x"], ["row"])],
        "body",
        [value("i", [], I64), value("c", [], TensorProto.BOOL)],
        [value("again", [], TensorProto.BOOL), value("row", [2, 3, 4, 4])],
    )
    made = helper.make_node("Loop", [stop, ""], ["y"], name="loop", body=body)
    return model([made], [X, operand(stop)], [value("y", [4, 2, 3, 4, 4])])


def branches(first: list[int], second: list[int]) -> onnx.ModelProto:
    """An If whose branches give different shapes; it declares that of the first."""
    graphs = {}
    for name, shape in (("then_branch", first), ("else_branch", second)):
        made = [node("Reshape", ["x", f"{name}_shape"], [f"{name}_y"], name=name)]
        held = [constant(f"{name}_shape", shape, np.int64)]
        graphs[name] = helper.make_graph(made, name, [], [value(f"{name}_y", first)], held)
    made = helper.make_node("If", ["c"], ["y"], name="if", **graphs)
    return model([made], [X, value("c", [], TensorProto.BOOL)], [value("y", first)])


K = operand("k", 1)
DECLARED = {
    "Reshape": network("Reshape", [operand("s", 2)], [6, 16]),
    "Expand": network("Expand", [operand("s", 4)], [2, 3, 4, 4]),
    "Tile": network("Tile", [operand("s", 4)], [2, 3, 4, 4]),
    "Pad": network("Pad", [operand("s", 8)], [2, 3, 6, 6]),
    "Slice": network("Slice", [operand("from", 1), operand("to", 1)], [1, 3, 4, 4]),
    "TopK": model([node("TopK", ["x", "k"], ["y", "i"])], [X, K], [value("y", [2, 3, 4, 2])], opset=18),
    "Split": model([node("Split", ["x", "s"], ["y", "z"], axis=1)], [X, operand("s", 2)], [value("y", [2, 1, 4, 4])]),
    "Squeeze": model([node("Squeeze", ["v", "k"], ["y"])], [value("v", [2, 1, 4]), K], [value("y", [2, 4])]),
    "Resize by sizes": model(
        [node("Resize", ["x", "", "", "s"], ["y"])], [X, operand("s", 4)], [value("y", [2, 3, 8, 8])]
    ),
    "Resize by scales": model(
        [node("Resize", ["x", "", "s"], ["y"])], [X, value("s", [4])], [value("y", [2, 3, 8, 8])]
    ),
    "Upsample": model([node("Upsample", ["x", "s"], ["y"])], [X, value("s", [4])], [value("y", [2, 3, 8, 8])], opset=9),
    "Range": model([node("Range", ["a", "b", "c"], ["y"])], [operand(name) for name in "abc"], [value("y", [4], I64)]),
    "ConstantOfShape": model([node("ConstantOfShape", ["s"], ["y"])], [operand("s", 2)], [value("y", [2, 2])]),
    "OneHot": model(
        [node("OneHot", ["i", "k", "v"], ["y"])],
        [operand("i", 3), operand("k"), value("v", [2])],
        [value("y", [3, 5])],
    ),
    "NonZero": model([node("NonZero", ["x"], ["y"])], [X], [value("y", [4, 7], I64)]),
    "Compress": network("Compress", [operand("c", 96, kind=TensorProto.BOOL)], [12]),
    "Unique": model([node("Unique", ["x"], ["y"])], [X], [value("y", [12])]),
    "NonMaxSuppression": model(
        [node("NonMaxSuppression", ["b", "p"], ["y"])],
        [value("b", [1, 6, 4]), value("p", [1, 1, 6])],
        [value("y", [3, 3], I64)],
    ),
    "Loop": loop_until("n"),
    "If": branches([6, 16], [2, 48]),
    "custom": model([node("Mine", ["x"], ["y"], domain="my.ops")], [X], [value("y", [2, 3, 4, 4])], domains=["my.ops"]),
    "unknown": network("NotAnOperator", [], [2, 3, 4, 4]),
    "behind": model(
        [node("Reshape", ["x", "s"], ["r"]), node("Relu", ["r"], ["y"], name="relu")],
        [X, operand("s", 4)],
        [value("y", [2, 3, 4, 4])],
        values=[value("r", [2, 3, 4, 4])],
    ),
    "computed": model(
        [
            node("Cast", ["f"], ["s"], to=I64),
            node("Add", ["s", "one"], ["t"]),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        [X, value("f", [4])],
        [value("y", [2, 3, 4, 4])],
        [constant("one", [1, 1, 1, 1], np.int64)],
    ),
}


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.shows("MEA-04", "ERR-02")
def test_a_declared_shape_is_no_evidence(name: str) -> None:
    for scope in check(DECLARED[name]).scopes:
        assert scope.verdict != "allowed", scope.scope
        reasons = [finding for finding in scope.findings if finding.verdict != "note"]
        assert all(finding.message and finding.source for finding in reasons)


@pytest.mark.parametrize("name", ["Reshape", "Tile", "Resize by scales", "NonZero", "computed", "behind"])
@pytest.mark.shows("MEA-04")
def test_the_node_that_makes_a_shape_dynamic_is_named(name: str) -> None:
    report = check(DECLARED[name], ["drive-os-6"]).scopes[0]
    found = [finding for finding in report.findings if finding.rule == "graph.run-time-shape"]
    assert len(found) == 1 and found[0].op == name.split()[0].replace("behind", "Reshape").replace(
        "computed", "Reshape"
    )
    assert "run time" in found[0].message


def test_shapes_that_follow_from_constants_are_not_doubted() -> None:
    """The same operators with constant operands; declared or not, the verdict is the same."""
    dims = constant("s", [2, 3, 16], np.int64)
    for declared in ([2, 3, 16], None):
        still = model([node("Reshape", ["x", "s"], ["y"])], [X], [value("y", declared)], [dims])
        assert check(still, ["drive-os-6", "drive-os-7"]).verdict == "allowed"
    chain = [
        node("Shape", ["x"], ["dims"]),
        node("Gather", ["dims", "zero"], ["n"]),
        node("Concat", ["n", "minus"], ["s"], axis=0),
        node("Reshape", ["x", "s"], ["y"]),
    ]
    constants = [constant("zero", [0], np.int64), constant("minus", [-1], np.int64)]
    assert check(model(chain, [X], constants=constants), ["drive-os-6"]).verdict == "allowed"


def test_a_declaration_that_contradicts_the_graph_is_a_finding() -> None:
    lying = model([node("Relu", ["x"], ["y"])], [X], [value("y", [2, 3, 4, 5])])
    for scope in scopes():
        report = check(lying, [scope]).scopes[0]
        assert report.verdict != "allowed"
        assert "graph.shape-conflict" in {finding.rule for finding in report.findings}


def test_a_resize_may_differ_from_its_declaration_by_rounding_only() -> None:
    """One pixel is a matter of arithmetic and of the rule about it; more contradicts the scales."""
    for side, expected in ((8, "allowed"), (9, "resize.rounding"), (99, "graph.shape-conflict")):
        made = node("Resize", ["x", "", "s"], ["y"], mode="linear")
        doubled = model([made], [X], [value("y", [2, 3, side, 8])], [constant("s", [1, 1, 2, 2])])
        report = check(doubled, ["drive-os-6"]).scopes[0]
        assert expected in {report.verdict, *(finding.rule for finding in report.findings)}


_SHAPED = {
    *("Reshape", "Expand", "Resize", "Upsample", "Pad", "Tile", "Split", "TopK", "Range", "ConstantOfShape", "Slice"),
    *("Squeeze", "Unsqueeze", "OneHot", "NonZero", "Compress", "Unique", "NonMaxSuppression", "Loop", "If", "Scan"),
    *("CenterCropPad", "AffineGrid", "CumSum", "Trilu", "MaxUnpool", "Col2Im"),
}


@pytest.mark.skipif(not validator_status().installed, reason="NVIDIA's validator is not installed")
@pytest.mark.shows("MEA-04", "MEA-03", needs="NVIDIA's validator")
def test_nvidia_skips_nothing_that_is_allowed() -> None:
    """Every node test of onnx with such an operator; the values that it gives to its inputs are the profile."""
    from onnx.backend.test.case.node import collect_testcases

    wrong, skipped = [], 0
    with warnings.catch_warnings(), ValidatorSession(child=WORKER) as session:
        warnings.simplefilter("ignore")  # the tests overflow on purpose
        for case in collect_testcases(None):
            if case.model is None or not _SHAPED & {made.op_type for made in case.model.graph.node}:
                continue
            given = zip(case.model.graph.input, case.data_sets[0][0], strict=False)
            values = {info.name: data.reshape(-1).tolist() for info, data in given if _is_shape(data)}
            data = base64.b64encode(case.model.SerializeToString()).decode()
            answer = interpret(session.exchange({"onnx": data, "values": values}))["answer"]
            skipped += answer == "skipped"
            if answer in ("skipped", "refused") and check(case.model, ["drive-os-7"]).verdict == "allowed":
                wrong.append(case.name)
    assert wrong == []
    assert skipped > 80


def _is_shape(data: object) -> bool:
    return isinstance(data, np.ndarray) and data.dtype.kind in "iu" and data.size <= 64
