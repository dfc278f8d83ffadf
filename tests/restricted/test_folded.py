"""An exporter's arithmetic about weights and shapes is no part of the network that is judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from restricted_networks import constant, model, node, value

from csa_deploy.restricted.folded import fold_file
from csa_deploy.restricted.inspection import inspect
from csa_deploy.restricted.validator import validator_status


def raw_export() -> onnx.ModelProto:
    """What the older and the dynamo exporter make of a convolution and a mean: weights and axes that nodes compute."""
    nodes = [
        node("Transpose", ["w"], ["turned"], name="turn", perm=[1, 0, 2, 3]),
        node("Mul", ["b", "two"], ["bias"], name="bias"),
        node("Conv", ["x", "turned", "bias"], ["c"], name="conv"),
        node("Shape", ["c"], ["dims"], name="shape"),
        node("Gather", ["dims", "zero"], ["n"], name="batch"),
        node("Concat", ["n", "minus"], ["flat"], name="concat", axis=0),
        node("Cast", ["axes32"], ["axes"], name="axes", to=onnx.TensorProto.INT64),
        node("ReduceMean", ["c", "axes"], ["m"], name="mean", keepdims=1),
        node("Reshape", ["m", "flat"], ["y"], name="flatten"),
    ]
    draw = np.random.default_rng(0)
    constants = [
        constant("w", draw.standard_normal((8, 32, 3, 3))),
        constant("b", draw.standard_normal(32)),
        constant("two", 2.0),
        constant("zero", [0], np.int64),
        constant("minus", [-1], np.int64),
        constant("axes32", [2, 3], np.int32),
    ]
    return model(nodes, [value("x", [1, 8, 14, 14])], [value("y", [1, 32])], constants, opset=18)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(raw_export(), path)
    return path


def test_folding_keeps_the_network(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folded"
    folder.mkdir()
    folded, name = fold_file(raw, folder)
    assert name == "net.onnx, constants folded" and folded.parent == folder
    made = onnx.load(folded)
    assert [entry.op_type for entry in made.graph.node] == ["Conv", "ReduceMean", "Reshape"]
    x = np.random.default_rng(1).standard_normal((1, 8, 14, 14)).astype("f4")
    expected, found = (ReferenceEvaluator(entry).run(None, {"x": x})[0] for entry in (raw_export(), made))
    assert np.allclose(expected, found, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_folded_is_judged_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(raw_export().SerializeToString()[:-100])
    assert fold_file(path, tmp_path / "nowhere") == (path, "cut.onnx")


def test_no_note_takes_a_bias_for_a_batch(raw: Path) -> None:
    """Eight maps and a bias of 32: only activations have a batch."""
    for folded in (False, True):
        notes = [f for s in inspect(raw, ["drive-os-6"], folded=folded).scopes for f in s.report.findings]
        assert "limits.xavier-era" not in {finding.rule for finding in notes}


@pytest.mark.skipif(not validator_status().installed, reason="NVIDIA's validator is not installed")
def test_check_of_an_export_agrees_with_check_of_what_is_built(raw: Path) -> None:
    as_it_is = inspect(raw, ["drive-os-7"]).scopes[0]
    assert as_it_is.verdict == "denied" and "not-parsed" in as_it_is.why_not_next
    folded = inspect(raw, ["drive-os-7"], folded=True)
    assert (folded.scopes[0].verdict, folded.scopes[0].level) == ("allowed", "validator")
    assert "constants folded" in folded.inspected.model


def test_the_check_stage_says_what_it_judged(digits) -> None:
    record = digits.record("check")
    assert record["judged"] == "csa_digits.onnx, constants folded"
    assert "none decides without --restricted" in record["summary"] and record["gate"] == []
