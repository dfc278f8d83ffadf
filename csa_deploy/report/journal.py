"""The state of a running job, for whoever watches from outside: written beside the manifest, read with it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy.errors import UsageError
from csa_deploy.results import Stored
from csa_deploy.workspace import Workspace, write_atomic

if TYPE_CHECKING:
    from csa_deploy.pipeline import Observer
    from csa_deploy.stages import Activity

PROGRESS = ".progress.json"
_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Running(Stored):
    """What the file says: the process, the stage that runs since ``began``, how far it is, and all of this run."""

    pid: int
    stage: str
    began: float
    done: int | None
    total: int | None
    stages: tuple[str, ...]


@dataclass(frozen=True)
class StageProgress(Stored):
    """A stage: ``done``, ``failed``, ``running``, ``stopped``, ``waiting`` or ``not run``."""

    name: str
    state: str
    seconds: float | None
    summary: str


@dataclass(frozen=True)
class RunningStage(StageProgress):
    """The stage that runs; ``left_seconds`` is None before it can be told."""

    done: int | None
    total: int | None
    left_seconds: float | None


@dataclass(frozen=True)
class JobState(Stored):
    """What is done, what runs and what waits in a workspace; ``running``: a living process works there."""

    root: str
    running: bool
    stages: tuple[StageProgress, ...]


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
        state = Running(os.getpid(), stage.name, self._began, done, total, tuple(self.stages))
        write_atomic(self.root / PROGRESS, json.dumps(state.to_json()) + "\n")
        self._written = time.time()


def job_state(workspace: Workspace, order: list[str]) -> JobState:
    """The state of these stages."""
    now = _read(workspace.root / PROGRESS)
    alive = now is not None and _alive(now.pid)
    stages = tuple(_stage(workspace, name, now, alive) for name in order)
    return JobState(str(workspace.root), alive, stages)


def _stage(workspace: Workspace, name: str, now: Running | None, alive: bool) -> StageProgress:
    if now is not None and now.stage == name:
        return _current(now) if alive else StageProgress(name, "stopped", None, "killed; the next run begins it anew")
    entry = workspace.stages.get(name)
    if entry is None:
        waiting = alive and now is not None and name in now.stages
        return StageProgress(name, "waiting" if waiting else "not run", None, "")
    measured = workspace.measured(name)
    summary = measured.get("summary") or workspace.summary(name)
    return StageProgress(name, "done" if entry.passed else "failed", measured["seconds"], summary)


def _current(now: Running) -> RunningStage:
    seconds, left = time.time() - now.began, None
    if now.done and now.total is not None:
        left = round(seconds / now.done * (now.total - now.done), 1)
    return RunningStage(now.stage, "running", round(seconds, 1), "", now.done, now.total, left)


def _read(path: Path) -> Running | None:
    try:
        return Running.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, UsageError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs, as another user
    return True
