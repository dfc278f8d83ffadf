"""The kit: what is installed, the results of a run, the folder and its page."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import re
import shutil
from html.parser import HTMLParser
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from csa_deploy.cli.main import app
from csa_deploy.confidence.kit import ConfidenceKit, JudgedWorkspace, print_page, write_kit
from csa_deploy.confidence.outcomes import TestResults, read_results, unstated_skips
from csa_deploy.confidence.packages import InstalledPackage, installed_packages
from csa_deploy.confidence.page import page_of_kit
from csa_deploy.confidence.schema import tool_confidence
from csa_deploy.confidence.trace import ShowingTest, Trace, packaged_trace
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.records.report import GateState

PACKAGES = (InstalledPackage("csa-deploy", "0.1.0", "ab" * 32, 3, 0), InstalledPackage("numpy", "2.0", "cd" * 32, 9, 1))
TESTS = Trace(
    {
        name: ShowingTest(name, shows, needs)
        for name, shows, needs in (
            ("tests/a/test_b.py::test_passes", ("MEA-01", "ERR-01"), ""),
            ("tests/a/test_b.py::test_fails", ("MEA-01",), ""),
            ("tests/a/test_b.py::test_needs", ("MEA-02",), "a device"),
            ("tests/a/test_b.py::test_silent", ("MEA-02",), ""),
            ("tests/a/test_b.py::test_elsewhere", ("MEA-03",), ""),
        )
    }
)
RESULTS = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" timestamp="2026-11-29T08:00:00+00:00">
<testcase classname="tests.a.test_b" name="test_passes[one]"><properties><property name="shows" value="MEA-01"/>
<property name="shows" value="ERR-01"/></properties></testcase>
<testcase classname="tests.a.test_b" name="test_passes[two]"><properties><property name="shows" value="ERR-01"/>
<property name="shows" value="MEA-01"/></properties></testcase>
<testcase classname="tests.a.test_b" name="test_fails[one]"><properties>
<property name="shows" value="MEA-01"/></properties></testcase>
<testcase classname="tests.a.test_b" name="test_fails[two]">
<failure message="assert 1 ==&#10;  2">long</failure></testcase>
<testcase classname="tests.a.test_b" name="test_needs"><skipped message="no device"/></testcase>
<testcase classname="tests.a.test_b" name="test_silent"><skipped message="why not"/></testcase>
<testcase classname="tests.a.test_other" name="test_of_nothing"/>
</testsuite></testsuites>"""


@pytest.fixture()
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.xml"
    path.write_text(RESULTS)
    return path


def kit_of(trace: Trace | None = None, results: TestResults | None = None, **more: Any) -> ConfidenceKit:
    found = results or TestResults()
    return ConfidenceKit(tool_confidence(), trace or packaged_trace(), found, PACKAGES, "2026-11-29 08:00 UTC", **more)


def test_results_are_those_of_the_worst_parameter(results: Path) -> None:
    found = read_results(results, TESTS)
    assert {name.partition("::")[2]: (r.outcome, r.cases, r.reason) for name, r in found.found.items()} == {
        "test_passes": ("passed", 2, ""),
        "test_fails": ("failed", 2, "assert 1 == 2"),
        "test_needs": ("skipped", 1, "no device"),
        "test_silent": ("skipped", 1, "why not"),
    }
    assert found.sha256 == hashlib.sha256(RESULTS.encode()).hexdigest()
    assert found.when == "2026-11-29T08:00:00+00:00"
    assert list(unstated_skips(TESTS, found)) == ["tests/a/test_b.py::test_silent"]


