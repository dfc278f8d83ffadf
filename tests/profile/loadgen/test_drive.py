"""The load generator drives a network whose time is known; its own summary and trace are the oracle."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.processes import child_environment
from csa_deploy.profile.loadgen.drive import sends_frames
from csa_deploy.profile.loadgen.results import read_run
from csa_deploy.profile.loadgen.settings import settings_for
from csa_deploy.records.loadgen import LoadgenRun, Scenario
from csa_deploy.spec import TensorSpec

pytest.importorskip("mlperf_loadgen", reason="MLPerf's load generator is not installed: the extra mlperf")

OUTPUTS = [TensorSpec("y", (1, 8), "float32"), TensorSpec("class", (1,), "int64")]
QUICK = """
*.*.min_duration = 400
*.*.min_query_count = 64
*.*.target_latency_percentile = 90
*.*.performance_sample_count_override = 8
"""
# Runs in the child. The load generator reads one settings file per process, so that each run needs its own.
_NETWORK = """
import json, sys, time
from pathlib import Path
import numpy as np
from csa_deploy.profile.loadgen.drive import drive
from csa_deploy.profile.loadgen.samples import SentSamples
from csa_deploy.profile.loadgen.settings import settings_for
from csa_deploy.spec import TensorSpec

request = json.loads(sys.argv[1])

class Network:
    input_specs = (TensorSpec("x", (1, 8), "float32"),)
    output_specs = tuple(TensorSpec(*spec) for spec in request["outputs"])

    def run(self, feeds):
        time.sleep(request["sleep_ms"] / 1e3)
        scale = 1.0 + request["wrong_by"] * Path(request["folder"], "performance").exists()
        return {"y": np.float32(scale) * feeds["x"], "class": feeds["x"].argmax(keepdims=False).reshape(1)}

