"""The state of a running job, seen from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from csa_deploy.pipeline import Silent
from csa_deploy.records.report import ReportRecord
from csa_deploy.report.journal import PROGRESS, Journal, job_state
from csa_deploy.stages import STAGES
from csa_deploy.workspace import StageOutput, Workspace

ORDER = list(STAGES)


def states(root: Path) -> dict[str, str]:
    return {s.name: s.state for s in job_state(Workspace(root), ORDER).stages}


def test_shows_done_running_and_waiting(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.commit("export", "key", StageOutput(ReportRecord(summary="fine"), measured={"seconds": 1.5}))
    journal = Journal(Silent(), tmp_path, ["export", "check", "optimize"])
    journal.started(STAGES["check"])
    got = states(tmp_path)
    assert (got["export"], got["check"], got["optimize"], got["build"]) == ("done", "running", "waiting", "not run")
    journal.finished(STAGES["check"], "done", 1.0, "")
    assert states(tmp_path)["check"] == "not run"  # the manifest decides what is done
    assert not (tmp_path / PROGRESS).exists()


def test_tells_the_time_left(tmp_path: Path) -> None:
    journal = Journal(Silent(), tmp_path, ["verify"])
    journal.started(STAGES["verify"])
    journal._written = 0.0
    journal.progress(STAGES["verify"], 25, 100)
    (stage,) = [s for s in job_state(Workspace(tmp_path), ORDER).stages if s.name == "verify"]
    assert (stage.done, stage.total) == (25, 100)
    assert stage.left_seconds is not None


def test_progress_is_written_at_most_twice_a_second(tmp_path: Path) -> None:
    journal = Journal(Silent(), tmp_path, ["verify"])
    journal.started(STAGES["verify"])
    journal.progress(STAGES["verify"], 1, 1000)
    assert json.loads((tmp_path / PROGRESS).read_text())["done"] is None


def test_a_killed_job_is_stopped_not_running(tmp_path: Path) -> None:
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    state = {"pid": gone, "stage": "build", "began": 0.0, "done": None, "total": None, "stages": ["build"]}
    (tmp_path / PROGRESS).write_text(json.dumps(state))
    got = job_state(Workspace(tmp_path), ORDER)
    assert not got.running
    assert states(tmp_path)["build"] == "stopped"


def test_the_command_shows_a_finished_run(digits: Any, csa: Any) -> None:
    shown = json.loads(csa(digits.cwd, "watch", digits.root, "--format", "json").stdout)
    assert not shown["running"]
    assert {s["name"]: s["state"] for s in shown["stages"]}["verify"] == "done"
    assert "export" in csa(digits.cwd, "watch", digits.root).stdout
    assert csa(digits.cwd, "watch", "nowhere").returncode == 2
