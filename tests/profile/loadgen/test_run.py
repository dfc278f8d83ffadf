"""As users meet it: from Python and from the command line, what is refused, and what an interrupt leaves behind."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import pytest

import csa_deploy
from csa_deploy.errors import EnvironmentLacksError, PerformanceGateError, UsageError
from csa_deploy.installing import install_command
from csa_deploy.records.loadgen import NO_SUBMISSION
from csa_deploy.records.profile import Profiled

pytest.importorskip("mlperf_loadgen", reason="MLPerf's load generator is not installed: the extra mlperf")

FAST = {"iterations": 2, "warmup": 1, "threads": 1}
QUICK = """
*.*.min_duration = 300
*.*.min_query_count = 64
*.*.target_latency_percentile = 90
*.*.performance_sample_count_override = 4
"""
COMMAND = Path(sys.executable).with_name("csa-deploy")
# A frame is due every 1 us, so that it is late on any machine.
RUSHED = ("--scenario", "constant-stream", "--frame-rate", "1000000")


@pytest.fixture()
def quick(tmp_path: Path) -> str:
    path = tmp_path / "quick.conf"
    path.write_text(QUICK)
    return str(path)


def test_from_python(make_tiny: Callable[..., onnx.ModelProto], quick: str) -> None:
    graphs = {"one": make_tiny(0), "other": make_tiny(1)}
    scenarios = ["single-stream", "offline", "constant-stream"]
    settings = {"scenario": scenarios, "frame_rate": 50, "loadgen_settings": quick}
    found = csa_deploy.profile(graphs, loadgen=True, **settings, **FAST)
    assert [(run.label, run.scenario) for run in found.loadgen] == [(g, s) for g in graphs for s in scenarios]
    assert all(run.said == "VALID" and run.outputs.verdict == "pass" for run in found.loadgen)
    assert found.report is not None and found.report.contract.loadgen is not None
    assert found.report.contract.loadgen["what"] == NO_SUBMISSION
    assert all(run.statement in found.summary for run in found.loadgen)
    assert csa_deploy.profile(graphs["one"], **FAST).loadgen == ()


def test_a_workspace_keeps_logs_verdict_and_settings(lab: Path, csa: Any, quick: str) -> None:
    done = csa(
        *(lab, "profile", "tiny.onnx", "--fp32", "--iterations", 2, "--threads", 1),
        *("--loadgen", "--loadgen-settings", quick, "--scenario", "single-stream"),
    )
    assert done.returncode == 0, done.stderr
    root = lab / "deploy/tiny"
    (run,) = Profiled.from_json(json.loads((root / "measurements/profile.json").read_text())).loadgen
    assert run.statement in done.stdout and "no MLPerf submission: not verified by MLCommons" in done.stdout
    assert (run.label, run.settings, run.folder) == ("fp32", quick, "measurements/loadgen/fp32/single-stream")
    logs = root / run.folder
    assert f"Result is : {run.said}" in (logs / "performance/mlperf_log_summary.txt").read_text()
    assert (logs / "accuracy/mlperf_log_accuracy.json").stat().st_size and (logs / "performance/audit.config").is_file()
    assert "*.SingleStream.min_duration = 300" in (logs / "user.conf").read_text()
    report = csa(lab, "report", "tiny.onnx")
    assert f"fp32 in {run.statement}" in report.stdout
    page = (root / "report.html").read_text()
    assert 'aria-label="load generator"' in page and NO_SUBMISSION in page
    Path(quick).write_text(QUICK + "*.*.accuracy_log_sampling_target = 3\n")  # the same file says something else
    other = csa(lab, "profile", "tiny.onnx")
    assert other.returncode == 0 and "sampling_target = 3\n" in (logs / "performance/audit.config").read_text()
    again = csa(lab, "profile", "tiny.onnx", "--no-loadgen")
    assert again.returncode == 0 and not (logs / "user.conf").exists(), again.stderr


def test_frames_that_are_too_fast_end_with_seven(lab: Path, csa: Any, quick: str) -> None:
    done = csa(
        *(lab, "profile", "tiny.onnx", "--fp32", "--iterations", 2, "--threads", 1, "--format", "junit"),
        *("--loadgen", "--loadgen-settings", quick, *RUSHED, "--scenario", "single-stream"),
    )
    assert done.returncode == 7, done.stderr
    assert done.stderr.count("\n") == 1 and "missed, too many for 90 %" in done.stderr
    suites = ElementTree.fromstring(done.stdout)
    cases = {case.attrib["name"]: [child.tag for child in case] for case in suites.iter("testcase")}
    assert cases == {"fp32 constant-stream": ["failure"], "fp32 single-stream": []}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scenario": "constant-stream"}, "scenario= is about MLPerf's load generator"),
        ({"frame_rate": 12}, "frame_rate= is about MLPerf's load generator"),
        ({"loadgen_settings": "full"}, "loadgen_settings= is about MLPerf's load generator"),
        ({"loadgen": True, "scenario": "offlin"}, "unknown scenario 'offlin', did you mean 'offline'?"),
        ({"loadgen": True, "frame_rate": 0}, "frame_rate"),
        ({"loadgen": True, "loadgen_settings": "none.conf"}, "none.conf: no such settings"),
        ({"loadgen": True, "target": "user@board"}, "engines of trtexec are timed by trtexec"),
        ({"loadgen": True, "backend": "trtexec"}, "engines of trtexec are timed by trtexec"),
    ],
)
def test_refused_before_anything_runs(
    make_tiny: Callable[..., onnx.ModelProto], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as error:
        csa_deploy.profile(make_tiny(), **settings, **FAST)
    assert said in error.value.message and error.value.fix


def test_without_it_the_line_says_what_to_install(
    make_tiny: Callable[..., onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    hidden = "mlperf_loadgen"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == hidden else there(name, *rest))
    with pytest.raises(EnvironmentLacksError) as error:
        csa_deploy.profile(make_tiny(), loadgen=True, **FAST)
    assert (error.value.exit_code, error.value.fix) == (3, install_command("mlperf"))


def test_an_error_of_deadlines_from_python(make_tiny: Callable[..., onnx.ModelProto], quick: str) -> None:
    with pytest.raises(PerformanceGateError, match="deadlines of"):
        csa_deploy.profile(
            *(make_tiny(),), loadgen=True, scenario="constant-stream", frame_rate=1e6, loadgen_settings=quick, **FAST
        )


def _children(mark: bytes) -> list[int]:
    """Processes with a mark in their environment, that run the load generator."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() and b"loadgen._child" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("end", ["interrupt", "kill the child", "kill the parent"])
