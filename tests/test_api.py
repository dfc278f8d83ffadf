"""The Python API: the lines of its documentation, every form of an argument, and results that survive JSON."""

from __future__ import annotations

import doctest
import hashlib
import importlib
import importlib.util
import inspect
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import csa_deploy as csa
from csa_deploy.api.stages import as_exported
from csa_deploy.api.wording import in_python
from csa_deploy.cli.main import app
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.graph.load import save_model
from csa_deploy.metrics.table import METRICS
from csa_deploy.metrics.task import TASKS
from csa_deploy.results import Result

HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None
CALIB = {"samples": 16, "techniques": "none", "search": False}
FUNCTIONS = (
    "build",
    "check",
    "compare",
    "export",
    "optimize",
    "profile",
    "prove",
    "quantize",
    "repair",
    "report",
    "split",
)


@dataclass(frozen=True)
class Chain:
    """What the lines of the documentation give for csa_digits, and the folder in which they ran."""

    folder: Path
    net: csa.Exported
    checked: csa.CheckReport
    fixed: csa.Repaired
    small: csa.Optimized
    half: csa.Half
    int8: csa.Quantized
    engine: csa.Built | None
    result: csa.Comparison
    timing: csa.Timing
    proven: csa.Proven

    def results(self) -> dict[str, Result]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Result)}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder, before = tmp_path_factory.mktemp("chain"), Path.cwd()
    os.chdir(folder)
    try:
        net = csa.export("csa_digits")
        small = csa.optimize(net.graph)
        half = csa.to_fp16(small.graph)
        int8 = csa.quantize(small.graph, calib="digits:train", **CALIB)
        engine = csa.build(half.graph, backend="tensorrt-rtx", compute_capability=["8.6"]) if HAS_RTX else None
        given = [small.graph, half.graph, int8.graph, *([engine] if engine else [])]
        yield Chain(
            folder,
            net,
            csa.check(net.graph, scopes=["drive-os-6", "dla-orin"]),
            csa.repair(net.graph, scopes=["dla-orin"]),
            small,
            half,
            int8,
            engine,
            csa.compare(net, given, data="digits", samples=12),
            csa.profile([net.graph, small.graph], iterations=5),
            csa.prove(net, small),
        )
    finally:
        os.chdir(before)


def test_the_lines_give_what_they_promise(chain: Chain) -> None:
    assert chain.net.preprocessing is not None and chain.net.report.differences
    assert {scope.scope: scope.verdict for scope in chain.checked.scopes} == {
        "drive-os-6": "allowed",
        "dla-orin": "denied",
    }
    assert chain.checked.rejected and chain.fixed.report.verdict == "allowed" and chain.fixed.steps
    assert chain.small.after.nodes < chain.small.before.nodes and chain.small.proof.error < 1e-5
    assert chain.half.nodes and chain.int8.int8
    assert {one.candidate for one in chain.result.outputs} == {"fp32", "fp16", "int8"}
    assert chain.result.verdict in ("pass", "undecided") and not chain.result.failure
    assert len(chain.result.samples) == 3 * 12 and chain.result.outputs[1].metrics["snr_db"] > 40
    assert [one.label for one in chain.timing.latencies] == ["fp32", "fp32 2"]
    assert all("not the target" in one.evidence for one in chain.timing.latencies)
    assert chain.proven.verdict == "equal"
    if chain.engine:
        assert chain.engine.engine and chain.engine.passport.seal
        assert chain.result.not_measured[0].what == "engine fp16"


def test_nothing_is_written_unless_asked(chain: Chain) -> None:
    assert list(chain.folder.iterdir()) == []


