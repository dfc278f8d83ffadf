"""The page shows the numbers of report.json and nothing of what comes from outside as markup."""

from __future__ import annotations

import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest
from rich.console import Console

from csa_deploy.records.report import Records, ReportData
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.report.console import show, timings
from csa_deploy.report.data import ORDER, collect, rows
from csa_deploy.report.page import embedded, render
from csa_deploy.stages import STAGES
from csa_deploy.units import decibel, giga, milliseconds, percent, scientific, size
from csa_deploy.workspace import Workspace


class Page(HTMLParser):
    """Tags, addresses and text of a page; fails on tags that do not close."""

    VOID = ("meta", "img", "br", "link", "input", "hr", "path", "circle", "rect", "line", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        # Scripts and data hold "<" of their own; the page has exactly these two.
        self.scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
        text = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.S)
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            while (last := self.open.pop()) != tag:
                assert last in ("li", "td", "tr", "p", "th"), (last, tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def data(digits: Any) -> dict[str, Any]:
    return json.loads((digits.root / "report.json").read_text())


@pytest.fixture(scope="module")
def page(digits: Any) -> Page:
    return Page((digits.root / "report.html").read_text())


@pytest.mark.shows("MEA-40")
def test_the_data_are_what_the_stages_recorded(digits: Any, data: dict[str, Any]) -> None:
    assert data["schema_version"] == 1 and data["network"] == "csa_digits"
    for stage, record in data["records"].items():
        assert record == digits.record(stage)
    assert [stage["name"] for stage in data["stages"]] == [name for name in ORDER if not STAGES[name].when]
    for stage in data["stages"]:
        assert stage["state"] in ("done", "not run") and (stage["seconds"] is None) == (stage["state"] == "not run")
    assert data["verdict"]["state"] in ("pass", "incomplete")


def test_the_page_shows_every_row_of_the_data(data: dict[str, Any], page: Page) -> None:
    assert len(data["rows"]) >= 3
    for row in data["rows"]:
        assert row["path"] in page.text
        if not row["label"].startswith("engine"):
            assert giga(row["macs"]) in page.text and size(row["bytes"]) in page.text
            assert decibel(row["metrics"]["snr_db"]) in page.text
            assert scientific(row["metrics"]["max_abs_error"]) in page.text
            assert percent(row["metrics"]["top1"]) in page.text
            assert milliseconds(row["latency_ms"]["50"]) in page.text
    assert data["verdict"]["state"].upper() in page.text


@pytest.mark.shows("MEA-40", "ERR-25")
def test_the_page_gives_the_reason_for_what_is_missing(data: dict[str, Any], page: Page) -> None:
    for item in data["not_measured"]:
        assert item["what"] in page.text and item["reason"] in page.text
    assert "not the target's latency" in page.text


def test_the_page_stands_alone(page: Page) -> None:
    assert len(page.scripts) == 2 and "script" not in page.tags
    assert page.addresses and all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"https?://|@import|import\(|fetch\(|XMLHttp", page.scripts[1])


def test_the_page_carries_the_data_that_it_shows(data: dict[str, Any], page: Page) -> None:
    assert json.loads(page.scripts[0]) == data


def test_the_page_is_below_three_megabytes(digits: Any) -> None:
    assert (digits.root / "report.html").stat().st_size < 3e6


def test_worst_samples_are_shown_as_pictures(data: dict[str, Any], page: Page) -> None:
    for candidate in data["records"]["verify"]["candidates"]:
        assert candidate["outputs"][0]["worst"][0]["id"] in page.text
    assert len(page.addresses) >= 6


def test_a_graph_that_the_user_named_has_its_row(digits: Any) -> None:
    verified = Workspace(digits.root).read(VerifyRecord)
    named = replace(verified.candidates[0], label="mine.onnx", path="mine.onnx")
    (row,) = rows(Records(verify=replace(verified, candidates=(named,))), None, [], {})
    assert (row.label, row.path, row.verify) == ("mine.onnx", "mine.onnx", named.verdict)
    assert row.metrics == named.outputs[0].metrics


def replaced(value: Any, old: str, new: str) -> Any:
    return json.loads(json.dumps(value).replace(old, json.dumps(new)[1:-1]))


def test_names_from_outside_are_text(data: dict[str, Any]) -> None:
    evil = "<script>alert('x')</script>"
    worst = data["records"]["verify"]["candidates"][0]["outputs"][0]["worst"][0]["id"]
    hostile = replaced(replaced(data, "csa_digits", evil), worst, '"><img src=x onerror=alert(1)>')
    text = render(ReportData.from_json(hostile), {})
    assert evil not in text and html.escape("<script>") in text and "<img src=x" not in text
    assert "script" not in Page(text).tags and len(Page(text).scripts) == 2 and "alert('x')" in Page(text).text


