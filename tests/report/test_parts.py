"""Parts of the page that a plain run does not have: calibration, blame, ceilings, history, limits."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from csa_deploy.profile.statistics import summarise
from csa_deploy.records.check import Finding, ScopeRecord
from csa_deploy.records.localization import Localization, ModuleError
from csa_deploy.records.precision import Int8Graph, SearchPoint
from csa_deploy.records.report import ReportData, ReportRecord
from csa_deploy.report import page as page_module
from csa_deploy.report.charts import accuracy, latency, layers, precision
from csa_deploy.report.charts.network import layout, network
from csa_deploy.report.charts.svg import Scale
from csa_deploy.report.page import page_of, render
from csa_deploy.report.side_files import history, remember
from csa_deploy.report.views import blame, by_rule, drawn, modules, nodes, profiled, slowest
from csa_deploy.results import jsonable
from csa_deploy.workspace import StageOutput, Workspace


@pytest.fixture()
def data(digits: Any) -> dict[str, Any]:
    return copy.deepcopy(json.loads((digits.root / "report.json").read_text()))


typed = ReportData.from_json


def test_calibration_shows_thresholds_and_what_they_clip(data: dict[str, Any]) -> None:
    tensor = {
        "name": "stem/out",
        "largest": 6.5,
        "thresholds": {"minmax": 6.5, "entropy": 4.2},
        "clipped": {"entropy": 0.0123},
        "histogram": {"width": 0.125, "counts": [1000, 10, 0, 3] + [1] * 60},
    }
    data["calibration"] = {"data": "photos", "method": "entropy", "images": 64, "count": 9, "tensors": [tensor]}
    page = render(typed(data), {})
    assert "9 tensors over 64 images of photos" in page
    assert "stem/out" in page and "1.2300 %" in page and "entropy 4.2 (used)" in page and "minmax 6.5<" in page


def test_names_of_thresholds_stand_one_above_the_other() -> None:
    thresholds = {f"method {i}": 1.0 + i / 100 for i in range(6)}
    drawn = precision.calibration({"width": 0.1, "counts": [5] * 12}, thresholds, "method 3")
    heights = re.findall(r'y="(\d+)" class="mark"', drawn)
    assert len(set(heights)) == len(heights) == 6 and "method 3 1.03 (used)" in drawn


def int8_record(data: dict[str, Any]) -> dict[str, Any]:
    """What the precision stage records of an INT8 graph, with a search that returned two of three layers."""
    point = {"metrics": {"snr_db": 15.5, "cosine": 0.97}, "broken": ["snr_db"], "latency_ms": 0.5, "returned": 0}
    chosen = {"metrics": {"snr_db": 21.25, "cosine": 0.99}, "broken": [], "latency_ms": 0.7, "returned": 2}
    layer = {"op": "Conv", "rank": 1.0, "saved": 2e-6, "measured": 0.5, "estimated": 0.25}
    search = {
        "pareto": [point, chosen],
        "sensitivities": [{**layer, "name": name} for name in ("a", "b", "c")],
        "estimate_agrees": 0.5,
        "returned": ["a", "b"],
        "images": 1,
        "budget": {"snr_db": 20.0, "top1_drop": 0.01},
        "device": "Orin",
    }
    tried = {
        "bias_correction": {"used": True, "snr_db_without": 20.0, "snr_db_with": 21.25, "reason": "2 biases"},
        "equalization": {"used": False, "reason": "no pairs of layers"},
    }
    typed = data["records"]["precision"]["precisions"]["fp16"]
    statistics, graph = typed["statistics"], typed["graph"]
    return {
        "graph": graph, "statistics": statistics, "int8": [{"name": "c", "op": "Conv", "activations": {"0": "x"}}],
        "kept": [], "rest": "fp16", "search": search, "techniques": tried, "key": "", "cache": "", "equalized": None,
        "kept_floating": {}, "scales": {}, "notes": [], "estimated_latency_ms": {}, "cost_unknown": [],
    }  # fmt: skip


def test_the_search_shows_what_it_measured_and_chose(data: dict[str, Any]) -> None:
    data["records"]["precision"]["precisions"]["int8"] = int8_record(data)
    page = render(typed(data), {})
    assert "1 layer in INT8, 2 returned to FP16" in page and "holds on 1 calibration image." in page
    assert "snr_db at least 20" in page and "top1_drop at most 0.01" in page
    assert "budget: 20 dB" in page and "2 layers in floating point: 21.2 dB, 0.7000 ms (estimated)" in page
    assert "Sensitivity of 3 layers" in page


def test_the_search_shows_every_bound_and_names_what_it_did_not_judge(data: dict[str, Any]) -> None:
    int8 = int8_record(data)
    search = int8["search"]
    search |= {
        "outputs": 6,
        "not_judged": {"top1_drop": "the data have no labels"},
        "budget": {"mean_iou_agreement": 0.8},
    }
    for point, iou in zip(search["pareto"], (0.52, 0.81), strict=True):
        point["metrics"]["mean_iou_agreement"] = iou
    search["pareto"][0]["broken"] = ["mean_iou_agreement of 'seg' is 0.52, bound 0.8"]
    data["records"]["precision"]["precisions"]["int8"] = int8
    page = render(typed(data), {})
    assert "on each of 6 outputs" in page and "mean_iou_agreement at least 0.8" in page
    assert "Not judged in the search: top1_drop" in page and "the data have no labels" in page
    assert (
        ">0.52</td>" in page
        and ">0.81</td>" in page
        and "mean_iou_agreement of &#39;seg&#39; is 0.52, bound 0.8" in page
    )


def test_techniques_state_their_gain_or_why_they_are_off(data: dict[str, Any]) -> None:
    data["records"]["precision"]["precisions"]["int8"] = int8_record(data)
    tried = Int8Graph.from_json(data["records"]["precision"]["precisions"]["int8"]).techniques
    on, off = tried["bias_correction"], tried["equalization"]
    assert (on.used, on.gain) == (True, 1.25)
    assert (off.used, off.gain, off.reason) == (False, None, "no pairs of layers")
    page = render(typed(data), {})
    assert "+1.25 dB" in page and "no pairs of layers" in page


def test_a_search_that_was_switched_off_says_so(data: dict[str, Any]) -> None:
    int8 = {**int8_record(data), "search": {"not_done": "switched off with --no-search"}}
    data["records"]["precision"]["precisions"]["int8"] = int8
    assert "The search was not done: switched off with --no-search." in render(typed(data), {})


def test_a_plot_of_choices_needs_two() -> None:
    point = SearchPoint(0, {"snr_db": 30.0}, (), 1.0)
    assert precision.choices([point], point, 20.0) == ""
    plot = precision.choices([point, replace(point, returned=1, broken=("snr_db",), latency_ms=2.0)], point, None)
    assert plot.count("<circle") == 2 and plot.count("broken") == 1 and "chosen" in plot


def test_findings_of_several_scopes_are_one_row() -> None:
    words = ("layer", "op", "since", "evidence", "source", "instead", "repair")
    finding = Finding(rule="r", verdict="denied", module="a.b", node="n", message="m", **dict.fromkeys(words, ""))

    def scope(name: str, *findings: Finding) -> ScopeRecord:
        return ScopeRecord(name, "", "", "", nodes=1, layers=1, findings=findings)

    scopes = [
        scope("one", finding, replace(finding, node="other")),
        scope("two", finding, finding),
        scope("three", replace(finding, module="c"), replace(finding, verdict="note")),
    ]
    rows = by_rule(scopes)
    assert [(r.finding.verdict, r.scopes, r.places) for r in rows] == [
        ("denied", ["one", "two"], ("a.b",)),
        ("denied", ["three"], ("c",)),
        ("note", ["three"], ("a.b",)),
    ]


def test_the_drawing_reads_past_quantization(data: dict[str, Any]) -> None:
    cost = data["records"]["profile"]["cost"]
    node = {"module": "m", "precision": "fp16", "macs": 0, "operations": 0, "bytes": 1, "shape": [1], "intensity": 0}
    names = [("x", "Conv", []), ("q", "QuantizeLinear", ["x"]), ("d", "DequantizeLinear", ["q"]), ("y", "Conv", ["d"])]
    read_by = [{**node, "name": n, "op": op, "inputs": read} for n, op, read in names]
    cost["int8"] = {**cost["fp16"], "nodes": read_by}
    assert profiled(typed(data))[0] == "int8" and "exported" not in profiled(typed(data))
    assert [(r.name, r.inputs) for r in drawn(typed(data), "int8")] == [("x", ()), ("y", ("x",))]


def test_layers_of_an_engine_are_held_against_the_ceilings(data: dict[str, Any]) -> None:
    layer = {"name": "fused", "time_us": 50.0, "share": 1.0, "nodes": ["a", "b"], "modules": ["stem", "head"]}
    more = {"mapped_by": "metadata", "operations": 10**9, "bytes": 10**6, "precision": "fp16", "floor_us": 5.0}
    copy = {**layer, "name": "copy", "nodes": [], "modules": [], "operations": None, "bytes": None, "precision": ""}
    copy["mapped_by"] = "nothing"
    measured = data["measurements"]["profile"]
    found = {"memory": None, "layers_method": "profiler", "layers": [{**copy, "floor_us": None}, {**layer, **more}]}
    measured["engines"] = {"engine fp16": found, "engine fp32": {**found, "layers": None}}
    ceilings = {"device": "GPU", "operations_per_second": {"fp16": 2e14}, "bytes_per_second": 1e12}
    measured["roofline"] = {"ceilings": ceilings, "floor_ms": {}}
    page = render(typed(data), {})
    assert "Layers of engine fp16" in page and "Layers of engine fp32" not in page
    assert "stem, head" in page and "10.00 %" in page and "fp16 peak" in page


def test_blame_is_a_table_and_colours_the_graph(data: dict[str, Any]) -> None:
    label = "fp16"
    module = next(n.module for n in nodes(typed(data), label) if n.module)
    row = ModuleError(module, error_in=1e-3, error_out=2e-2, error_added=2e-2, restored_snr_db=71.0, clipped=0.0)
    found = Localization(label, "fp32", ("a",), 20.0, (row,), (module,), "one module")
    data["records"]["verify"]["localization"] = [jsonable(found)]
    page = render(typed(data), {})
    assert "to blame" in page and 'data-error="0.02"' in page and '<option value="error">' in page


def test_graphs_with_a_culprit_come_first(data: dict[str, Any]) -> None:
    found = [Localization(name, "", (), None, (), blamed, "") for name, blamed in (("fp32", ()), ("x.onnx", ("stem",)))]
    data["records"]["verify"]["localization"] = jsonable(found)
    assert [explained.candidate for explained in blame(typed(data))] == ["x.onnx", "fp32"]


def test_a_page_that_would_be_too_large_draws_one_graph(data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = page_of(typed(data), {})
    assert whole.count('class="network"') == 2 and "Not shown, to keep" not in whole
    monkeypatch.setattr(page_module, "MOST_BYTES", len(whole.encode()))
    small = page_of(typed(data), {})
    assert small.count('class="network"') == 1 and "Not shown, to keep the page below 3 MB: fp32 graph." in small


def test_ceilings_and_floor_where_a_gpu_was(data: dict[str, Any]) -> None:
    ceilings = {"device": "GPU", "operations_per_second": {"fp32": 5e13, "fp16": 2e14}, "bytes_per_second": 1e12}
    floor = dict.fromkeys(("exported", "fp32", "fp16"), 0.25)
    data["measurements"]["profile"]["roofline"] = {"ceilings": ceilings, "floor_ms": floor}
    page = " ".join(render(typed(data), {}).split())
    assert "GPU reached 50000 billion operations per second in fp32" in page and "floor time there is 0.25 ms" in page
    assert "not to be held against it" in page  # times are the CPU's


def test_limits_and_history_are_shown(data: dict[str, Any]) -> None:
    gate = {"label": "fp32", "quantity": "p50_ms", "bound": 1.0, "value": 2.0, "low": 1.9, "high": 2.1}
    data["measurements"]["profile"]["gates"] = [{**gate, "verdict": "fail", "reason": ""}]
    entry = {"at": "2026-01-01T00:00:00", "verdict": "pass", "host": "cpu", "median_ms": {"fp32": 1.0}}
    data["history"] = [entry, {**entry, "at": "2026-01-02T00:00:00", "median_ms": {"fp32": 2.0}}]
    page = render(typed(data), {})
    assert "Over 2 runs of this workspace" in page and "1.9 to 2.1" in page


def test_history_remembers_each_profile_once(tmp_path: Any) -> None:
    workspace = Workspace(tmp_path)
    for at in ("1", "2", "2"):
        measured = {"started_at": at, "host": {"cpu": "c"}, "latency": {"fp32": summarise([1.0]).to_json()}}
        workspace.commit("profile", at, StageOutput(ReportRecord(summary=""), measured=measured))
        remember(workspace, "pass")
    assert [entry.at for entry in history(workspace)] == ["1", "2"]


def test_layers_are_ordered_and_add_up(data: dict[str, Any]) -> None:
    rows = slowest(typed(data), "fp32")
    times = [row.time_us or 0.0 for row in rows]
    assert times == sorted(times, reverse=True)
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert sum(m.macs or 0 for m in modules(typed(data), "fp32")) == sum(row.macs or 0 for row in rows)


def test_what_one_layer_does_not_know_its_module_does_not_know(data: dict[str, Any]) -> None:
    cost = data["records"]["profile"]["cost"]["fp32"]["nodes"]
    heaviest = max(cost, key=lambda node: node["macs"])
    known = heaviest["macs"]
    heaviest["macs"] = None
    found = {row.module: row.macs for row in modules(typed(data), "fp32", depth=9)}
    assert found[heaviest["module"]] is None and sum(macs is None for macs in found.values()) == 1
    data["measurements"]["profile"]["layers"].pop("fp32")
    assert slowest(typed(data), "fp32")[-1].name == heaviest["name"] and known > 0
    assert all(row.time_us is None for row in modules(typed(data), "fp32"))


def test_the_graph_has_every_node_in_a_place_of_its_own(data: dict[str, Any]) -> None:
    rows = nodes(typed(data), "fp16")
    places, width, height = layout(rows)
    assert set(places) == {row.name for row in rows}
    assert len(set(places.values())) == len(places)
    assert all(0 <= x < width and 0 <= y < height for x, y in places.values())


def test_names_from_outside_are_text_in_charts(data: dict[str, Any]) -> None:
    evil = '"><script>x</script>&'
    found = slowest(typed(data), "fp32")
    rows = [replace(row, module=evil, op=evil, name=f"{evil}{i}", inputs=()) for i, row in enumerate(found)]
    timed = {evil: summarise([1.0, 2.0])}
    modules_rows = [ModuleError(evil, e, e, e) for e in (1e-3, 1e-2)]
    for chart in (
        network(rows),
        layers.bars(rows, "here"),
        layers.roofline(rows),
        latency.distributions(timed),
        accuracy.blame(modules_rows, []),
    ):
        assert "<script" not in chart
        ElementTree.fromstring(chart)  # well formed


@pytest.mark.parametrize("count", [5, 50, 1500])
def test_the_slowest_inference_is_drawn_once(count: int) -> None:
    samples = np.random.default_rng(count).uniform(1.0, 2.0, count)
    samples[1] = 9.0  # not among every k-th
    drawn = latency.distributions({"fp32": summarise(samples)})
    places = re.findall(r'cx="([\d.]+)"', drawn)
    assert places.count(max(places, key=float)) == 1
    assert len(places) == (count if count < 600 else 501)
    assert ('class="interval"' in drawn) == (count >= 7)


def test_charts_of_nothing_are_nothing() -> None:
    assert (
        accuracy.errors([])
        == accuracy.pareto([])
        == layers.bars([], "")
        == latency.distributions({})
        == network([])
        == ""
    )
    assert latency.trend([]) == latency.growth([], "batch", "batch") == ""


def test_scales_end_where_they_say() -> None:
    for scale in (Scale(0, 7, 10, 110), Scale(0.01, 50, 10, 110, True), Scale(1.0, 1.5, 10, 110, True)):
        assert (scale(scale.low), scale(scale.high)) == (10, 110)
        ticks = scale.ticks()
        assert 1 <= len(ticks) <= 10 and all(scale.low <= t <= scale.high for t in ticks)
