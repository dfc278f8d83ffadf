"""Verdicts of the Python API on graphs that differ: none is lost, taken for another or rounded away."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser

import csa_deploy as csa
from csa_deploy.cli.main import app
from csa_deploy.config import make_config
from csa_deploy.errors import AccuracyGateError, UsageError
from csa_deploy.metrics.stream import OutputMetrics
from csa_deploy.results import Stored
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


@pytest.mark.parametrize("names", [("", "", ""), ("", "h2", ""), ("MatMul_h2", "", "")])
def test_the_guilty_node_is_found_in_graphs_whose_nodes_have_no_names(names: tuple[str, str, str]) -> None:
    right, wrong = scaled(1.0, size=6, times=3), scaled(1.0, size=6, times=3)
    tensor = next(item for item in wrong.graph.initializer if item.name == "w1")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy() * 3, "w1"))
    for model in (right, wrong):
        for node, name in zip(model.graph.node, names, strict=True):
            node.name = name
    found = csa.compare(right, wrong, data=X, localize=True)
    assert found.verdict == "fail" and found.report is not None
    (culprit,) = found.report.localization[0].culprits
    assert culprit == (names[1] or ("MatMul_h2_2" if names[0] else "MatMul_h2"))


def with_bias(value: float) -> onnx.ModelProto:
    """The product with ``value`` added to one of three outputs."""
    model = scaled(1.0)
    model.graph.node[0].output[0] = "product"
    model.graph.node.append(helper.make_node("Add", ["product", "bias"], ["y"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, value, 0], "f4"), "bias"))
    return model


@pytest.mark.parametrize("label", ["candidate", "nan", "inf"])
@pytest.mark.parametrize("value", [0.0, 1.0, np.inf, np.nan])
def test_numbers_that_are_not_finite_survive_json(value: float, label: str) -> None:
    """And texts that read like one stay texts."""
    found = csa.compare(with_bias(0.0), {label: with_bias(value)}, data=X, labels=np.zeros(len(X), int))
    again = csa.Comparison.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert again == found
    assert {type(row["snr_db"]) for row in again.samples} == {float}
    assert {row["candidate"] for row in again.samples} == {label}
    assert {type(one["max_abs_error"]) for one in again.report.candidates[0].outputs[0].worst} == {float}


def test_time_makes_no_difference_between_results() -> None:
    """What is no part of a result's JSON form, such as seconds, is no part of what makes two the same."""
    importlib.import_module("csa_deploy.bundle.verdict")
    kinds, waiting = set[type](), [Stored]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        kinds |= {kind} if dataclasses.is_dataclass(kind) else set()
    assert len(kinds) > 50
    left_out = {
        (k.__name__, f.name): f for k in kinds for f in dataclasses.fields(k) if not f.metadata.get("json", True)
    }
    assert [name for name, item in left_out.items() if item.compare] == []


def test_an_engine_is_not_built_in_another_precision_than_asked() -> None:
    with pytest.raises(UsageError, match="the graph's types say fp32, not int8"):
        csa.build(scaled(1.0), precision="int8")


@pytest.mark.parametrize("data", [X > 0, (X * 9).astype("i1"), (X * X).astype("u1"), X.astype("i8")])
def test_data_of_another_type_are_refused_in_one_line(data: np.ndarray) -> None:
    """Not left out, and not a traceback."""
    net = scaled(1.0)
    for attempt in (csa.prove, csa.compare):
        with pytest.raises(UsageError, match=r"float32.*" + data.dtype.name + "|" + data.dtype.name + ".*float32"):
            attempt(net, net, data=data)
    with pytest.raises(UsageError, match=rf"'x' is float32, the data hold {data.dtype.name}"):
        csa.quantize(net, calib=data, techniques="none")


@pytest.mark.parametrize("kind", ["float16", "float", "double"])
def test_floats_of_data_become_those_of_the_graph(kind: str) -> None:
    net = parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17]>
        net ({kind}[1,6] x) => ({kind}[1,6] y) {{ y = Relu (x) }}""")
    for data in (X, X.astype("f8"), X.astype("f2")):
        assert (csa.prove(net, net, data=data).samples, csa.prove(net, net, data=data).notes) == (len(X), ())


@pytest.mark.parametrize("last", [7, 11])
def test_every_sample_counts_also_where_a_batch_is_not_full(last: int) -> None:
    """A graph that is wrong on one of twelve samples alone, five at a time."""
    data = np.zeros((12, 6), "f4")
    data[:, 0], data[last, 1] = 1.0, 1e6
    right, wrong = (
        parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17]>
            net (float[5,6] x) => (float[5,6] y) <float limit = {{{limit}}}> {{ y = Min (x, limit) }}""")
        for limit in (5e5, 6e5)
    )
    found = csa.prove(right, wrong, data=data)
    assert (found.verdict, found.on) == ("different", f"sample {last // 5 * 5}")