def test_stopped_in_the_middle_it_leaves_nothing(lab: Path, end: str) -> None:
    (lab / "long.conf").write_text("*.*.min_duration = 600000\n*.*.performance_sample_count_override = 4\n")
    words = ("profile", "tiny.onnx", "--fp32", "--iterations", "2", "--threads", "1", "--log-json", "--loadgen")
    mark = f"CSA_TEST_MARK={lab}"
    run = subprocess.Popen(
        [COMMAND, *words, "--loadgen-settings", "long.conf"],
        cwd=lab,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **dict([mark.split("=", 1)])},
    )
    assert run.stderr is not None
    said = []
    for line in run.stderr:
        said.append(json.loads(line))
        if said[-1].get("part") == "fp32/single-stream" and said[-1]["done"] == 3.0:  # the timed run is on
            (child,) = _children(mark.encode())
            if end == "kill the child":
                os.kill(child, signal.SIGKILL)
            else:
                run.send_signal(signal.SIGINT if end == "interrupt" else signal.SIGKILL)
    status = run.wait(timeout=60)
    assert status == {"interrupt": 130, "kill the child": 1, "kill the parent": -signal.SIGKILL}[end]
    if end == "kill the child":
        assert "the process of the load generator ended: exit status -9" in said[-1]["message"]
    deadline = time.monotonic() + 10
    while _children(mark.encode()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _children(mark.encode()) == []
    root = lab / "deploy/tiny"
    assert "profile" not in json.loads((root / "manifest.json").read_text())["stages"]
    assert not (root / "measurements/loadgen").exists()
    assert (root / ".scratch").exists() == (end == "kill the parent")
