"""Repairs for scopes: no asked scope may be worse off, node by node; and no work without need."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from rich.console import Console

from csa_deploy.cli.check import _steps
from csa_deploy.graph.rewrite import LEFT_ALONE
from csa_deploy.records.graphs import Note
from csa_deploy.records.repair import ScopeChange
from csa_deploy.restricted import check as checking
from csa_deploy.restricted import crosscheck as crosschecking
from csa_deploy.restricted import inspection, loading, repairing
from csa_deploy.restricted.check import check
from csa_deploy.restricted.repairing import ScopeRepair, repair_for_scopes

BOTH = ("drive-os-6", "drive-os-7")
RANK = {"allowed": 0, "unknown": 1, "denied": 2}

Build = Callable[..., onnx.ModelProto]


@pytest.fixture(autouse=True)
def rules_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The rules decide, whether NVIDIA's validator is installed or not."""
    monkeypatch.setenv("CSA_DEPLOY_VALIDATOR", str(tmp_path / "none"))


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def ops(model: onnx.ModelProto | None) -> list[str]:
    assert model is not None
    return [node.op_type for node in model.graph.node]


def outputs(model: onnx.ModelProto, feed: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: feed})


def not_worse(repaired: ScopeRepair, path: Path) -> None:
    """By a check from scratch, not by the counts that the search kept."""
    if repaired.model is None:
        return
    for old, new in zip(
        check(path, repaired.scopes).scopes, check(repaired.model, repaired.scopes).scopes, strict=True
    ):
        assert RANK[new.verdict] <= RANK[old.verdict]
        assert (new.counts["denied"], new.counts["unknown"]) <= (old.counts["denied"], old.counts["unknown"])


@pytest.mark.shows("MEA-14", "ERR-11")
def test_a_node_that_another_scope_would_deny_is_left_and_the_others_are_repaired(build: Build, tmp_path: Path) -> None:
    # 113 is prime: no chain of smaller windows exists. A mean over the map is denied in 6 and allowed in 7.
    model = build(
        "(float[1,4,113,113] x) => (float[1,4,1,1] y)",
        "big = GlobalAveragePool(x)\n c = Conv<strides=[20,20]>(x, w)\n s = GlobalAveragePool(c)\n y = Add(big, s)",
        w=(4, 4, 3, 3),
    )
    path = saved(model, tmp_path)
    repaired = repair_for_scopes(path, BOTH)
    assert [item.what for item in repaired.left] == ["n0"] and "drive-os-7" in repaired.left[0].reason
    assert ops(repaired.model).count("GlobalAveragePool") == 1 and ops(repaired.model).count("AveragePool") == 1
    not_worse(repaired, path)
    feed = np.random.default_rng(0).standard_normal((1, 4, 113, 113)).astype("f4")
    assert repaired.model is not None
    np.testing.assert_allclose(outputs(repaired.model, feed)[0], outputs(model, feed)[0], rtol=1e-5, atol=1e-6)
    marks = {entry.key for node in repaired.model.graph.node for entry in node.metadata_props}
    assert LEFT_ALONE not in marks and not any("origin" in key for key in marks)


def test_the_same_node_is_repaired_where_only_the_scope_that_denies_it_is_asked(build: Build, tmp_path: Path) -> None:
    model = build("(float[1,4,113,113] x) => (float[1,4,1,1] y)", "y = GlobalAveragePool(x)")
    path = saved(model, tmp_path)
    alone = repair_for_scopes(path, ["drive-os-6"])
    assert ops(alone.model) == ["AveragePool"] and not alone.left
    counts = {"denied": (1, 0), "unknown": (0, 0)}
    assert alone.verdicts == (ScopeChange("drive-os-6", "denied", "allowed", counts),)
    both = repair_for_scopes(path, BOTH)
    assert both.model is None and both.after is both.before and both.left


