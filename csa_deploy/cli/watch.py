"""``csa-deploy watch``: the state of a job that another process runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.tables import titled

if TYPE_CHECKING:
    from rich.table import Table

    from csa_deploy.report.journal import JobState

_STYLE = {"done": "green", "failed": "red", "running": "cyan", "stopped": "yellow"}
_EVERY_SECONDS = 1.0


@flags("watch")
def watch(
    console: Console,
    settings: dict[str, Any],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Workspace, such as deploy/convselfattn.")],
    once: Annotated[bool, typer.Option("--once", help="Show the state once and return.")] = False,
) -> None:
    """Watch a running job.

    Shows each stage with its time, and the time left of the one that runs; ends with the job. As JSON it shows the
    state once.
    """
    state = _state(directory)
    console.answer.add(state.to_json())
    if once or console.answer.as_json or not console.out.is_terminal:
        console.show(_table(state))
    else:
        _follow(directory, console)


def _follow(directory: Path, console: Console) -> None:
    from rich.live import Live

    quiet_since: float | None = None
    with Live(_table(_state(directory)), console=console.out) as live:
        # Between two stages nothing runs for a moment; the job has ended when that lasts.
        while quiet_since is None or time.monotonic() - quiet_since < 2 * _EVERY_SECONDS:
            time.sleep(_EVERY_SECONDS)
            state = _state(directory)
            quiet_since = None if state.running else quiet_since or time.monotonic()
            live.update(_table(state))


def _state(directory: Path) -> JobState:
    from csa_deploy.errors import UsageError
    from csa_deploy.report.journal import PROGRESS, job_state
    from csa_deploy.stages import STAGES
    from csa_deploy.workspace import MANIFEST, Workspace

    if not (directory / MANIFEST).is_file() and not (directory / PROGRESS).is_file():
        raise UsageError(f"{directory}: no workspace", fix="give the directory of a run, such as deploy/convselfattn")
    return job_state(Workspace(directory), list(STAGES))


def _table(state: JobState) -> Table:
    from rich.markup import escape

    from csa_deploy.report.journal import RunningStage

    title = f"{escape(state.root)}: {'running' if state.running else 'idle'}"
    table = titled(title, ("stage", "state", "time", "left", "result"), right=("time", "left"))
    for stage in state.stages:
        style, share, left = _STYLE.get(stage.state, "dim"), "", None
        if isinstance(stage, RunningStage):
            share, left = f" {100 * (stage.done or 0) / stage.total:.0f} %" if stage.total else "", stage.left_seconds
        shown = f"[{style}]{stage.state}{share}[/{style}]"
        table.add_row(stage.name, shown, _seconds(stage.seconds), _seconds(left), escape(stage.summary))
    return table


def _seconds(value: float | None) -> str:
    from csa_deploy import units

    return "" if value is None else units.duration(value)