def test_every_result_survives_json_and_says_itself_in_one_line(chain: Chain) -> None:
    for name, result in chain.results().items():
        again = type(result).from_json(json.loads(json.dumps(result.to_json(), allow_nan=False)))
        assert again == result, name
        assert type(again) is type(result) and again.to_json() == result.to_json()
        assert str(result) and "\n" not in str(result) and str(again) == str(result)
        assert str(result) in repr(result) and "<p>" in result._repr_html_()
        with pytest.raises(FrozenInstanceError):
            result.name = "x"  # type: ignore[attr-defined]
        rows = result.rows()
        assert len({tuple(row) for row in rows}) <= 1, name
        with pytest.raises(UsageError, match=r"schema version|not a"):
            type(result).from_json({**result.to_json(), "schema_version": 99})
    with pytest.raises(UsageError, match="without its graph"):
        _ = csa.Exported.from_json(chain.net.to_json()).graph
    with pytest.raises(UsageError, match="not a Half"):
        csa.Half.from_json(chain.net.to_json())
    with pytest.raises(UsageError, match="not complete"):
        csa.Half.from_json({"result": "Half", "schema_version": 1, "name": "x"})


def test_the_graphs_are_those_of_the_commands(chain: Chain, tmp_path: Path) -> None:
    place = tmp_path / "commands"
    words = ["--workspace", str(place), "--calib", "digits:train", "--calib-samples", "16", "--techniques", "none"]
    words += ["--no-search", "--int8", "--fp16", "--data", "digits", "--samples", "4", "-q"]
    app(["quantize", "csa_digits", *words], standalone_mode=False)
    for name, result in (("", chain.net), (".optimized", chain.small), (".fp16", chain.half), (".int8", chain.int8)):
        save_model(result.graph, tmp_path / "ours.onnx")
        assert (tmp_path / "ours.onnx").read_bytes() == (place / f"onnx/csa_digits{name}.onnx").read_bytes(), name
    # A workspace is the same for both: what the command made is kept, and its settings are remembered.
    started = json.loads((place / "measurements/precision.json").read_text())["started_at"]
    there = csa.quantize("csa_digits", workspace=csa.Workspace(place))
    assert there.graph.SerializeToString(deterministic=True) == chain.int8.graph.SerializeToString(deterministic=True)
    assert json.loads((place / "measurements/precision.json").read_text())["started_at"] == started
    assert csa.compare("csa_digits", workspace=place).verdict == "undecided"


def test_a_report_of_results(chain: Chain, tmp_path: Path) -> None:
    results = [value for name, value in chain.results().items() if name != "proven"]
    page = csa.report(results, tmp_path / "report.html").read_text()
    assert "csa_digits" in page and "int8" in page and "<script src" not in page
    data = json.loads(csa.report(chain.result, tmp_path / "report.json").read_text())
    assert data["records"]["verify"]["verdict"] == chain.result.verdict
    repaired = json.loads(csa.report([chain.fixed], tmp_path / "fixed.json").read_text())["records"]
    (scope,) = repaired["repair"]["verdicts"]
    assert (scope["before"], scope["after"], scope["counts"]["denied"][1]) == ("denied", "allowed", 0)
    assert repaired["check"]["of"] == "repaired"
    page = csa.report([chain.fixed], tmp_path / "fixed.html").read_text()
    assert chain.fixed.steps and all(f">{step.rule}<" in page for step in chain.fixed.steps)
    with pytest.raises(UsageError, match="two results"):
        csa.report([chain.net, chain.net], tmp_path / "no.html")
    with pytest.raises(UsageError, match="no place"):
        csa.report([chain.proven], tmp_path / "no.html")
    with pytest.raises(UsageError, match="Exported without a record"):
        csa.report([as_exported(chain.net.graph)], tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def test_the_names_are_public_documented_and_typed() -> None:
    assert set(csa.__all__) <= set(dir(csa))
    assert {*FUNCTIONS, "to_fp16"} == {name for name in csa.__all__ if inspect.isfunction(getattr(csa, name))}
    for name in ("export", "profile", "report", "repair", "split"):  # sub-packages of the same names
        importlib.import_module(f"csa_deploy.{name}")
    for name in (*FUNCTIONS, "to_fp16"):
        function = getattr(csa, name)
        assert inspect.isfunction(function) and inspect.getdoc(function), name
        described = inspect.signature(function, eval_str=False)
        assert described.return_annotation is not inspect.Signature.empty, name
        for parameter in described.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)
            assert f"{parameter.name}:" in (inspect.getdoc(function) or ""), (name, parameter.name)
    with pytest.raises(AttributeError, match="has no attribute 'exprot'"):
        _ = csa.exprot  # type: ignore[attr-defined]


