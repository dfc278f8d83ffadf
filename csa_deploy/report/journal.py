"""The state of a running job, for whoever watches from outside: written beside the manifest, read with it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.workspace import Workspace, write_atomic

if TYPE_CHECKING:
    from csa_deploy.pipeline import Observer
    from csa_deploy.stages import Activity

PROGRESS = ".progress.json"
_EVERY_SECONDS = 0.5


class Journal:
    """An observer that passes everything on, and writes what runs at most twice a second.

    Args:
        inner: the observer that shows the run.
        stages: names of the stages that this run will go through.
    """

    def __init__(self, inner: Observer, root: Path, stages: list[str]) -> None:
        self.inner, self.root, self.stages = inner, root, stages
        self._began = 0.0
        self._written = 0.0

    def started(self, stage: Activity) -> None:
        """A stage begins."""
        self._began = time.time()
        self._write(stage, None, None)
        self.inner.started(stage)

    def progress(self, stage: Activity, done: int, total: int, part: str = "") -> None:
        """A stage advances."""
        if time.time() - self._written >= _EVERY_SECONDS:
            self._write(stage, done, total)
        self.inner.progress(stage, done, total, *filter(None, [part]))

    def finished(self, stage: Activity, state: str, seconds: float, summary: str) -> None:
        """A stage ended."""
        (self.root / PROGRESS).unlink(missing_ok=True)
        self.inner.finished(stage, state, seconds, summary)

    def _write(self, stage: Activity, done: int | None, total: int | None) -> None:
        state = {"pid": os.getpid(), "stage": stage.name, "began": self._began, "done": done, "total": total}
        write_atomic(self.root / PROGRESS, json.dumps({**state, "stages": self.stages}) + "\n")
        self._written = time.time()


def job_state(workspace: Workspace, order: list[str]) -> dict[str, Any]:
    """What is done, what runs and what waits in a workspace.

    Returns:
        ``running`` (whether a living process works there), ``stages``: per stage its ``state`` (``done``, ``failed``,
        ``running``, ``stopped``, ``waiting`` or ``not run``), ``seconds``, ``summary``, and for the running one
        ``done``, ``total`` and ``left_seconds`` (None before it can be told).
    """
    now = _read(workspace.root / PROGRESS)
    alive = now is not None and _alive(now["pid"])
    stages = [_stage(workspace, name, now, alive) for name in order]
    return {"root": str(workspace.root), "running": alive, "stages": stages}


def _stage(workspace: Workspace, name: str, now: dict[str, Any] | None, alive: bool) -> dict[str, Any]:
    if now is not None and now["stage"] == name:
        return _current(name, now, alive)
    entry = workspace.stages.get(name)
    if entry is None:
        waiting = alive and now is not None and name in now["stages"]
        return {"name": name, "state": "waiting" if waiting else "not run", "seconds": None, "summary": ""}
    measured = workspace.measured(name)
    summary = measured.get("summary") or workspace.summary(name)
    state = "done" if entry.passed else "failed"
    return {"name": name, "state": state, "seconds": measured["seconds"], "summary": summary}


def _current(name: str, now: dict[str, Any], alive: bool) -> dict[str, Any]:
    seconds, left = time.time() - now["began"], None
    if now["done"]:
        left = round(seconds / now["done"] * (now["total"] - now["done"]), 1)
    if not alive:
        return {"name": name, "state": "stopped", "seconds": None, "summary": "killed; the next run begins it anew"}
    return {
        "name": name,
        "state": "running",
        "seconds": round(seconds, 1),
        "summary": "",
        "done": now["done"],
        "total": now["total"],
        "left_seconds": left,
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs, as another user
    return True
