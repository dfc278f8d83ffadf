"""Tables of results as pandas data frames, held against the fields of the results themselves."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import csa_deploy as csa
from csa_deploy.records.repair import Left

pandas = pytest.importorskip("pandas")
Make = Callable[..., onnx.ModelProto]
TEXT = "text"


def kinds(frame: Any) -> dict[str, str]:
    """Column -> what it holds; texts are of another dtype in pandas 3 than before."""
    return {
        name: TEXT if pandas.api.types.is_string_dtype(dtype) else str(dtype) for name, dtype in frame.dtypes.items()
    }


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((8, 3, 16, 16)).astype("f4")


def test_a_comparison(make_tiny: Make, images: np.ndarray) -> None:
    graph = make_tiny()
    result = csa.compare(
        graph, {"same": graph, "half": csa.to_fp16(graph).graph, "other": make_tiny(seed=1)}, data=images
    )
    frame = result.to_pandas().set_index(["candidate", "output"])
    assert len(frame) == len(result.outputs) == 3
    for one in result.outputs:
        row = frame.loc[(one.candidate, one.output)]
        assert (row["verdict"], row["precision"]) == (one.verdict, one.precision)
        assert {name: row[name] for name in one.metrics} == one.metrics
    assert set(frame) == {"precision", "verdict"}.union(*(one.metrics for one in result.outputs))
    numbers = frame.drop(columns=["precision", "verdict"])
    assert set(numbers.dtypes) == {np.dtype(float)}
    assert frame.loc[("same", graph.graph.output[0].name)]["snr_db"] == np.inf  # it stays a number
    samples = pandas.DataFrame(result.samples)
    assert samples.groupby("candidate").size().to_dict() == {"same": 8, "half": 8, "other": 8}
    largest = samples.groupby("candidate")["max_abs_error"].max()
    assert largest.to_dict() == frame["max_abs_error"].droplevel("output").to_dict() and largest["other"] > 0.01


def test_a_timing(make_tiny: Make) -> None:
    graph = make_tiny()
    result = csa.profile([graph, csa.to_fp16(graph).graph], iterations=60)
    frame = result.to_pandas()
    assert list(frame["label"]) == [one.label for one in result.latencies] and len(frame) == 2
    for (_, row), one in zip(frame.iterrows(), result.latencies, strict=True):
        assert {f"p{name}_ms": row[f"p{name}_ms"] for name in one.percentiles_ms} == {
            f"p{name}_ms": value for name, value in one.percentiles_ms.items()
        }
        assert (row["outcome"], row["evidence"]) == (one.outcome, one.evidence)
        assert "not the target's latency" in row["evidence"]  # a figure of a CPU says so in the table as well
    assert np.isnan(frame["ratio"][0]) and frame["ratio"][1] == result.latencies[1].ratio
    low, high = result.latencies[1].interval or (None, None)
    assert [None if np.isnan(v) else v for v in frame.loc[1, ["ratio_low", "ratio_high"]]] == [low, high]
    alone = csa.Timing((dataclasses.replace(result.latencies[0], percentiles_ms={"50": 1.5}),)).to_pandas()
    assert kinds(alone) == {
        **dict.fromkeys(("label", "outcome", "evidence"), TEXT),
        **dict.fromkeys(("p50_ms", "ratio", "ratio_low", "ratio_high"), "float64"),  # though none is known
    }


def test_findings(make_tiny: Make) -> None:
    report = csa.check(make_tiny(), ["drive-os-6", "dla-orin", "trt-11"])
    frame = report.to_pandas()
    assert len(frame) and dict(frame.groupby("scope").size()) == {
        scope.scope: len(scope.findings) for scope in report.scopes if scope.findings
    }
    found = [(scope.scope, finding) for scope in report.scopes for finding in scope.findings]
    for (_, row), (scope, finding) in zip(frame.iterrows(), found, strict=True):
        assert row.to_dict() == {"scope": scope, **{name: getattr(finding, name) for name in list(frame)[1:]}}
    assert set(kinds(frame).values()) == {TEXT}
    clean = dataclasses.replace(report, scopes=()).to_pandas()
    assert len(clean) == 0 and list(clean) == list(frame) and len(clean[clean["verdict"] == "denied"]) == 0


def test_steps(make_tiny: Make) -> None:
    small, wanted = csa.optimize(csa.export("csa_digits")), ["rule", "rewrites", "kept", "error", "what", "reason"]
    frame = small.to_pandas()
    assert list(frame) == wanted and len(frame) == len(small.steps) > 1
    for (_, row), step in zip(frame.iterrows(), small.steps, strict=True):
        assert (row["rule"], row["rewrites"], row["kept"]) == (step.rule, step.rewrites, step.kept)
        assert row["error"] == step.error and (row["what"], row["reason"]) == (step.summary, step.reason)
    sorts = {"rewrites": "int64", "kept": "bool", "error": "float64"}
    assert kinds(frame) == {**dict.fromkeys(wanted, TEXT), **sorts}
    repaired = csa.repair(make_tiny(), ["dla-orin"])
    nothing = dataclasses.replace(repaired, steps=(), left=())
    left = dataclasses.replace(nothing, left=(Left("one", "worse"), Left("two", "too")))
    assert kinds(left.to_pandas()) == kinds(frame)  # no error is known, and it is a column of numbers still
    assert list(left.to_pandas()["reason"]) == ["worse", "too"]
    assert list(nothing.to_pandas()) == wanted and len(nothing.to_pandas()) == 0


def test_layers_by_precision(make_tiny: Make, images: np.ndarray) -> None:
    graph = make_tiny()
    half = csa.to_fp16(graph, keep_fp32=graph.graph.node[0].name)
    frame = half.to_pandas()
    assert [tuple(row) for row in frame.itertuples(index=False)] == [dataclasses.astuple(node) for node in half.kept]
    assert len(frame) == 1 and list(csa.to_fp16(graph).to_pandas()) == list(frame) == ["node", "op", "reason"]
    int8 = csa.quantize(graph, calib=images, techniques="none", search=False)
    layers = int8.to_pandas().set_index("layer")
    assert set(layers[layers["precision"] == "int8"].index) == set(int8.int8) and int8.int8
    assert layers[layers["precision"] != "int8"]["reason"].to_dict() == int8.kept


def test_an_export_with_and_without_pytorch() -> None:
    net = csa.export("csa_digits")
    frame = net.to_pandas()
    assert [row.to_dict() for _, row in frame.iterrows()] == [one.to_json() for one in net.report.differences]
    assert len(frame) and kinds(frame)["samples"] == "int64"
    assert list(dataclasses.replace(net, report=None).to_pandas()) == list(frame)


def test_proofs_side_by_side(make_tiny: Make) -> None:
    graph = make_tiny()
    proofs = [csa.prove(graph, other) for other in (graph, csa.optimize(graph).graph, make_tiny(seed=1))]
    frame = pandas.concat([proof.to_pandas() for proof in proofs], ignore_index=True)
    assert list(frame["verdict"]) == [proof.verdict for proof in proofs] == ["equal", "equal", "different"]
    assert list(frame["difference"]) == [proof.difference for proof in proofs] and frame["difference"][2] > 1e-3
    assert list(frame["reason"]) == [proof.reason for proof in proofs] and frame["samples"].sum() == 0
    unknown = dataclasses.replace(proofs[0], difference=None, bound=None).to_pandas()
    assert kinds(unknown)["difference"] == kinds(unknown)["bound"] == "float64" and unknown["bound"].isna().all()


@pytest.mark.rtx
@pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="TensorRT-RTX is not installed")
def test_an_engine(make_tiny: Make) -> None:
    built = csa.build(make_tiny(), backend="tensorrt-rtx", compute_capability=["8.6"])
    (row,) = (row for _, row in built.to_pandas().iterrows())
    assert (row["precision"], row["backend"], row["bytes"]) == ("fp32", "tensorrt-rtx", len(built.engine or b""))
    assert row["sha256"] == built.passport.engine.sha256 and row["tensorrt"] == built.report.version


def test_a_split_network_has_a_row_per_part(make_tiny: Make) -> None:
    graph = make_tiny()
    found = csa.split(graph, graph.graph.node[1].output[0])
    frame = found.to_pandas().set_index("part")
    assert list(frame.index) == [part.name for part in found.parts] and len(frame) > 1
    assert frame["nodes"].to_dict() == {part.name: part.nodes for part in found.parts}
    assert all(name.isidentifier() for name in frame)
