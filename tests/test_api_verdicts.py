"""Verdicts of the Python API on graphs that differ: none is lost, taken for another or rounded away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import csa_deploy as csa
from csa_deploy.cli.main import app
from csa_deploy.errors import AccuracyGateError, UsageError
from csa_deploy.verify.results import SAMPLES, read_results

GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((12, 6)).astype("f4")
WEIGHT = GENERATOR.standard_normal((6, 3)).astype("f4")
LIKE_NAMES = ("a b", "a-b", "a.b", "a/b", "a-b-2", "a: b")


def scaled(factor: float, size: int = 3, times: int = 1) -> onnx.ModelProto:
    """x (1, 6) -> y, a product with weights, and ``times`` - 1 more with a square matrix."""
    weights = [WEIGHT * np.float32(factor) if size == 3 else np.ones((6, size), "f4")]
    weights += [np.eye(size, dtype="f4")] * (times - 1)
    values = ["x", *(f"h{i}" for i in range(1, times)), "y"]
    nodes = [helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]]) for i in range(times)]
    ends = (("x", [1, 6]), ("y", [1, size]))
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ends)
    stored = [numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(weights)]
    graph = helper.make_graph(nodes, "net", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def whole_numbers(kind: str, last: int) -> onnx.ModelProto:
    """x (1, 6) -> y (1, 6), ``last`` and small numbers of the type behind it."""
    text = f"""<ir_version: 9, opset_import: ["" : 17]> net (float[1,6] x) => ({kind}[1,6] y) {{
        sign = Sign (x)
        positive = Abs (sign)
        one = Cast <to = {TensorProto.DataType.Value(kind.upper())}> (positive)
        y = Mul (one, big)
    }}"""
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2, 3, 4, 5, last], kind), "big"))
    return model


@pytest.mark.parametrize("wrong", range(len(LIKE_NAMES)))
@pytest.mark.parametrize("place", [False, True])
def test_a_wrong_graph_fails_whatever_its_label_is_like(place: bool, wrong: int, tmp_path: Path) -> None:
    """Labels of which several make the same file name."""
    given = {name: scaled(-1.0 if number == wrong else 1.0) for number, name in enumerate(LIKE_NAMES)}
    there = {"workspace": tmp_path / "w", "precision": "fp32"} if place else {}
    found = csa.compare(scaled(1.0), given, data=X, **there)
    assert found.verdict == "fail"
    errors = [one.metrics["max_abs_error"] for one in found.outputs][-len(LIKE_NAMES) :]
    assert [error > 1 for error in errors] == [number == wrong for number in range(len(LIKE_NAMES))]


def test_graphs_of_like_labels_are_timed_each() -> None:
    slow = scaled(1.0, size=1000, times=12)
    timing = csa.profile({"a b": slow, "a-b": scaled(1.0)}, iterations=20, threads=1)
    assert timing.latencies[1].percentiles_ms["50"] * 5 < timing.latencies[0].percentiles_ms["50"]


def test_files_of_the_same_name_keep_a_verdict_each(tmp_path: Path) -> None:
    """In the comparison, in the table, and when it is judged again from what it stored."""
    for folder, factor in (("a", -1.0), ("b", 1.0)):
        (tmp_path / folder).mkdir()
        onnx.save(scaled(factor), tmp_path / folder / "m.onnx")
    onnx.save(scaled(1.0), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=X)
    files = [str(tmp_path / name) for name in ("net.onnx", "a/m.onnx", "b/m.onnx")]
    place = ["--workspace", str(tmp_path / "w")]
    with pytest.raises(AccuracyGateError):
        app(["verify", *files, "--data", str(tmp_path / "x.npz"), *place])
    stored = read_results(tmp_path / "w" / SAMPLES)
    labels = [candidate.label for candidate in stored.candidates]
    assert len(set(labels)) == len(labels)
    errors = {one.label: one.judged(stored.ids, {}).metrics["max_abs_error"] for one in stored.candidates}
    assert (errors[files[1]] > 1, errors[files[2]]) == (True, 0.0)
    with pytest.raises(AccuracyGateError):
        app(["judge", str(tmp_path / "w")])


@pytest.mark.parametrize(("kind", "last"), [("int64", 2**53), ("int64", -(2**62)), ("uint64", 2**64 - 2)])
def test_whole_numbers_that_fp64_takes_for_the_same_differ(kind: str, last: int) -> None:
    assert float(last) == float(last + 1) or last == -(2**62), "the case shows nothing"
    same, other = (csa.compare(whole_numbers(kind, last), whole_numbers(kind, last + i), data=X) for i in (0, 1))
    assert [one.outputs[0].metrics["max_abs_error"] for one in (same, other)] == [0.0, 1.0]
    assert [one.outputs[0].metrics["snr_db"] < np.inf for one in (same, other)] == [False, True]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1e9])
def test_outputs_whose_size_depends_on_numbers_are_refused(threshold: float) -> None:
    """Empty ones as well: a comparison of nothing is no agreement."""
    first, second = (
        parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17]>
            net (float[1,6] x) => (int64[2,places] y) <float limit = {{{limit}}}> {{
                above = Greater (x, limit)
                y = NonZero (above)
            }}""")
        for limit in (0.0 if threshold < 1 else threshold, threshold)
    )
    with pytest.raises(UsageError, match="output 'y' of sample"):
        csa.compare(first, second, data=X)


def test_samples_cut_the_labels_as_they_cut_the_data() -> None:
    labels = np.array([0, 1, 2] * 4)
    some = csa.compare(scaled(1.0), scaled(1.0), data=X, labels=labels, samples=5)
    cut = csa.compare(scaled(1.0), scaled(1.0), data=X[:5], labels=labels[:5])
    assert [one.metrics for one in some.outputs] == [one.metrics for one in cut.outputs]
    assert len(some.samples) == 5
