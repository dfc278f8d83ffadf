"""What is said of versions, on both sides of every boundary; and how versions and targets are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.matrix.judging import SHIFT_DB, changes_of, exit_of, upgrades_of
from csa_deploy.matrix.plan import HERE, is_of, oldest, parse_places, parse_versions, spots_of
from csa_deploy.records.matrix import (
    Cell,
    CellAccuracy,
    CellLatency,
    KnownOfVersion,
    KnownProblemHere,
    MatrixReport,
    ScopeHere,
    Upgrade,
)
from csa_deploy.records.obtained import ObtainedPrecision, TypeShare
from csa_deploy.report.matrix import row_of, write_page
from csa_deploy.results import NotMeasured

ASKED = ("10.3", "10.10")


def series(median: float) -> CellLatency:
    samples = tuple(np.random.default_rng(0).normal(median, 0.01, 400).round(6))
    return CellLatency(median, median + 0.03, (median - 0.002, median + 0.002), samples)


def obtained(half: int, single: int = 0) -> ObtainedPrecision:
    types = (TypeShare("fp16", 3, half), *((TypeShare("fp32", 1, single),) if single else ()))
    return ObtainedPrecision("fp16", "engine's layers", types)


def cell(version: str = "10.3", *, ratio: float = 60.0, median: float = 5.0, **changed: Any) -> Cell:
    accuracy = CellAccuracy("pass", "", {"snr_db": ratio}, 100, "same")
    plain = Cell(
        *(version, "orin", "fp16", "measured"),
        machine="orin: Orin",
        engine_mib=3.0,
        obtained=obtained(100),
        accuracy=accuracy,
        latency=series(median),
    )
    return replace(plain, **changed)


def upgrade(cells: list[Cell], known: list[KnownOfVersion] | None = None, **settings: Any) -> Upgrade:
    changes = changes_of(ASKED, cells, known or [], 0.02)
    return upgrades_of(ASKED, cells, known or [], changes, **settings)[1]


def facts(
    version: str, verdict: Any = "allowed", decides: bool = False, problems: tuple[str, ...] = ()
) -> KnownOfVersion:
    found = tuple(KnownProblemHere(name, "medium", name) for name in problems)
    return KnownOfVersion(version, "", (ScopeHere("drive-os-7", verdict, "static", decides),), found, 0, ())


def test_a_version_of_which_all_was_measured_may_be_used() -> None:
    assert upgrade([cell(), cell("10.10")]) == Upgrade("10.10", "yes", ())


@pytest.mark.parametrize(
    ("changed", "verdict", "said"),
    [
        ({"state": "failed", "reason": "out of memory", "exit_code": 5}, "no", "fp16 on orin: out of memory"),
        ({"state": "not measured", "reason": "no route"}, "unknown", "fp16 on orin: not measured: no route"),
        ({"state": "not there", "reason": "it has 10.3"}, "unknown", "fp16: no target has TensorRT 10.10: it has 10.3"),
        ({"accuracy": None, "not_measured": (NotMeasured("accuracy", "a loadable"),)}, "unknown", "a loadable"),
        ({"latency": None, "not_measured": (NotMeasured("latency", "no device"),)}, "unknown", "no device"),
        ({"not_measured": (NotMeasured("limit of engine fp16 p99_ms", "needs 528"),)}, "unknown", "p99_ms needs 528"),
        ({"accuracy": CellAccuracy("undecided", "top1", {}, 6, "")}, "unknown", "accuracy undecided: top1"),
    ],
)
def test_what_speaks_against_a_version_and_what_leaves_it_open(changed: Any, verdict: str, said: str) -> None:
    found = upgrade([cell(), replace(cell("10.10"), **changed)])
    assert found.verdict == verdict and said in found.reasons[0]


def test_another_target_that_has_the_version_is_enough_and_one_that_has_not_is_no_doubt() -> None:
    other = replace(cell("10.10"), target="bench", state="not there", reason="it has 8.6")
    assert upgrade([cell(), cell("10.10"), other]).verdict == "yes"
    assert upgrade([cell(), cell("10.10"), replace(other, state="not measured")]).verdict == "unknown"
    assert upgrade([cell(), cell("10.10"), replace(other, state="failed", exit_code=6)]).exit_code == 6


def test_slower_counts_beyond_the_smallest_change_and_on_the_same_machine() -> None:
    assert upgrade([cell(), cell("10.10", median=5.05)]).verdict == "yes"  # 1 %
    slower = upgrade([cell(), cell("10.10", median=5.2)])
    assert (slower.verdict, slower.exit_code) == ("no", 7) and "slower: +4.0 %" in slower.reasons[0]
    assert upgrade([cell(), cell("10.10", median=5.2, machine="bench: Orin")]).verdict == "yes"
    faster = changes_of(ASKED, [cell(), cell("10.10", median=4.0)], [], 0.02)
    assert [(c.what, c.worse) for c in faster] == [("latency", False)]


@pytest.mark.parametrize(("fell", "named"), [(SHIFT_DB - 0.01, False), (SHIFT_DB, True), (-SHIFT_DB, True)])
def test_accuracy_that_moves_is_named(fell: float, named: bool) -> None:
    found = changes_of(ASKED, [cell(), cell("10.10", ratio=60.0 - fell)], [], 0.02)
    assert [c.what for c in found] == (["accuracy"] if named else [])
    assert not named or found[0].worse == (fell > 0)


def test_accuracy_on_other_samples_or_identical_to_infinity_is_not_compared() -> None:
    other = replace(cell("10.10", ratio=20), accuracy=CellAccuracy("pass", "", {"snr_db": 20.0}, 100, "others"))
    assert changes_of(ASKED, [cell(), other], [], 0.02) == ()
    infinite = [cell(version, ratio=float("inf")) for version in ASKED]
    assert changes_of(ASKED, infinite, [], 0.02) == ()
    (found,) = changes_of(ASKED, [infinite[0], cell("10.10")], [], 0.02)
    assert found.worse and "inf -> 60.0 dB" in found.said


def test_builds_and_obtained_types() -> None:
    failed = Cell("10.10", "orin", "fp16", "failed", "no kernel", 5)
    (gone,) = changes_of(ASKED, [cell(), failed], [], 0.02)
    assert (gone.what, gone.worse, gone.said) == ("build", True, "does not build: no kernel")
    (back,) = changes_of(ASKED, [replace(failed, tensorrt="10.3"), cell("10.10")], [], 0.02)
    assert not back.worse and back.said.startswith("builds now")
    (types,) = changes_of(ASKED, [cell(), cell("10.10", obtained=obtained(60, 40))], [], 0.02)
    assert (types.said, types.worse) == ("100.0 % -> 60.0 % of the multiply-accumulates", True)
    assert changes_of(ASKED, [cell(), cell("10.10", obtained=obtained(9960, 40))], [], 0.02) == ()
    assert changes_of(ASKED, [cell(), cell("10.10", obtained=obtained(9950, 50))], [], 0.02) != ()


def test_known_problems_and_scopes() -> None:
    known = [facts("10.3", problems=("a", "b")), facts("10.10", "denied", decides=True, problems=("b", "c"))]
    found = {(c.what, c.said): c.worse for c in changes_of(ASKED, [], known, 0.02)}
    assert found == {
        ("known problems", "new: c"): True,
        ("known problems", "gone: a"): False,
        ("scopes", "allowed by drive-os-7 -> denied by drive-os-7"): True,
    }
    pair = [cell(), cell("10.10")]
    assert upgrade(pair, known).exit_code == 4 and upgrade(pair, known).reasons[0] == "denied by drive-os-7"
    informed = [facts("10.3"), facts("10.10", "denied", problems=("c",))]
    assert upgrade(pair, informed).verdict == "yes"
    assert upgrade(pair, informed, fail_on="high").verdict == "yes"
    assert upgrade(pair, informed, fail_on="medium").reasons == ("known problems: c",)


def test_the_exit_code_is_of_the_worst_that_may_not_be_used() -> None:
    yes, no, open_ = Upgrade("8.6", "yes", ()), Upgrade("10.10", "no", ("slow",), 7), Upgrade("11.1", "unknown", ("?",))
    assert exit_of([yes, open_], strict=False) == (0, "")
    assert exit_of([yes, open_], strict=True) == (3, "TensorRT 11.1 is not known to be usable: ?")
    assert exit_of([yes, open_, no], strict=True)[0] == 7
    unasked, inexact = Upgrade("10.3", "no", ("no --x",), 2), Upgrade("11.1", "no", ("6 dB",), 6)
    assert exit_of([unasked, no, inexact], strict=True) == (6, "TensorRT 11.1 may not be used: 6 dB")
    both = [cell("10.10", state="failed", reason=said, exit_code=code) for said, code in (("slow", 7), ("refused", 5))]
    assert (upgrade(both).exit_code, upgrade(both).reasons[0]) == (5, "fp16 on orin: refused")


def test_versions_and_targets_are_read_and_refused_by_name(tmp_path: Path) -> None:
    assert parse_versions(["8.6,10.10", "rtx", "10.10"]) == ("8.6", "10.10", "rtx")
    for given, said in (([], "needs versions"), (["9.0"], "--tensorrt 9.0: "), (["10.x"], "--tensorrt 10.x: ")):
        with pytest.raises(UsageError, match=said):
            parse_versions(given)
    files = [tmp_path / "a" / "orin.yaml", tmp_path / "b" / "orin.yaml"]
    for file in files:
        file.parent.mkdir()
        file.write_text("host: orin.local\nplatform: drive-orin\n")
    (place,) = parse_places([str(files[0])])
    assert (place.name, place.platform) == ("orin", "drive-orin")
    with pytest.raises(UsageError, match="two targets' files are called orin"):
        parse_places([",".join(map(str, files))])
    assert [(s.tensorrt, s.place.name) for s in spots_of(("8.6", "rtx"), (place,))] == [("8.6", "orin"), ("rtx", HERE)]
    assert oldest(("11.1", "8.6", "rtx")) == "8.6" and oldest(("10.10", "10.3")) == "10.3" and oldest(("rtx",)) == "10"


@pytest.mark.parametrize(
    ("version", "asked", "same"),
    [("10.10.0", "10.10", True), ("10.1.0", "10.10", False), ("8.6.13", "8.6", True), ("10.3.0", "11", False)],
)
def test_a_version_is_of_what_it_begins_with(version: str, asked: str, same: bool) -> None:
    assert is_of(version, asked) == same


def test_the_page_escapes_what_comes_from_outside_and_says_what_was_not_measured(tmp_path: Path) -> None:
    cells = (cell(), replace(cell("10.10"), engine_mib=None, state="not measured", reason="<b>no route</b>"))
    report = MatrixReport(
        "net<1>.onnx", {"fp16": "0"}, ASKED, ("orin",), (facts("10.3"),), cells, (), (Upgrade("10.3", "yes", ()),)
    )
    page = write_page(report, tmp_path).read_text()
    assert "&lt;b&gt;no route&lt;/b&gt;" in page and "<b>no route" not in page and "net&lt;1&gt;.onnx" in page
    assert row_of(cells[1])[3] == "not measured: <b>no route</b>"
    assert row_of(cells[0])[4:6] == ("100.00 % (layers in fp16)", "pass, 60.0 dB on 100 samples")
    assert report.summary == "1 of 2 cells measured, 0 failed; may be used: 10.3"