def test_embedded_data_cannot_end_their_script() -> None:
    data = {"a": "</script><!--<script>", "b": "&lt;"}
    text = embedded(data)
    assert "<" not in text and "&" not in text and json.loads(text) == data


def test_a_network_named_script_in_the_terminal_and_on_the_page(lab: Path, csa: Any) -> None:
    name = "[red]<script>.onnx"
    (lab / name).write_bytes((lab / "tiny.onnx").read_bytes())
    for verb in (("verify", name, "--data", "x.npz", "-w", "w"), ("report", name, "-w", "w")):
        done = csa(lab, *verb)
        assert done.returncode == 0, done.stderr
    assert name in done.stdout
    text = (lab / "w/report.html").read_text()
    assert len(Page(text).scripts) == 2 and "&lt;script&gt;" in text
    assert "agrees with the source graph" in text and "agrees with PyTorch" not in text


def test_an_incomplete_workspace_says_what_was_not_run(lab: Path, csa: Any) -> None:
    assert csa(lab, "export", "tiny.onnx").returncode == 0
    done = csa(lab, "report", "tiny.onnx")
    assert done.returncode == 0 and "INCOMPLETE" in done.stdout and "verify was not run" in done.stdout
    report = json.loads((lab / "deploy/tiny/report.json").read_text())
    assert report["verdict"]["state"] == "incomplete" and len(report["verdict"]["reasons"]) == 6
    Page((lab / "deploy/tiny/report.html").read_text())


@pytest.mark.parametrize("form", ["json", "html"])
def test_output_goes_where_it_was_asked_to(digits: Any, csa: Any, tmp_path: Path, form: str) -> None:
    target = tmp_path / "deep" / f"r.{form}"
    done = csa(digits.cwd, "report", "csa_digits", "--format", form, "-o", target)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == (digits.root / f"report.{form}").read_bytes()


def test_every_verb_shows_its_end(digits: Any) -> None:
    workspace = Workspace(digits.root)
    for names in (["export"], ["optimize"], ["verify"], ["profile"], ["report"]):
        console = Console(width=150, record=True, file=io.StringIO())
        show(workspace, names, console)
        text = console.export_text()
        assert text.strip() and "[/" not in text
    assert "csa_digits on 20 samples of digits" in text and "PyTorch fp32" in text
    assert re.search(r"^PASS|^INCOMPLETE", text, re.M)


@pytest.mark.parametrize("shown", ["12.50 ms", "-"])
def test_a_percentile_that_an_older_run_did_not_measure_is_a_gap(digits: Any, shown: str) -> None:
    data = collect(Workspace(digits.root))
    measured = json.loads(json.dumps(data.measurements))
    for found in measured["profile"]["latency"].values():
        found["too_few"].pop("90", None)
        found["percentiles_ms"].pop("90")
        found["percentiles_ms"].update({"90": 12.5} if shown != "-" else {})
    data, console = replace(data, measurements=measured), Console(width=200, record=True, file=io.StringIO())
    timings(data, console)
    heads, row = (
        [cell.strip() for cell in re.split("[│┃]", line)] for line in console.export_text().splitlines()[2:5:2]
    )
    assert row[heads.index("p90")] == shown and heads[4:8] == ["p90", "p95", "p99", "p99.9"]
    table = re.search(r'<table aria-label="latency">.*?</table>', render(data, {}), re.DOTALL)
    assert table is not None
    heads, row = (re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", table[0], re.DOTALL) for tag in ("th", "td"))
    assert row[heads.index("p90")] == shown and heads[3:7] == ["p90", "p95", "p99", "p99.9"]


def test_collecting_computes_nothing_anew(digits: Any, data: dict[str, Any]) -> None:
    text = json.dumps(collect(Workspace(digits.root)).to_json(), default=str)
    found = json.loads(text.replace(f" --workspace {digits.root}", ""))  # the run had its usual place and names none
    for key in ("rows", "verdict", "records", "not_measured"):
        assert found[key] == data[key]


def test_the_model_of_the_page_is_the_artifact(digits: Any, data: dict[str, Any]) -> None:
    exported = next(row for row in data["rows"] if row["label"] == "exported")
    weights = sum(len(t.raw_data) for t in onnx.load(digits.root / exported["path"]).graph.initializer)
    assert exported["bytes"] == weights