@pytest.mark.shows("MEA-43", "ERR-36")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            RESULTS.replace('<properties>\n<property name="shows" value="MEA-01"/></properties>', ""),
            "test_fails shows nothing there and MEA-01 here",
        ),
        (RESULTS.replace('value="ERR-01"', 'value="ERR-02"'), "shows ERR-02, MEA-01 there and MEA-01, ERR-01 here"),
        (
            RESULTS.replace('classname="tests.a.test_b"', 'classname="tests.a.test_c"'),
            "no test of this version's trace",
        ),
        ("<testsuites", "no XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><testsuites/>', "declares a document type"),
    ],
)
def test_results_of_something_else_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.xml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(said)):
        read_results(tmp_path / "r.xml", TESTS)


def test_a_missing_file_of_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_results(tmp_path / "none.xml", TESTS)


def test_words_of_results(results: Path) -> None:
    kit = kit_of(TESTS, read_results(results, TESTS))
    said = {test.id.partition("::")[2]: kit.said_of(test) for test in TESTS.tests.values()}
    assert said == {
        "test_passes": "passed (2 cases)",
        "test_fails": "failed (2 cases): assert 1 == 2",
        "test_needs": "skipped: no device",
        "test_silent": "skipped: why not",
        "test_elsewhere": "not run",
    }
    against = [error.id for error in tool_confidence().errors if "MEA-01" in error.measures]
    assert kit.unsupported == against != [] and kit_of(TESTS).unsupported == []
    assert "Tests failed in this run" in page_of_kit(kit) and "3 of 5 tests are such" in page_of_kit(kit)
    assert kit.shown_by("MEA-01") == "2 tests: 1 failed, 1 passed"
    assert "not run: give --results" in page_of_kit(kit_of()) and "not run: give" not in page_of_kit(kit)
    assert kit_of(TESTS).shown_by("MEA-03") == "1 test: 1 not run"


@pytest.mark.slow  # hashes all that is installed, PyTorch as well
@pytest.mark.shows("MEA-43")
def test_hashes_are_over_what_record_states() -> None:
    """Read once more, by hand: RECORD is a table of path, hash and size."""
    found = {package.name: package for package in installed_packages()}
    jinja = next(found[name] for name in found if name.lower() == "jinja2")
    record = metadata.distribution("jinja2").read_text("RECORD") or ""
    rows = [row for row in csv.reader(record.splitlines()) if row and row[1] and not row[0].endswith(".pyc")]
    lines = sorted(f"{path} {stated.partition('=')[2]}\n" for path, stated, _ in rows if "INSTALLER" not in path)
    lines = [
        line for line in lines if not line.startswith("..") and "REQUESTED" not in line and "direct_url" not in line
    ]
    assert jinja.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest() and jinja.files == len(lines) > 20
    assert jinja.version == metadata.version("jinja2") and jinja.changed == 0
    assert next(iter(found)) == "csa-deploy" and {"numpy", "onnx", "torch", "onnxruntime"} <= set(found)
    assert not {"pytest", "mypy", "ruff"} & set(found), "what only the development needs is no part of the tool"