settings = settings_for(request["scenario"], request["settings"], "net", request["frame_rate"])
drive(Network(), settings, Path(request["folder"]), SentSamples(0), warmup=0)
"""

Driven = Callable[..., tuple[LoadgenRun, Path]]


@pytest.fixture()
def driven(tmp_path: Path) -> Driven:
    """``driven(scenario, ...)`` measures the network, and gives the run and the folder of its logs."""

    def measure(
        scenario: Scenario,
        *,
        sleep_ms: float = 1.0,
        frame_rate: float | None = None,
        text: str = QUICK,
        wrong_by: float = 0.0,
    ) -> tuple[LoadgenRun, Path]:
        conf = tmp_path / "quick.conf"
        conf.write_text(text)
        folder = tmp_path / "logs"
        request = {
            **{"scenario": scenario, "settings": str(conf), "frame_rate": frame_rate, "folder": str(folder)},
            **{"sleep_ms": sleep_ms, "wrong_by": wrong_by},
            "outputs": [(spec.name, spec.shape, spec.dtype) for spec in OUTPUTS],
        }
        done = subprocess.run(
            [sys.executable, "-c", _NETWORK, json.dumps(request)],
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        settings = settings_for(scenario, str(conf), "net", frame_rate)
        return read_run("net", settings, folder, OUTPUTS, "random inputs", "logs"), folder

    return measure


def summary(folder: Path) -> dict[str, str]:
    """What ``mlperf_log_summary.txt`` says, by name."""
    lines = (folder / "performance/mlperf_log_summary.txt").read_text().splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def traced(folder: Path) -> list[dict[str, Any]]:
    """Begin of each query in the trace, in microseconds, and its latency in nanoseconds; read with a pattern."""
    text = gzip.decompress((folder / "performance/mlperf_log_trace.json.gz").read_bytes()).decode()
    pattern = r'"name":"Sample".*?"ph":"b".*?"ts":([\d.]+).*?"sample_seq":(\d+).*?"complete_ns":(\d+)'
    found = sorted((int(order), float(begin), int(took)) for begin, order, took in re.findall(pattern, text))
    return [{"begin_us": begin, "took_ns": took} for _, begin, took in found]


def test_single_stream_says_what_the_summary_says(driven: Driven) -> None:
    run, folder = driven("single-stream", sleep_ms=2)
    said = summary(folder)
    assert (run.said, run.verdict, run.reasons, run.state) == (said["Result is"], "VALID", (), "pass")
    assert said["Result is"] == "VALID" and said["Scenario"] == "SingleStream"
    for percentile, value in run.percentiles_ms.items():
        assert round(value * 1e6) == int(said[f"{float(percentile):.2f} percentile latency (ns)"])
    assert run.percentile == 90 and round((run.percentile_ms or 0) * 1e6) == int(said["90.0th percentile latency (ns)"])
    assert round((run.early_stopping_ms or 0) * 1e6) == int(said["* Early stopping 90.0th percentile estimate"])
    assert run.percentiles_ms["50"] >= 2 and run.queries >= 64 and run.seconds >= 0.4
    assert run.deadlines is None and run.throughput is None


@pytest.mark.parametrize(("scenario", "frame_rate"), [("single-stream", None), ("constant-stream", 200.0)])
def test_logs_that_a_full_disk_cut_off_are_refused_or_say_the_same(
    driven: Driven, tmp_path: Path, scenario: Scenario, frame_rate: float | None
) -> None:
    """The load generator goes on without a word where it cannot write: its logs just end somewhere."""
    run, folder = driven(scenario, frame_rate=frame_rate)
    settings = settings_for(scenario, str(tmp_path / "quick.conf"), "net", frame_rate)
    logs = [path for path in folder.rglob("mlperf_log*") if path.stat().st_size]
    assert {path.name for path in logs} >= {
        "mlperf_log_summary.txt",
        "mlperf_log_detail.txt",
        "mlperf_log_accuracy.json",
    }
    refused = set()
    for path in logs:
        whole = path.read_bytes()
        text = gzip.decompress(whole) if path.suffix == ".gz" else whole
        ends = [match.end() for match in re.finditer(rb"\n", text)]
        random = np.random.default_rng(0).integers(len(text), size=15)
        for end in {0, 1, len(text) - 2, *ends[:: max(len(ends) // 25, 1)], *ends[-4:], *random.tolist()}:
            path.write_bytes(gzip.compress(text[:end]) if path.suffix == ".gz" else text[:end])
            try:
                found = read_run("net", settings, folder, OUTPUTS, "random inputs", "logs")
            except UsageError as error:
                assert str(path) in error.message and "disk" in (error.fix or "")
                refused.add(path)
                continue
            unkept = end == 0 and path.name == "mlperf_log_accuracy.json"  # so it is where nothing was drawn
            assert found == run or (unkept and found.outputs.verdict == "not measured" and found.reasons), (path, end)
        path.write_bytes(whole[:-20])
        if path.suffix == ".gz":
            with pytest.raises(UsageError, match="no trace of the load generator"):
                read_run("net", settings, folder, OUTPUTS, "random inputs", "logs")
        path.write_bytes(whole)
    unread = {"accuracy/mlperf_log_summary.txt"} | ({"performance/mlperf_log_summary.txt"} if frame_rate else set())
    assert {str(path.relative_to(folder)) for path in set(logs) - refused} == unread


def test_a_percentile_of_its_own_is_the_summarys(driven: Driven) -> None:
    run, folder = driven("single-stream", text=QUICK + "*.*.target_latency_percentile = 87.5\n")
    assert run.percentile == 87.5 and str(round((run.percentile_ms or 0) * 1e6)) in summary(folder).values()


def test_too_few_queries_show_nothing(driven: Driven) -> None:
    few = QUICK.replace("= 64", "= 5").replace("= 400", "= 1").replace("= 90", "= 99.9")
    run, folder = driven("single-stream", text=few)
    assert summary(folder)["Early stopping satisfied"] == "NO"
    assert (run.said, run.verdict, run.state) == ("INVALID", "INVALID", "undecided")
    assert run.early_stopping_ms is None and "too few queries to show the percentile" in run.reasons


def test_offline_counts_inferences_per_second(driven: Driven) -> None:
    run, folder = driven("offline", sleep_ms=2)
    said = summary(folder)
    assert run.said == said["Result is"]
    assert run.throughput == pytest.approx(float(said["Samples per second"]), rel=1e-3)
    assert run.throughput is not None and 0 < run.throughput < 500 and run.queries == int(said["samples_per_query"])
    assert run.percentile is None and run.deadlines is None


def test_a_run_that_ends_early_is_not_valid(driven: Driven) -> None:
    run, _ = driven("single-stream", text=QUICK + "*.*.max_query_count = 10\n")
    assert run.verdict == "INVALID" and run.state == "undecided" and run.queries == 10
    assert {"shorter than the least duration", "fewer queries than the least number"} <= {*run.reasons}


def test_frames_come_at_their_rate_and_keep_their_deadline(driven: Driven) -> None:
    run, folder = driven("constant-stream", sleep_ms=1, frame_rate=50)
    queries, said = traced(folder), summary(folder)
    assert run.queries == len(queries) >= 64 and run.deadlines is not None
    assert run.deadlines.frame_ms == 20 and run.said == said["Result is"]
    begins = np.array([query["begin_us"] for query in queries])
    late = begins - (begins[0] + 20_000 * np.arange(len(begins)))
    assert late.min() > -1, "no frame comes early"
    missed = 0
    for number, query in enumerate(queries):
        due_us = query["begin_us"] if sends_frames() else queries[0]["begin_us"] + 20_000 * number
        missed += query["begin_us"] + query["took_ns"] / 1e3 - due_us > 20_000
    assert run.deadlines.missed == missed
    took = np.sort([query["took_ns"] for query in queries])
    for percentile in ("50", "90", "99", "99.9"):
        index = int(len(took) * float(percentile) / 100)
        assert took[index] == int(said[f"{float(percentile):.2f} percentile latency (ns)"])


def test_a_network_that_is_slower_than_its_frames_misses_them(driven: Driven) -> None:
    run, folder = driven("constant-stream", sleep_ms=15, frame_rate=100)
    assert run.deadlines is not None and run.deadlines.missed == run.queries == len(traced(folder))
    assert (run.verdict, run.state, run.deadlines.broken) == ("INVALID", "fail", True)
    assert f"{run.queries} deadlines of {run.queries} missed, too many for 90 %" in run.reasons
    assert run.percentiles_ms["99"] > 15 + 5 * 0.9 * run.queries, "frames that wait add up"
    assert run.early_stopping_ms == pytest.approx(run.percentiles_ms["99.9"], rel=0.3)


@pytest.mark.skipif(not sends_frames(), reason="this load generator has no constant stream of its own")
@pytest.mark.parametrize("sleep_ms", [1, 15])
def test_its_own_constant_stream_counts_alike(driven: Driven, sleep_ms: float) -> None:
    run, folder = driven("constant-stream", sleep_ms=sleep_ms, frame_rate=100)
    said = summary(folder)
    assert run.deadlines is not None and run.deadlines.missed == int(said["Samples over target latency"])
    assert (run.verdict, run.deadlines.arrivals) == (said["Result is"], "sent by the load generator")
    assert round((run.percentile_ms or 0) * 1e6) == int(said["90.0th percentile latency (ns)"])
    assert round((run.early_stopping_ms or 0) * 1e6) == int(said["* Early stopping 90.0th percentile estimate"])
    for percentile, value in run.percentiles_ms.items():
        assert round(value * 1e6) == int(said[f"{float(percentile):.2f} percentile latency (ns)"])


def test_outputs_of_the_timed_run_are_those_of_the_accuracy_mode(driven: Driven) -> None:
    run, folder = driven("single-stream")
    kept = json.loads((folder / "performance/mlperf_log_accuracy.json").read_text())
    assert run.outputs.sampled == run.outputs.identical == len(kept) > 0
    assert (run.outputs.difference, run.outputs.verdict) == (0.0, "pass")


@pytest.mark.parametrize(("wrong_by", "state"), [(1e-3, "fail"), (2.4e-7, "pass")])
def test_another_answer_while_the_clock_runs_is_seen(driven: Driven, wrong_by: float, state: str) -> None:
    """The accuracy mode is right; the timed run is not, or within rounding."""
    run, _ = driven("single-stream", wrong_by=wrong_by)
    assert run.outputs.identical < run.outputs.sampled and run.state == state
    assert (run.verdict == "VALID") == (state == "pass")
    assert bool([said for said in run.reasons if "differ from those of accuracy mode" in said]) == (state == "fail")


def test_the_settings_in_force_are_those_of_the_file(driven: Driven) -> None:
    text = QUICK + "*.*.max_query_count = 5000\n*.*.max_duration = 30000\n"
    _, folder = driven("single-stream", text=text)
    log = (folder / "performance/mlperf_log_detail.txt").read_text()
    stated = dict(re.findall(r'"key": "effective_(\w+)", "value": ([^,]+),', log))
    for key, value in {
        **{"min_duration_ms": "400", "max_duration_ms": "30000", "min_query_count": "64", "max_query_count": "5000"},
        **{"target_latency_percentile": "0.9", "performance_sample_count": "8", "accuracy_log_sampling_target": "64"},
    }.items():
        assert stated[key] == value, key