@given(st.permutations(range(12)))
@settings(max_examples=30, deadline=None)
def test_figures_do_not_depend_on_the_order_of_the_samples(order: list[int]) -> None:
    def figures(order: list[int]) -> dict[str, float]:
        found = OutputMetrics("y")
        found.update(X[order], X[order] * np.float32(0.7) + 1, [str(i) for i in order], [0] * len(order))
        return found.values()

    assert figures(order) == pytest.approx(figures(list(range(12))), rel=1e-14)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0])
def test_fp64_says_that_a_value_which_is_not_finite_is_the_candidates_error(value: float) -> None:
    found = csa.compare(with_bias(0.0), with_bias(value), data=X)
    assert found.report is not None and [one.farther for one in found.report.arbitration] == ["candidate"]


@pytest.mark.parametrize("kind", ["uint8", "int8", "bool"])
def test_fp64_measures_whole_numbers_too(kind: str) -> None:
    """No difference of theirs wraps around, and Python's integers say how large it is."""
    first, second = (0, 1) if kind == "bool" else (3, 250) if kind == "uint8" else (-100, 100)
    nets = []
    for number in (first, second):
        net = parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17]>
            net (float[1,6] x) => ({kind}[1,6] y) {{ n = Abs (x)
                one = Greater (n, zero)
                picked = Where (one, some, other)
                y = Cast <to = {TensorProto.DataType.Value(kind.upper())}> (picked) }}""")
        stored = {"zero": np.float32(-1), "some": np.array([number] * 6, "i4"), "other": np.array(first, "i4")}
        net.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items())
        nets.append(net)
    found = csa.compare(*nets, data=X)
    assert found.not_measured == () and found.report is not None
    (one,) = found.report.arbitration
    assert (one.reference_error, one.candidate_error, one.farther) == (0.0, second - first, "candidate")


def test_weights_of_the_working_directory_are_not_taken_for_those_of_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two graphs keep their weights in files of the same name; the one in the working directory is the other's."""
    for folder, factor in (("own", 1.0), ("other", -1.0)):
        (tmp_path / folder).mkdir()
        kept = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
        onnx.save_model(scaled(factor), tmp_path / folder / "m.onnx", **kept)
    monkeypatch.chdir(tmp_path / "other")
    bare = onnx.load(tmp_path / "own/m.onnx", load_external_data=False)
    for attempt in (csa.to_fp16, csa.optimize, csa.check, csa.export, lambda one: csa.prove(one, one)):
        with pytest.raises(UsageError, match="'w0' and other weights were not loaded with the graph"):
            attempt(bare)
    with pytest.raises(UsageError, match="were not loaded"):
        csa.compare(scaled(1.0), bare, data=X)
    assert csa.prove(tmp_path / "own/m.onnx", scaled(1.0), data=X).verdict == "equal"


def test_stored_columns_of_one_candidate_are_not_those_of_another(tmp_path: Path) -> None:
    """Output ``b/y`` of ``a`` is not output ``y`` of ``a/b``."""
    right, wrong = (
        parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17]>
            net (float[1,6] x) => (float[1,6] first, float[1,6] second) <float k = {{{factor}}}> {{
                first = Mul (x, k)
                second = Relu (x) }}""")
        for factor in (1.0, 2.0)
    )
    names = {"first": "b/y", "second": "y"}
    for model in (right, wrong):
        for node in model.graph.node:
            node.output[0] = names[node.output[0]]
        for output in model.graph.output:
            output.name = names[output.name]
    found = csa.compare(right, {"a": wrong, "a/b": right, "a%2Fb": right}, data=X)
    (tmp_path / "samples.npz").write_bytes(found.stored or b"")
    stored = read_results(tmp_path / "samples.npz")
    again = [(c.label, o.name, float(o.columns["max_abs_error"].max())) for c in stored.candidates for o in c.outputs]
    assert again == [(one.candidate, one.output, one.metrics["max_abs_error"]) for one in found.outputs]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_bounds_that_nothing_breaks_are_refused(number: float) -> None:
    net = scaled(1.0)
    for key in ("snr_db", "max_abs_error", "y.max_rel_error", "kl_divergence"):
        with pytest.raises(UsageError, match=rf"fp32\.{key}"):
            csa.compare(net, net, data=X, budget={"fp32": {key: number}})
    with pytest.raises(UsageError, match=r"fp32\.p99_ms"):
        csa.profile([net], iterations=5, limit={"fp32": {"p99_ms": number}})
    with pytest.raises(UsageError, match="tolerance"):
        csa.prove(net, scaled(-1.0), tolerance=number)
    for setting in ("export_tolerance", "max_slowdown", "seconds"):
        with pytest.raises(UsageError, match=setting):
            make_config({setting: number})


@pytest.mark.parametrize(("tolerance", "allowed"), [(-1e-9, False), (0.0, True), (0.999, True), (1.0, False)])
def test_a_tolerance_is_a_part_of_the_range(tolerance: float, allowed: bool) -> None:
    with contextlib.nullcontext() if allowed else pytest.raises(UsageError, match="part of a channel's range"):
        assert csa.prove(scaled(1.0), scaled(1.0), tolerance=tolerance).verdict == "equal"
