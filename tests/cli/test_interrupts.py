"""Ctrl-C and SIGKILL in each stage: nothing half-written counts, and the next run ends as an undisturbed one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from csa_deploy.stages import with_needs

COMMAND = Path(sys.executable).with_name("csa-deploy")
RUN = ("run", "csa_digits", "--samples", "50", "--iterations", "20", "--log-json")
needs_rtx = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import tensorrt_rtx"], capture_output=True).returncode != 0,
    reason="TensorRT-RTX is not installed",
)


STAGES = [stage.name for stage in with_needs(("check", "build", "verify", "profile", "report"))]


def stop_in(stage: str, number: int, cwd: Path) -> tuple[int, list[dict[str, Any]]]:
    """Start a run in ``cwd`` and send it a signal when the stage says that it begins; its end, and what it said."""
    run = subprocess.Popen(
        [COMMAND, *RUN], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert run.stderr is not None
    said = []
    for line in run.stderr:
        said.append(json.loads(line))
        if said[-1]["event"] == "started" and said[-1]["stage"] == stage:
            run.send_signal(number)
    return run.wait(timeout=60), said


def manifest(cwd: Path) -> bytes:
    return (cwd / "deploy/csa_digits/manifest.json").read_bytes()


@pytest.mark.slow
@pytest.mark.rtx
@needs_rtx
def test_killed_in_each_stage_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """One workspace is killed in every stage, one after the other; what was finished before is kept each time."""
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for place in (calm, killed):
        place.mkdir()
    assert subprocess.run([COMMAND, *RUN], cwd=calm, capture_output=True).returncode == 0
    order = STAGES
    for index, stage in enumerate(order):
        status, said = stop_in(stage, signal.SIGKILL, killed)
        assert status == -signal.SIGKILL
        states = {e["stage"]: e["state"] for e in said if e["event"] == "finished"}
        # Killed at its start, no stage ended: the one before it ran in this attempt, those before that were kept.
        assert [name for name, state in states.items() if state == "kept"] == order[: max(0, index - 1)]
    last = subprocess.run([COMMAND, *RUN], cwd=killed, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert manifest(killed) == manifest(calm)
    for stated in json.loads(manifest(calm))["stages"].values():
        for path in stated["artifacts"]:
            first, second = (place / "deploy/csa_digits" / path for place in (calm, killed))
            assert first.read_bytes() == second.read_bytes(), path
    assert not (killed / "deploy/csa_digits/.scratch").exists()


@pytest.mark.slow
@pytest.mark.rtx
@needs_rtx
def test_interrupted_in_each_stage(tmp_path: Path) -> None:
    for stage in STAGES:
        status, said = stop_in(stage, signal.SIGINT, tmp_path)
        assert status == 130, (stage, said[-3:])
        assert said[-1]["event"] == "error" and said[-1]["message"].startswith("interrupted; what was finished is kept")
        assert not (tmp_path / "deploy/csa_digits/.scratch").exists()
    assert subprocess.run([COMMAND, *RUN], cwd=tmp_path, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.rtx
@needs_rtx
def test_a_killed_run_leaves_no_builder_behind(lab: Path) -> None:
    """The builder is a process of its own, and would write into the next run's directory."""
    environment = {**os.environ, "CSA_TEST_MARK": str(lab)}
    run = subprocess.Popen(
        [COMMAND, "run", "tiny.onnx", "--data", "x.npz", "--log-json"],
        cwd=lab,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert run.stderr is not None
    for line in run.stderr:
        event = json.loads(line)
        if event["event"] == "progress" and event["stage"] == "build":
            run.kill()
            break
    run.wait(timeout=30)
    mark = f"CSA_TEST_MARK={lab}".encode()
    import time

    time.sleep(1.0)
    left = [p for p in Path("/proc").glob("[0-9]*") if _has(p / "environ", mark)]
    assert left == []


def _has(environ: Path, mark: bytes) -> bool:
    try:
        return mark in environ.read_bytes().split(b"\0")
    except OSError:
        return False
