"""Errors, measures and tests are linked in both directions, and the packaged trace is that of these tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from csa_deploy.cli.main import VERBS
from csa_deploy.confidence.schema import CONFIDENCE_LEVELS, FACTS_FOLDER, ToolConfidence, tool_confidence
from csa_deploy.confidence.trace import ShowingTest, Trace, broken_links, lobster_files, packaged_trace
from tools import safety_manual
from tools.trace import sources_of_tests, traced

SOURCES = sources_of_tests()
ROOT = FACTS_FOLDER.parents[2]
CONFIDENCE_OF_THE_TOOL = tool_confidence()


def links(trace: Trace, **changed: object) -> list[str]:
    whole = ToolConfidence.model_validate({**CONFIDENCE_OF_THE_TOOL.model_dump(), **changed})
    return list(broken_links(whole, trace))


@pytest.mark.shows("MEA-42")
def test_nothing_is_missing() -> None:
    assert links(packaged_trace()) == []


@pytest.mark.shows("MEA-42")
def test_the_packaged_trace_is_that_of_the_marks() -> None:
    assert packaged_trace().to_json() == traced(SOURCES).to_json(), "run `python -m tools.trace`"


def test_the_manual_is_made_from_the_facts() -> None:
    made = safety_manual.page(CONFIDENCE_OF_THE_TOOL)
    assert safety_manual.PAGE.read_text(encoding="utf-8") == made, "run `python -m tools.safety_manual`"
    assert all(measure.title in made for measure in CONFIDENCE_OF_THE_TOOL.measures if measure.kind == "duty")


def test_every_verb_belongs_to_one_use_case() -> None:
    verbs = [verb for use_case in CONFIDENCE_OF_THE_TOOL.use_cases for verb in use_case.verbs]
    assert sorted(verbs) == sorted(VERBS)


@pytest.mark.shows("MEA-42", "ERR-36")
def test_a_deleted_test_breaks_the_trace() -> None:
    """Each test that is the only one of its measure, or of an error whose detection is claimed to be high."""
    whole = packaged_trace()
    doubted = {error.id for error in CONFIDENCE_OF_THE_TOOL.errors if error.detection != "TD1"}
    alone = {t.id: n for t in whole.tests.values() for n in t.shows if whole.of(n) == [t] and n not in doubted}
    assert alone
    for name, shown in alone.items():
        path, _, function = name.partition("::")
        without = re.sub(rf"@pytest\.mark\.shows\([^)]*\)\ndef {function}\(", "def helper(", SOURCES[path])
        assert without != SOURCES[path]
        elsewhere = {name: test for name, test in whole.tests.items() if not name.startswith(f"{path}::")}
        left = Trace(elsewhere | traced({path: without}).tests)
        assert left.to_json() != packaged_trace().to_json()
        assert any(line.startswith(shown) for line in links(left)), name


def _without(kind: str, number: int, **changed: object) -> dict[str, object]:
    items = [item.model_dump() for item in getattr(CONFIDENCE_OF_THE_TOOL, kind)]
    items[number] |= changed
    return {kind: items}


@pytest.mark.shows("MEA-42", "ERR-36")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (_without("errors", 0, measures=["MEA-51"]), "ERR-01 has no measure inside the tool"),
        (_without("errors", 0, measures=["MEA-99"]), "ERR-01 names MEA-99, which nobody defines"),
        (_without("errors", 0, use_case="UC-99"), "ERR-01 names UC-99, which nobody defines"),
        (_without("errors", 1, id="ERR-01"), "ERR-01 is defined twice"),
        (_without("errors", 0, past=["no.such"]), "ERR-01 names the problem no.such, which is not listed"),
        (_without("errors", 1, past=[]), "known problem check.run-time-shapes belongs to no error"),
        (_without("measures", 0, id="MEA-99"), "MEA-99 has no test"),
        (_without("measures", -1, id="MEA-99"), "MEA-99 is against no error"),
        (_without("use_cases", 0, id="UC-99"), "UC-99 has no potential error"),
    ],
)
def test_a_missing_link_is_named(changed: dict[str, object], said: str) -> None:
    assert said in links(packaged_trace(), **changed)


@pytest.mark.shows("MEA-42")
def test_high_detection_is_claimed_only_where_a_test_brings_the_error_about() -> None:
    tests = {
        name: ShowingTest(name, tuple(shown for shown in test.shows if shown != "ERR-03"))
        for name, test in packaged_trace().tests.items()
    }
    assert links(Trace(tests)) == ["ERR-03 claims TD1, and no test brings the error about"]


def test_levels_are_those_of_the_standard() -> None:
    """ISO 26262-8:2018, table 3, written out again."""
    rows = {"TI1": ("TCL1", "TCL1", "TCL1"), "TI2": ("TCL1", "TCL2", "TCL3")}
    assert {
        (impact, f"TD{i}"): level for impact, levels in rows.items() for i, level in enumerate(levels, 1)
    } == CONFIDENCE_LEVELS
    assert CONFIDENCE_OF_THE_TOOL.confidence_of(CONFIDENCE_OF_THE_TOOL.use_cases[0]) == "TCL2"  # ERR-05


def test_texts_are_whole() -> None:
    """No placeholder, and simple sentences: a text of the facts ends, and is no longer than a breath."""
    for file in FACTS_FOLDER.glob("*.toml"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\b(TBD|TODO|FIXME|XXX)\b|\?\?", text), file.name
    for error in CONFIDENCE_OF_THE_TOOL.errors:
        for said in (error.unnoticed, error.because_impact, error.because_detection, error.left):
            assert said.endswith("."), (error.id, said)


MARKED = """
import pytest

@pytest.mark.shows("MEA-07", "ERR-05")
def test_runs():
    assert True

@pytest.mark.shows("MEA-07", needs="a device")
def test_says_what_it_needs():
    pytest.skip("no device")

@pytest.mark.shows("MEA-07")
def test_is_silent():
    pytest.skip("no reason")

@pytest.mark.shows("MEA-07")
@pytest.mark.skipif(True, reason="by a mark")
def test_is_silent_by_a_mark():
    assert True

def test_shows_nothing():
    pytest.skip("no reason")
"""


@pytest.mark.shows("MEA-42", "ERR-36")
def test_an_unstated_skip_fails_and_marks_reach_the_results(tmp_path: Path) -> None:
    (tmp_path / "test_marked.py").write_text(MARKED)
    words = ["-m", "pytest", "-p", "tests.showing", "-p", "no:cacheprovider", "--junitxml=found.xml", "--rootdir=."]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "1 failed, 1 passed, 2 skipped, 1 error in" in done.stdout, done.stdout
    assert "shows MEA-07, was skipped (Skipped: no reason), and its mark has no needs=" in done.stdout
    text = (tmp_path / "found.xml").read_text()
    assert text.count('<property name="shows" value="MEA-07"') == 4
    assert text.count('<property name="shows" value="ERR-05"') == 1


def test_lobster_reads_which_test_shows_what() -> None:
    files = lobster_files(CONFIDENCE_OF_THE_TOOL, packaged_trace(), {})
    required, shown = files["requirements.lobster"], files["tests.lobster"]
    assert (required["schema"], required["version"]) == ("lobster-req-trace", 4)
    assert (shown["schema"], shown["version"]) == ("lobster-act-trace", 3)
    tags = {item["tag"] for item in required["data"]}
    for item in (*required["data"], *shown["data"]):
        assert re.match("[a-z]+ .+", item["tag"]) and set(item["refs"]) <= tags
    assert {item["status"] for item in shown["data"]} == {"not run"}
    assert json.loads(json.dumps(files)) == files
