"""What an earlier csa-deploy stored is still read: records, measurements and results of csa_digits, as they were then.

``stored/csa_digits.zip`` is never written anew to make a test pass: a new field needs a default, and what reads plain
records has to do without it. See docs/compatibility.md.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from csa_deploy.api.runs import compare_stored, judge_stored
from csa_deploy.bundle.verdict import verdict_of
from csa_deploy.engine.passport import read_passport, seal_of
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.records.profile import ProfileRecord
from csa_deploy.records.report import ReportRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.report import console, markdown
from csa_deploy.report.data import collect
from csa_deploy.report.page import page_of
from csa_deploy.results import StageRecord, plain
from csa_deploy.verify.results import read_results
from csa_deploy.workspace import Workspace

STORED = Path(__file__).parent / "stored" / "csa_digits.zip"
KINDS: tuple[type[StageRecord], ...] = (
    *(ExportRecord, OptimizeRecord, CheckRecord, PrecisionRecord),
    *(BuildRecord, VerifyRecord, ProfileRecord, ReportRecord),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yesterday")
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(folder)
    return folder


def missing_from(now: Any, then: Any, where: str = "") -> list[str]:
    """What was stored then and is not there now, or is another value."""
    if isinstance(then, dict):
        lost = [f"{where}.{key}" for key in then if key not in now]
        return lost + [m for key in then if key in now for m in missing_from(now[key], then[key], f"{where}.{key}")]
    if isinstance(then, list):
        if len(now) != len(then):
            return [where]
        return [m for i, (a, b) in enumerate(zip(now, then, strict=True)) for m in missing_from(a, b, f"{where}[{i}]")]
    return [] if now == then else [f"{where}: {now} was {then}"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.stage)
def test_a_record_is_read_and_nothing_of_it_is_lost(root: Path, kind: type[StageRecord]) -> None:
    workspace = Workspace(root)
    then = workspace.record(kind.stage)
    assert missing_from(plain(workspace.read(kind).to_json()), then) == []


def test_every_stage_of_the_run_is_among_them(root: Path) -> None:
    assert {kind.stage for kind in KINDS} == set(Workspace(root).stages)


def test_what_is_lost_is_found() -> None:
    then = {"a": [{"b": 1}], "c": 2}
    assert missing_from({"a": [{"b": 1, "new": 3}], "c": 2, "d": 4}, then) == []
    assert missing_from({"a": [{}], "c": 3}, then) == [".a[0].b", ".c: 3 was 2"]
    assert missing_from({"a": [], "c": 2}, then) == [".a"]


def test_reports_are_made_of_them(root: Path) -> None:
    data = collect(Workspace(root))
    assert data.network == "csa_digits" and data.verdict.state == "incomplete"
    page = page_of(data, {})
    assert "csa_digits" in page and "drive-os-6" in page
    assert "csa_digits: INCOMPLETE" in markdown.summary(data)
    said = io.StringIO()
    shown = RichConsole(file=said, width=200)
    console._of_build(data, shown)  # type: ignore[arg-type]
    shown.print(console.table(data))
    assert "drive-os-6 allowed" in said.getvalue() and "34.6 dB" in said.getvalue()


def test_they_are_judged_and_compared(root: Path) -> None:
    results = read_results(root / "verify" / "samples.npz")
    assert len(results.ids) == 200 and [c.label for c in results.candidates] == ["exported", "fp32", "fp16", "int8"]
    judged = judge_stored(root / "verify" / "samples.npz", budget=["int8.snr_db=30"])
    stored = Workspace(root).record("verify")
    assert [c["metrics"] for c in plain(judged.to_json())["candidates"]] == [c["metrics"] for c in stored["candidates"]]
    compared = compare_stored(root, root).to_json()
    assert compared["rows"] and {row["outcome"] for row in compared["rows"]} == {"no difference shown"}
    assert verdict_of(Workspace(root)).state == "incomplete"


def test_passports_and_the_manifest(root: Path) -> None:
    for path in sorted((root / "engines").glob("*.passport.json")):
        passport = read_passport(path)
        assert passport.schema_version == 1 and passport.seal == seal_of(passport.to_json())
    assert json.loads((root / "manifest.json").read_text())["schema_version"] == 1