GRAPHS = {
    "means over maps of many sizes": (
        "(float[1,2,40,60] x) => (float[1,2,1,1] a, float[1,2,1,1] b, float[1,2,1,1] c)",
        "a = GlobalAveragePool(x)\n s = MaxPool<kernel_shape=[3,3], strides=[2,2]>(x)\n b = GlobalMaxPool(s)\n "
        "t = MaxPool<kernel_shape=[4,4], strides=[4,4]>(s)\n c = ReduceMean<keepdims=1>(t, axes)",
        {"axes": np.array([2, 3])},
    ),
    "a Clip, a product and a Gemm": (
        "(float[1,4,6,6] x) => (float[1,5] y)",
        "a = Clip(x, low, high)\n b = Mul(a, s)\n f = Flatten(b)\n y = Gemm(f, w)",
        {"low": np.float32(0), "high": np.float32(6), "s": (1, 4, 1, 1), "w": (144, 5)},
    ),
    "HardSwish beside a pool": (
        "(float[1,4,30,30] x) => (float[1,4,1,1] y)",
        "a = HardSwish(x)\n y = GlobalAveragePool(a)",
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    "scopes", [BOTH, ("drive-os-7",), ("dla-orin", "drive-os-7"), ("dla-orin", "drive-os-6", "drive-os-7", "trt-11")]
)
@pytest.mark.shows("MEA-14", "ERR-11")
def test_no_asked_scope_is_ever_worse_off(build: Build, tmp_path: Path, name: str, scopes: tuple[str, ...]) -> None:
    signature, body, weights = GRAPHS[name]
    path = saved(build(signature, body, **weights), tmp_path)
    not_worse(repair_for_scopes(path, scopes), path)


def test_a_real_network_stays_allowed_where_it_was(tmp_path: Path) -> None:
    """RapidOCR's classifier: its poolings went to windows that drive-os-7 denies."""
    package = importlib.util.find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        pytest.skip("rapidocr-onnxruntime is not installed")
    found = sorted(Path(package.origin).parent.rglob("*cls*.onnx"))
    model = onnx.load(found[0])
    for size, dim in zip((1, 3, 48, 192), model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dim.Clear()
        dim.dim_value = size
    for size, dim in zip((1, 2), model.graph.output[0].type.tensor_type.shape.dim, strict=True):
        dim.Clear()
        dim.dim_value = size
    path = saved(model, tmp_path)
    repaired = repair_for_scopes(path, BOTH)
    not_worse(repaired, path)
    by_scope = {found.scope: found for found in repaired.verdicts}
    assert by_scope["drive-os-7"].after == "allowed"
    assert sum(by_scope["drive-os-6"].counts["unknown"]) > 100  # it did repair
    assert by_scope["drive-os-6"].counts["unknown"][1] < 10


class Counted:
    """Counts calls of a function in every module that holds it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, real: Any, *places: tuple[Any, str]) -> None:
        self.calls = 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return real(*args, **kwargs)

        for module, name in places:
            monkeypatch.setattr(module, name, counted)


def test_a_graph_is_read_once_and_nvidia_is_asked_once_per_graph(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Counted(
        monkeypatch,
        loading.load_graph,
        *((module, "load_graph") for module in (checking, crosschecking, inspection)),
    )
    parsers = Counted(monkeypatch, crosschecking.crosscheck, (inspection, "crosscheck"))
    validators = Counted(monkeypatch, inspection.validate, (inspection, "validate"))
    path = saved(build("(float[1,4,6,6] x) => (float[1,4,6,6] y)", "y = Relu(x)"), tmp_path)
    assert repair_for_scopes(path, BOTH).model is None
    assert (reads.calls, parsers.calls, validators.calls) == (1, 1, 1)
    path = saved(build("(float[1,4,6,6] x) => (float[1,4,1,1] y)", "y = GlobalAveragePool(x)"), tmp_path)
    before = inspection.inspect(path, BOTH)
    assert repair_for_scopes(path, BOTH, before=before).model is not None
    assert (parsers.calls, validators.calls) == (3, 3)  # this graph and the repaired one


@pytest.mark.shows("MEA-14")
def test_a_validator_that_refuses_the_repaired_graph_is_heard(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules allow a pooling; were NVIDIA's validator to refuse it, the repair is not kept."""
    path = saved(build("(float[1,4,6,6] x) => (float[1,4,1,1] y)", "y = GlobalAveragePool(x)"), tmp_path)

    def validate(model: Path) -> inspection.ValidatorVerdict:
        pooled = "AveragePool" in ops(onnx.load(model))
        return inspection.ValidatorVerdict(
            "refused" if pooled else "accepted", reason="no pooling today" if pooled else ""
        )

    monkeypatch.setattr(inspection, "validate", validate)
    repaired = repairing.repair_for_scopes(path, BOTH)
    assert repaired.model is None
    assert [item.what for item in repaired.left] == ["global_pool_to_pool"]
    assert "drive-os-7 would be denied" in repaired.left[0].reason


def test_what_a_repair_left_be_is_said_with_its_reason(build: Build, tmp_path: Path) -> None:
    """Of two poolings over a map, one has no factors that the scopes' windows can take."""
    model = build(
        "(float[1,2,23,23] x, float[1,2,8,8] z) => (float[1,2,1,1] y, float[1,2,1,1] w)",
        "y = GlobalAveragePool(x) w = GlobalAveragePool(z)",
    )
    repaired = repair_for_scopes(saved(model, tmp_path), ["dla-orin"])
    assert [(note.rule, note.node) for note in repaired.declined] == [("global_pool_to_pool", "n0")]
    assert "23 has no factors" in repaired.declined[0].reason
    text = shown(repaired)
    assert "left as it is: n0: 23 has no factors" in text


def test_a_repair_that_is_kept_in_part_says_where_it_is_not(build: Build, tmp_path: Path) -> None:
    model = build("(float[1,2,8,8] x) => (float[1,2,1,1] y)", "y = GlobalAveragePool(x)")
    repaired = repair_for_scopes(saved(model, tmp_path), ["dla-orin"])
    step = replace(repaired.steps[0], reason="left alone where 'y' differs by 1.0e+00 of its range")
    notes = tuple(Note("global_pool_to_pool", name, "not floating point") for name in ("one", "two", "three"))
    text = shown(replace(repaired, steps=(step,), declined=notes))
    assert "kept: left alone where 'y' differs by 1.0e+00" in text
    assert "left as it is: one and 2 more: not floating point" in text


def shown(repaired: ScopeRepair) -> str:
    """The table on the console, on one line."""
    console = Console(width=400, file=StringIO(), color_system=None)
    console.print(_steps(repaired, "net"))
    return " ".join(console.file.getvalue().split())