class Small(nn.Module):
    """Made in a test; in training mode, as a caller may hold it."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.preprocessing = {"size": (16, 16)}
        self.body = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def test_a_module_in_memory_stays_as_it_is(tmp_path: Path) -> None:
    module, images = Small(), np.random.default_rng(0).standard_normal((6, 3, 16, 16)).astype("f4")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    net = csa.export(module, workspace=tmp_path / "small")
    assert module.training and all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    with torch.no_grad():
        module.head.weight.mul_(2)
    result = csa.compare(net, csa.optimize(net), data=images, budget={"fp32": {"max_rel_error": 1e-3}})
    assert not result.failure and len(result.samples) == 6, "compared with the module as it was exported"
    assert result.report.reference["backend"] == "torch"
    other = csa.export(module, workspace=tmp_path / "small")
    assert csa.prove(net, other).verdict == "different"
    page = csa.report(csa.Workspace(tmp_path / "small"), tmp_path / "page.html").read_text()
    assert "Small (object)" in page
    again = csa.export(module, workspace=tmp_path / "small")
    assert again.graph == other.graph and again.report == other.report


def test_what_decides_the_network_holds_for_its_reference_too(tmp_path: Path) -> None:
    torch.save({"ema": Small().state_dict()}, tmp_path / "weights.pth")
    made = csa.export(Small, size=(16, 24), batch=2, checkpoint=str(tmp_path / "weights.pth"), checkpoint_key="ema")
    images = np.random.default_rng(2).standard_normal((4, 3, 16, 24)).astype("f4")
    assert csa.compare(made, made, data=images).outputs[0].metrics["max_rel_error"] < 1e-5
    assert csa.Exported.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_other_weights_or_strides_are_another_network() -> None:
    from csa_deploy.api.given import source_of

    def of(module: Any) -> str:
        return source_of(module, Path()).fingerprint()

    strided = Small()
    strided.body[0].stride = (2, 2)
    assert len({of(Small()), of(Small(9)), of(strided)}) == 3
    assert of(Small()) == of(Small()) and of(lambda: Small()) == of(lambda: Small())


def test_a_network_in_each_of_its_forms(lab: Path, make_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab)
    tiny = make_tiny()
    graphs = [csa.export(form).graph for form in (tiny, "tiny.onnx", lab / "tiny.onnx")]
    assert all(len(graph.graph.node) == len(tiny.graph.node) for graph in graphs)
    made = [csa.export(form) for form in ("nets.py:tiny", Small, lambda: Small())]
    assert [one.report.outputs[0].shape for one in made] == [(1, 10)] * 3
    assert csa.export("tiny.onnx", opset=19).report.opset == 19
    for form, said in ((7, "no network"), ("tiny.onxn", "no such network"), ("absent.onnx", "no such file")):
        with pytest.raises(UsageError, match=said):
            csa.export(form)
    with pytest.raises(UsageError, match=r"unknown key 'opsett', did you mean 'opset'"):
        csa.export("tiny.onnx", opsett=19)
    left = {path.name for path in lab.iterdir()} - {"__pycache__"}
    assert left == {"nets.py", "tiny.onnx", "x.npz"}


def test_a_graph_in_each_of_its_forms(lab: Path, make_tiny: Any) -> None:
    tiny = make_tiny()
    forms = (tiny, lab / "tiny.onnx", str(lab / "tiny.onnx"), csa.Exported("tiny", model=tiny))
    assert len({csa.optimize(form).graph.SerializeToString(deterministic=True) for form in forms}) == 1
    assert len({csa.check(form, ["drive-os-6"]).verdict for form in forms}) == 1
    assert tiny == make_tiny(), "the argument is not changed"
    for form in ("nonsense", 3, lab / "x.npz"):
        with pytest.raises(UsageError, match="no ONNX graph"):
            csa.optimize(form)
    with pytest.raises(TypeError, match="only with a workspace"):
        csa.optimize(tiny, opset=17)


def test_data_in_each_of_its_forms(lab: Path, make_tiny: Any) -> None:
    with np.load(lab / "x.npz") as file:
        images, labels = file["x"], file["labels"]
    loader = [(torch.from_numpy(images[i : i + 4]), torch.from_numpy(labels[i : i + 4])) for i in (0, 4)]
    forms: dict[str, dict[str, Any]] = {
        "path": {"data": lab / "x.npz"},
        "array": {"data": images, "labels": labels},
        "mapping": {"data": {"x": images, "labels": labels}},
        "pair": {"data": (images, labels)},
        "batches": {"data": loader},
        "endless": {"data": itertools.cycle(loader), "samples": 6},
    }
    graph = make_tiny()
    found = {name: csa.compare(graph, graph, **form) for name, form in forms.items()}
    told = {name: (result.outputs, result.samples) for name, result in found.items()}
    assert all(value == told["path"] for value in told.values()), {n: v == told["path"] for n, v in told.items()}
    assert found["array"].report.data.labelled and len(found["array"].samples) == 6


def test_data_that_are_none(make_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, batch = make_tiny(), np.zeros((1, 3, 16, 16), "f4")
    monkeypatch.setattr("csa_deploy.api.given._MOST_BYTES", 10 * batch.nbytes)
    for data, said in (
        (itertools.repeat(batch), "no end"),
        (iter(()), "no samples"),
        (3.5, "is no data"),
        ({"x": batch, "second": batch}, "unknown input 'second'"),
        ({"X": batch}, "unknown input 'X'"),
        (np.asarray(["a"]), "no input of a network"),
        ([batch, {"x": batch, "labels": np.zeros(1)}], "those before it"),
        (None, "needs data"),
    ):
        with pytest.raises(UsageError, match=said):
            csa.compare(graph, graph, data=data)
    with pytest.raises(UsageError, match="labels go with arrays"):
        csa.compare(graph, graph, data="digits", labels=[1])
    with pytest.raises(UsageError, match="needs calibration images"):
        csa.quantize(graph)
    with pytest.raises(UsageError, match="nothing to compare"):
        csa.compare(graph, [], data=batch)


def test_a_broken_budget_is_a_verdict_and_no_exception(make_tiny: Any) -> None:
    images = np.random.default_rng(1).standard_normal((8, 3, 16, 16)).astype("f4")
    result = csa.compare(make_tiny(), {"seed 1": make_tiny(seed=1)}, data=images)
    assert result.verdict == "fail" and "seed 1" in result.failure and "\n" not in result.failure
    assert result.to_pandas is not None and {row["candidate"] for row in result.rows()} == {"seed 1"}


def test_quantizing_on_arrays(make_tiny: Any) -> None:
    images = np.random.default_rng(1).standard_normal((16, 3, 16, 16)).astype("f4")
    batches = (images[i : i + 3] for i in range(0, 16, 3))
    whole, parts = (
        csa.quantize(make_tiny(), calib=calib, techniques="none", search=False) for calib in (images, batches)
    )
    assert whole.int8 and whole.graph == parts.graph
    assert any(node.op_type == "QuantizeLinear" for node in whole.graph.graph.node)


def test_results_on_arrays_are_the_same_again_and_tell_no_path(make_tiny: Any, tmp_path: Path) -> None:
    model = make_tiny()
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    first, second = (
        (csa.quantize(model, calib=images, techniques="none"), csa.compare(model, model, data=images)) for _ in range(2)
    )
    assert first == second
    page = csa.report(first, tmp_path / "page.json").read_text()
    for said in (page, *(json.dumps(result.to_json()) for result in first)):
        assert tempfile.gettempdir() not in said.replace(str(tmp_path), "")
    other = csa.quantize(model, calib=images[::-1] * 2, techniques="none")
    assert other.report.calibration.data != first[0].report.calibration.data


def test_one_name_needs_no_list(make_tiny: Any) -> None:
    model = make_tiny()
    assert csa.check(model, "dla-orin") == csa.check(model, ["dla-orin"])
    assert csa.repair(model, "dla-orin") == csa.repair(model, ["dla-orin"])
    node = model.graph.node[0].name
    assert csa.to_fp16(model, keep_fp32=node) == csa.to_fp16(model, keep_fp32=[node])
    with pytest.raises(UsageError, match="no rule pack for scope 'drive'"):
        csa.check(model, "drive")


def test_what_is_no_result_is_said(make_tiny: Any) -> None:
    with pytest.raises(UsageError, match="no result, not a Timing"):
        csa.Timing.from_json({})
    with pytest.raises(UsageError, match=r"a CheckReport, not a Timing \| fix: read them with CheckReport.from_json"):
        csa.Timing.from_json(csa.check(make_tiny(), "dla-orin").to_json())
    with pytest.raises(UsageError, match=r"^arrays-[0-9a-f]{16}: holds no samples"):
        csa.compare(make_tiny(), make_tiny(), data=np.zeros((0, 3, 16, 16), np.float32))


def test_text_from_outside_is_escaped_in_a_notebook() -> None:
    left = csa.Half("<script>", 1, 0, ())
    assert "<script>" not in left._repr_html_() and "&lt;script&gt;" in left._repr_html_()


def test_a_data_frame_needs_pandas(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("pandas"):
        frame = chain.result.to_pandas()
        assert len(frame) == 3 and "snr_db" in frame
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EnvironmentLacksError, match="pip install pandas"):
        chain.result.to_pandas()


def test_saving(chain: Chain, tmp_path: Path) -> None:
    path = chain.small.save(tmp_path / "deep" / "small.onnx")
    assert onnx.load(path) == chain.small.graph
    assert hashlib.sha256(path.read_bytes()).hexdigest() == chain.small.sha256 != chain.net.sha256
    assert csa.Half("a", 1, 0, (), model=chain.small.graph) != csa.Half("a", 1, 0, (), model=chain.net.graph)
    if chain.engine:
        chain.engine.save(tmp_path / "net.engine")
        from csa_deploy.engine.passport import check_engine

        check_engine(tmp_path / "net.engine")


def test_the_examples_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(csa.__file__).parents[1] / "docs" / "api.md"
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_doctest(page.read_text(), {}, "api.md", str(page), 0)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=said.append)
    assert len(examples.examples) > 20 and not said, "".join(said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deploy", "report.html", "small.onnx"]


def test_a_metric_of_the_caller_is_an_object(lab: Path) -> None:
    """With a bound by its name, on arrays with labels."""

    class HitShare:
        unit = "share"

        def update(self, outputs: Any, target: Any) -> float:
            return float(outputs["y"].argmax() == target)

        def reduce(self, rows: np.ndarray) -> float:
            return float(rows.mean())

    images = np.random.default_rng(3).standard_normal((24, 3, 16, 16)).astype("f4")
    graph = str(lab / "tiny.onnx")
    half = csa.to_fp16(graph)
    kept = dict(METRICS), dict(TASKS)
    try:
        found = csa.compare(
            graph,
            {"half": half},
            data=images,
            labels=np.zeros(24, int),
            metric=[HitShare()],
            budget={"fp16": {"HitShare_drop": 0.5, "snr_db": 30}},
            threads=1,
        )
    finally:
        for table, before in zip((METRICS, TASKS), kept, strict=True):
            table.clear()
            table.update(before)  # type: ignore[arg-type]
    (whole,) = (output for output in found.outputs if output.output == "all outputs")
    assert whole.metrics["HitShare"] == whole.metrics["reference_HitShare"] and whole.metrics["HitShare_drop"] == 0
    (held,) = (c for c in found.report.candidates[0].checks if c.metric == "HitShare_drop")
    assert held.state == "pass" and held.output == "all outputs"


def test_repair_and_to_fp16_are_stages_in_a_workspace(tmp_path: Path) -> None:
    place = csa.Workspace(tmp_path / "w")
    small = csa.optimize("csa_digits", workspace=place)
    fixed, there = csa.repair(small, "dla-orin"), csa.repair("csa_digits", "dla-orin", workspace=place)
    assert there.graph == fixed.graph and there.changed
    assert [s.verdict for s in there.before.scopes] == ["denied"]
    assert [s.verdict for s in there.report.scopes] == ["allowed"]
    assert [(s.rule, s.rewrites, s.kept) for s in there.steps] == [(s.rule, s.rewrites, s.kept) for s in fixed.steps]
    kept = csa.to_fp16(fixed, keep_fp32=[fixed.graph.graph.node[0].name])
    typed = csa.to_fp16("csa_digits", keep_fp32=[fixed.graph.graph.node[0].name], workspace=place)
    assert typed.graph == kept.graph and typed.report == kept.report and len(typed.kept) >= 1
    assert set(place.stages) == {"export", "optimize", "repair", "check", "precision"}
    assert type(there).from_json(there.to_json()) == there


def test_a_module_that_runs_at_one_size_only_is_exported_at_it() -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 20 * 20, 4))
    assert csa.export(module, size=20).report.outputs[0].shape == (1, 4)
    module.preprocessing = {"size": (20, 20)}  # type: ignore[assignment]
    assert csa.export(module).report.outputs[0].shape == (1, 4)


def test_a_workspace_keeps_its_network(tmp_path: Path) -> None:
    first, second = (graph_with_relu(tmp_path / f"{name}.onnx") for name in ("one", "two"))
    csa.export(first, workspace=tmp_path / "w")
    before = (tmp_path / "w/records/export.json").read_bytes()
    for call in (csa.export, csa.optimize, csa.to_fp16):
        with pytest.raises(UsageError) as caught:
            call(second, workspace=tmp_path / "w")
        assert f"holds {first}, not {second}" in caught.value.message and "\n" not in str(caught.value)
    assert (tmp_path / "w/records/export.json").read_bytes() == before
    csa.optimize(os.path.relpath(first), workspace=tmp_path / "w")  # the same, its path written in another way


def test_errors_name_parameters_and_no_file_of_the_api() -> None:
    graph = graph_with_relu()
    given = {"x": np.ones((3, 4), "f4"), "boxes": np.zeros((2, 4), "f4")}
    for call, said in (
        (lambda: csa.compare(graph, [graph]), "give data= with a folder of images"),
        (lambda: csa.quantize(graph), "give calib= with a folder of images"),
        (lambda: csa.compare(graph, [graph], data=given), "the given arrays: has boxes, but no box_labels"),
        (lambda: list(csa.prove(graph, graph, given).rows()), "the given arrays: has boxes, but no box_labels"),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        text = str(caught.value)
        assert said in text and "--" not in text and ".npz:" not in text and "/tmp" not in text, text
    values = np.random.default_rng(0).standard_normal((30, 4)).astype("f4")
    found = csa.compare(graph, [csa.to_fp16(graph)], data=values, budget=["fp16.snr_db=900"])
    assert "budget=['fp16.snr_db=VALUE']" in found.failure and "--" not in found.failure + str(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("give --data or --no-localize", "give data= or localize=False"),
        ("with --strict", "with strict=True"),
        ("ask with --budget int8.mean_iou_agreement=0.9", "ask with budget=['int8.mean_iou_agreement=0.9']"),
        ("--keep-fp32, or", "keep_fp32=, or"),
        ("see `csa-deploy verify --localize`; --data DIR", "see `csa-deploy verify --localize`; data='DIR'"),
        ("--saveEngine is trtexec's", "--saveEngine is trtexec's"),
    ],
)
def test_flags_are_said_as_parameters(text: str, said: str) -> None:
    assert in_python(text) == said


def test_a_graph_and_an_engine_side_by_side_have_one_reason() -> None:
    graph = graph_with_relu()
    engine = csa.Built("net", "fp32", "tensorrt", {}, None, engine=b"", model=graph)  # type: ignore[arg-type]
    found = csa.profile([graph, engine], iterations=3)
    engines = [item for item in found.not_measured if item.what.startswith("engine")]
    assert [(item.what, item.reason) for item in engines] == [("engine fp32", "engines are timed in a workspace")]
    assert found.report is not None and found.report.not_measured == found.not_measured


def graph_with_relu(path: Path | None = None) -> Any:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", values[:1], values[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if path is None:
        return model
    onnx.save(model, path)
    return str(path)
