"""Parts of the page that a plain run does not have: calibration, blame, ceilings, history, limits."""

from __future__ import annotations

import copy
import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from csa_deploy.report.charts import accuracy, latency, layers
from csa_deploy.report.charts.network import layout, network
from csa_deploy.report.charts.svg import Scale
from csa_deploy.report.extras import history, remember
from csa_deploy.report.page import render
from csa_deploy.report.views import modules, nodes, slowest
from csa_deploy.workspace import StageOutput, Workspace


@pytest.fixture()
def data(digits: Any) -> dict[str, Any]:
    return copy.deepcopy(json.loads((digits.root / "report.json").read_text()))


def test_calibration_shows_thresholds_and_what_they_clip(data: dict[str, Any]) -> None:
    tensor = {
        "name": "stem/out",
        "largest": 6.5,
        "thresholds": {"minmax": 6.5, "entropy": 4.2},
        "clipped": {"entropy": 0.0123},
        "histogram": {"width": 0.125, "counts": [1000, 10, 0, 3] + [1] * 60},
    }
    data["calibration"] = {"data": "photos", "method": "entropy", "images": 64, "count": 9, "tensors": [tensor]}
    page = render(data, {})
    assert "9 tensors over 64 images of photos" in page
    assert "stem/out" in page and "1.2300 %" in page and "entropy 4.2" in page


def test_blame_is_a_table_and_colours_the_graph(data: dict[str, Any]) -> None:
    label = "fp16"
    module = next(n["module"] for n in nodes(data, label) if n["module"])
    row = {"module": module, "error_in": 1e-3, "error_out": 2e-2, "error_added": 2e-2, "restored_snr_db": 71.0}
    found = {"candidate": label, "statement": "one module", "culprits": [module], "rows": [{**row, "clipped": 0.0}]}
    data["records"]["verify"]["localization"] = [found]
    page = render(data, {})
    assert "to blame" in page and 'data-error="0.02"' in page and '<option value="error">' in page


def test_ceilings_and_floor_where_a_gpu_was(data: dict[str, Any]) -> None:
    ceilings = {"device": "GPU", "operations_per_second": {"fp32": 5e13, "fp16": 2e14}, "bytes_per_second": 1e12}
    floor = dict.fromkeys(("exported", "fp32", "fp16"), 0.25)
    data["measurements"]["profile"]["roofline"] = {"ceilings": ceilings, "floor_ms": floor}
    page = render(data, {})
    assert "GPU reached 50000 billion operations per second in fp32" in page and "floor time there is 0.25 ms" in page
    assert "not to be held against it" in page  # times are the CPU's


def test_limits_and_history_are_shown(data: dict[str, Any]) -> None:
    gate = {"label": "fp32", "quantity": "p50_ms", "bound": 1.0, "value": 2.0, "low": 1.9, "high": 2.1}
    data["measurements"]["profile"]["gates"] = [{**gate, "verdict": "fail", "reason": ""}]
    entry = {"at": "2026-01-01T00:00:00", "verdict": "pass", "host": "cpu", "median_ms": {"fp32": 1.0}}
    data["history"] = [entry, {**entry, "at": "2026-01-02T00:00:00", "median_ms": {"fp32": 2.0}}]
    page = render(data, {})
    assert "Over 2 runs of this workspace" in page and "1.9 to 2.1" in page


def test_history_remembers_each_profile_once(tmp_path: Any) -> None:
    workspace = Workspace(tmp_path)
    for at in ("1", "2", "2"):
        measured = {"started_at": at, "host": {"cpu": "c"}, "latency": {"fp32": {"percentiles_ms": {"50": 1.0}}}}
        workspace.commit("profile", at, StageOutput({"summary": ""}, measured=measured))
        remember(workspace, "pass")
    assert [entry["at"] for entry in history(workspace)] == ["1", "2"]


def test_layers_are_ordered_and_add_up(data: dict[str, Any]) -> None:
    rows = slowest(data, "fp32")
    times = [row["time_us"] or 0.0 for row in rows]
    assert times == sorted(times, reverse=True)
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    assert sum(m["macs"] for m in modules(data, "fp32")) == sum(row["macs"] for row in rows)


def test_the_graph_has_every_node_in_a_place_of_its_own(data: dict[str, Any]) -> None:
    rows = nodes(data, "fp16")
    places, width, height = layout(rows)
    assert set(places) == {row["name"] for row in rows}
    assert len(set(places.values())) == len(places)
    assert all(0 <= x < width and 0 <= y < height for x, y in places.values())


def test_names_from_outside_are_text_in_charts(data: dict[str, Any]) -> None:
    evil = '"><script>x</script>&'
    rows = [{**row, "module": evil, "op": evil, "name": f"{evil}{i}"} for i, row in enumerate(slowest(data, "fp32"))]
    rows = [{**row, "inputs": []} for row in rows]
    found = {evil: data["measurements"]["profile"]["latency"]["fp32"]}
    for drawn in (network(rows), layers.bars(rows), layers.roofline(rows), latency.distributions(found)):
        assert "<script" not in drawn
        ElementTree.fromstring(drawn)  # well formed


def test_charts_of_nothing_are_nothing() -> None:
    assert (
        accuracy.errors([]) == accuracy.pareto([]) == layers.bars([]) == latency.distributions({}) == network([]) == ""
    )
    assert latency.trend([]) == latency.growth([], "batch", "batch") == ""


def test_scales_end_where_they_say() -> None:
    for scale in (Scale(0, 7, 10, 110), Scale(0.01, 50, 10, 110, True), Scale(1.0, 1.5, 10, 110, True)):
        assert (scale(scale.low), scale(scale.high)) == (10, 110)
        ticks = scale.ticks()
        assert 1 <= len(ticks) <= 10 and all(scale.low <= t <= scale.high for t in ticks)
