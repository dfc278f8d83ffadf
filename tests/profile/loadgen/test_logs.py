"""Logs on both sides of each rule: a deadline met to the nanosecond, an output that differs by one bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.profile.loadgen.logs import MOST_UNITS, Queries, compare_outputs, pack_trace, read_detail
from csa_deploy.profile.loadgen.results import read_run
from csa_deploy.profile.loadgen.settings import settings_for
from csa_deploy.records.loadgen import Deadlines, LoadgenRun
from csa_deploy.spec import TensorSpec

FRAME_NS = 66_666_666
SPEC = [TensorSpec("y", (4,), "float32"), TensorSpec("n", (1,), "int64")]
GOOD = np.array([1, -2, 3, 4], np.float32)


def outputs(folder: Path, *kept: tuple[int, np.ndarray, int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"seq_id": i, "qsl_idx": sample, "data": (y.tobytes() + np.int64(n).tobytes()).hex().upper()}
        for i, (sample, y, n) in enumerate(kept)
    ]
    (folder / "mlperf_log_accuracy.json").write_text(json.dumps(rows))
    return folder


def test_outputs_bit_for_bit(tmp_path: Path) -> None:
    accuracy = outputs(tmp_path / "a", (0, GOOD, 7), (1, 2 * GOOD, 8))
    same = compare_outputs(accuracy, outputs(tmp_path / "b", (1, 2 * GOOD, 8), (0, GOOD, 7)), SPEC)
    assert (same.sampled, same.identical, same.difference, same.verdict) == (2, 2, 0.0, "pass")
    swapped = compare_outputs(accuracy, outputs(tmp_path / "c", (0, 2 * GOOD, 8)), SPEC)
    assert (swapped.identical, swapped.verdict) == (0, "fail")
    nothing = compare_outputs(accuracy, outputs(tmp_path / "d"), SPEC)
    assert (nothing.sampled, nothing.verdict) == (0, "not measured")


@pytest.mark.parametrize(("units", "verdict"), [(MOST_UNITS, "pass"), (MOST_UNITS + 1, "fail")])
def test_a_difference_at_the_bound_and_above(tmp_path: Path, units: float, verdict: str) -> None:
    """The unit is the type's precision at the largest value, 4; so that value moves by exact steps."""
    other = GOOD.copy()
    other[3] += np.float32(units * 4 * np.finfo(np.float32).eps)
    found = compare_outputs(outputs(tmp_path / "a", (0, GOOD, 7)), outputs(tmp_path / "b", (0, other, 7)), SPEC)
    assert (found.difference, found.verdict) == (units, verdict)


@pytest.mark.parametrize("other", [(GOOD, 8), (np.array([1, -2, 3, np.nan], np.float32), 7), (GOOD[:3], 7)])
def test_another_class_a_nan_or_another_size_is_no_rounding(tmp_path: Path, other: tuple[np.ndarray, int]) -> None:
    found = compare_outputs(outputs(tmp_path / "a", (0, GOOD, 7)), outputs(tmp_path / "b", (0, *other)), SPEC)
    assert (found.difference, found.verdict) == (None, "fail")


def test_a_sample_that_accuracy_mode_never_saw_fails(tmp_path: Path) -> None:
    found = compare_outputs(outputs(tmp_path / "a", (0, GOOD, 7)), outputs(tmp_path / "b", (5, GOOD, 7)), SPEC)
    assert found.verdict == "fail"


def test_a_late_frame_is_late_for_itself_and_the_next_for_what_it_waits() -> None:
    """By brute force: each frame begins when it is due and the one before is done."""
    generator = np.random.default_rng(0)
    took = generator.integers(10, 150, 200) * 1_000_000
    begins, due, expected = [], 5_000, []
    free = 0
    for number, work in enumerate(took):
        begin = max(due + number * FRAME_NS, free)
        free = begin + int(work)
        begins.append(begin)
        expected.append(free - (due + number * FRAME_NS))
    found = Queries(np.array(begins), took).since_due(FRAME_NS)
    assert found.tolist() == expected