# Packages bring the backport for Python 3.11 only.
@pytest.mark.parametrize("backport", [False, *([True] if find_spec("importlib_metadata") else [])])
@pytest.mark.shows("MEA-43", "ERR-36")
def test_a_file_that_was_changed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backport: bool) -> None:
    from csa_deploy.confidence import packages

    if backport:  # a package that is loaded may bring its finder, which leaves out missing files
        importlib.import_module("importlib_metadata")

    info = tmp_path / "thing-1.0.dist-info"
    info.mkdir()
    (tmp_path / "thing.py").write_text("a = 1\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    stated = "J9yv_p9nOyWxHbLjvX5vO6fWb5-9zB6-8mgbSFgN9t4"
    (info / "RECORD").write_text(f"thing.py,sha256={stated},6\nthing-1.0.dist-info/RECORD,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = packages._described(metadata.distribution("thing"))
    assert (found.files, found.changed) == (1, 1)
    right = packages._digest(tmp_path / "thing.py")
    (info / "RECORD").write_text(f"thing.py,sha256={right},6\n")
    assert packages._described(metadata.distribution("thing")).changed == 0
    (tmp_path / "thing.py").unlink()
    assert packages._described(metadata.distribution("thing")).changed == 1


class Cells(HTMLParser):
    """Text of every cell, paragraph, item and heading of a page; ids and targets of links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[list[str]] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.targets: set[str] = set()
        self.asked: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        if given.get("href", "").startswith("#"):
            self.targets.add(given["href"][1:])
        self.asked |= {given[key] for key in ("src", "href") if not given.get(key, "#").startswith("#")}
        if tag in ("td", "th", "p", "li", "h1", "h2", "h3", "h4", "ul", "tbody"):
            self.open.append([])

    def handle_data(self, data: str) -> None:
        for part in self.open:
            part.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "p", "li", "h1", "h2", "h3", "h4", "ul", "tbody"):
            self.texts.append("".join(self.open.pop()).strip())


DEPLOYED = JudgedWorkspace("net<1>", "incomplete", ("a <b>",), (GateState("accuracy", "pass", "", ""),))


@pytest.mark.parametrize("deployment", [None, DEPLOYED])
def test_the_page_has_no_empty_cell_and_no_dead_link(deployment: JudgedWorkspace | None) -> None:
    page = Cells()
    text = page_of_kit(kit_of(deployment=deployment))
    page.feed(text)
    assert len(page.texts) > 1000 and "" not in page.texts
    assert len(page.ids) == len(set(page.ids)) and page.targets <= set(page.ids)
    assert not page.asked and "<script" not in text, "the page stands alone"
    assert not re.search(r"\b(TBD|TODO|None|undefined)\b", text)
    for item in (*tool_confidence().use_cases, *tool_confidence().errors, *tool_confidence().measures):
        assert item.id in page.ids and item.title.split("`")[0][:40] in text.replace("&#39;", "'")
    for test in packaged_trace().tests:
        assert test in text
    assert ("net&lt;1&gt;: INCOMPLETE" in text) is (deployment is not None) and "<b>,<" not in text


def test_skips_that_nobody_stated_stand_on_the_page(results: Path) -> None:
    said = "Skipped, although the trace does not say what they need"
    assert said in page_of_kit(kit_of(TESTS, read_results(results, TESTS)))
    assert said not in page_of_kit(kit_of())


@pytest.mark.slow
def test_the_verb_writes_a_folder(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["kit", "-o", str(tmp_path / "kit"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert sorted(p.name for p in (tmp_path / "kit").iterdir()) == sorted(said["files"])
    found = json.loads((tmp_path / "kit" / "kit.json").read_text())
    assert found["schema_version"] == 1 and len(found["errors"]) == len(tool_confidence().errors)
    assert {test["outcome"] for measure in found["measures"] for test in measure["tests"]} == {"not run"}
    trace = json.loads((tmp_path / "kit" / "trace.json").read_text())
    assert trace == packaged_trace().to_json()
    for test, entry in trace["tests"].items():
        assert all(test in trace["ids"][name] for name in entry["shows"])
    assert sum(map(len, trace["ids"].values())) == sum(len(entry["shows"]) for entry in trace["tests"].values())


def test_the_gates_of_a_workspace_stand_in_the_kit(digits: Any, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["kit", "--workspace", str(digits.root), "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "kit.json").read_text())["deployment"]
    assert found["network"] == "csa_digits" and found["gates"]
    assert all(gate["text"] in (tmp_path / "kit.html").read_text() for gate in found["gates"] if gate["text"].isalnum())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "kit").write_text("a file")
    with pytest.raises(UsageError, match=r"kit: cannot be written: .+"):
        write_kit(kit_of(), tmp_path / "kit")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_the_page_prints(tmp_path: Path) -> None:
    page = tmp_path / "kit.html"
    page.write_text(page_of_kit(kit_of()))
    content = print_page(page).read_bytes()
    assert content.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", content)) > 10


def test_without_a_browser_it_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentLacksError, match="install chromium"):
        print_page(tmp_path / "kit.html")