def detail(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stated = {
        **{f"result_{p:.2f}_percentile_latency_ns": 1 for p in (50, 90, 95, 97, 99)},
        **{"result_validity": "VALID", "result_min_duration_met": True, "result_min_queries_met": True},
        **{"early_stopping_met": True, "result_query_count": 0, "loadgen_version": "6.0.17 @ x"},
        **{"qsl_reported_total_count": 1},
        **{
            "power_begin": "11-29-2026 11:40:06.500",
            "power_end": "11-29-2026 11:50:07.750",
            "result_99.90_percentile_latency_ns": 1,
        },
        **{"effective_scenario": "SingleStream", **values},
    }
    meta = {"is_error": False}
    lines = [":::MLLOG " + json.dumps({"key": k, "value": v, "metadata": meta}) for k, v in stated.items()]
    (folder / "mlperf_log_detail.txt").write_text("\n".join(lines))


def stream(folder: Path, latencies: list[int], conf: str = "full", **values: object) -> tuple[LoadgenRun, Deadlines]:
    """The run of a constant stream of 15 frames per second whose load generator keeps the schedule."""
    for mode in ("accuracy", "performance"):
        outputs(folder / mode, (0, GOOD, 7))
        detail(
            folder / mode, **{"effective_scenario": "ConstantStream", "result_query_count": len(latencies), **values}
        )
    events = [
        f'{{"name":"Sample","cat":"default","ph":"b","pid":1,"id":{i},"ts":{(i * FRAME_NS) / 1e3:.3f},'
        f'"args":{{"sample_seq":{i},"query_seq":{i},"sample_idx":0,"issue_start_ns":9,"complete_ns":{took}}}}},'
        for i, took in enumerate(latencies)
    ]
    (folder / "performance/mlperf_log_trace.json").write_text("\n".join(['{"traceEvents":[', *events, "]}"]))
    pack_trace(folder / "performance")
    run = read_run("fp32", settings_for("constant-stream", conf, "net"), folder, SPEC, "random inputs", "x")
    assert run.deadlines is not None
    return run, run.deadlines


@pytest.mark.parametrize(("late", "missed"), [(0, 0), (1, 1)])
def test_a_frame_that_is_done_exactly_at_its_deadline_met_it(tmp_path: Path, late: int, missed: int) -> None:
    run, deadlines = stream(tmp_path, [1_000_000] * 6635 + [FRAME_NS + late])
    assert deadlines.missed == missed and run.verdict == "VALID"
    assert run.seconds == 601.25


@pytest.mark.parametrize(
    ("frames", "missed", "verdict", "state"),
    [
        (4603, 0, "VALID", "pass"),
        (4602, 0, "INVALID", "undecided"),
        (6636, 1, "VALID", "pass"),
        (6635, 1, "INVALID", "undecided"),
        (1000, 4, "INVALID", "undecided"),  # a chance of 1.9 % if 99.9 % hold
        (1000, 5, "INVALID", "fail"),  # 0.4 %
    ],
)
def test_what_so_many_frames_show(tmp_path: Path, frames: int, missed: int, verdict: str, state: str) -> None:
    run, deadlines = stream(tmp_path, [1_000_000] * (frames - missed) + [FRAME_NS + 1] * missed)
    assert (run.verdict, run.state, deadlines.missed) == (verdict, state, missed)


def test_its_own_doubts_count(tmp_path: Path) -> None:
    run, _ = stream(tmp_path, [1_000_000] * 6636, early_stopping_met=False, result_validity="INVALID")
    assert run.reasons == ("too few queries to show the percentile",) and run.verdict == "INVALID"


def test_invalid_for_a_reason_that_nobody_knows_is_invalid(tmp_path: Path) -> None:
    run, _ = stream(tmp_path, [1_000_000] * 6636, result_validity="INVALID")
    assert run.verdict == "INVALID" and run.reasons and run.state == "undecided"


def test_an_error_in_its_log_is_a_reason(tmp_path: Path) -> None:
    stream(tmp_path, [1_000_000] * 6636)
    path = tmp_path / "accuracy/mlperf_log_detail.txt"
    event = {"key": "error_runtime", "value": "lost an answer", "metadata": {"is_error": True}}
    path.write_text(f"{path.read_text()}\n:::MLLOG {json.dumps(event)}")
    run = read_run("fp32", settings_for("constant-stream", "full", "net"), tmp_path, SPEC, "random inputs", "x")
    assert run.reasons == ("accuracy mode: error_runtime: lost an answer",) and run.verdict == "INVALID"


def test_a_log_that_was_not_finished_is_no_result(tmp_path: Path) -> None:
    detail(tmp_path)
    path = tmp_path / "mlperf_log_detail.txt"
    whole = path.read_text().splitlines()
    path.write_text("\n".join(line for line in whole if "99.90" not in line))
    with pytest.raises(UsageError, match="did not end its log"):
        read_detail(tmp_path, mode="performance")
    path.write_text("\n".join([*whole, ":::MLLOG {"]))
    with pytest.raises(UsageError, match="no log of the load generator"):
        read_detail(tmp_path, mode="performance")
    with pytest.raises(UsageError, match="no log of the load generator"):
        read_detail(tmp_path / "none", mode="performance")
