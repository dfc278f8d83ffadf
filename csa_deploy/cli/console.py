"""What the user sees while stages run: bars on a terminal, lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from csa_deploy.cli.answer import Answer, answer_to_nobody

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID

    from csa_deploy.stages import Activity
    from csa_deploy.workspace import Workspace

MARK = {"done": "[green]✓[/green]", "kept": "[dim]=[/dim]", "failed": "[red]✗[/red]"}


class Console:
    """Output of one command.

    Args:
        verbose: 0 progress and results, 1 also notices, 2 everything.
        quiet: errors only; results go to the workspace alone.
        log_json: progress as one JSON object per line on stderr.
        answer: the result for machines; where one is asked for, standard output is for that alone.
    """

    def __init__(
        self, verbose: int = 0, quiet: bool = False, log_json: bool = False, answer: Answer | None = None
    ) -> None:
        self.verbose, self.quiet, self.log_json = verbose, quiet, log_json
        self.answer = answer or Answer()
        level = logging.ERROR if quiet else {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
        logging.basicConfig(
            level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
        )
        if log_json:
            logging.root.handlers[0].setFormatter(_JsonLines())
        logging.getLogger("csa_deploy").setLevel(level)
        for library in ("onnx_ir", "onnxscript"):  # they warn of what is harmless to a user
            logging.getLogger(library).setLevel(logging.ERROR)

    @property
    def out(self) -> RichConsole:
        """Where results go: standard output."""
        return _terminal(self.quiet or self.answer.as_json, None if sys.stdout.isatty() else 140)

    def show(self, *renderables: Any) -> None:
        """Print results."""
        self.out.print(*renderables)

    def plain(self, *lines: str) -> None:
        """Print text as it is, however wide, also with ``--quiet``: for verbs whose only work is to say something."""
        if not self.answer.as_json:
            self.write("".join(f"{line}\n" for line in lines))

    def write(self, text: str) -> None:
        """Write a result in another form than text."""
        with answer_to_nobody():
            sys.stdout.write(text)
            sys.stdout.flush()

    def notice(self, *renderables: Any) -> None:
        """Print what is not the result: standard error, so that a machine-readable result stays whole."""
        from rich.console import Console as RichConsole

        lines = all(isinstance(item, str) for item in renderables)  # which stay whole
        told = RichConsole(stderr=True, quiet=self.quiet or self.log_json, highlight=False)
        told.print(*renderables, soft_wrap=lines)

    def event(self, event: str, **fields: Any) -> None:
        """One JSON line, with ``--log-json``."""
        if self.log_json:
            line = {"time": round(time.time(), 3), "event": event, **fields}
            sys.stderr.write(json.dumps(line, default=str) + "\n")
            sys.stderr.flush()

    def verdict(self, workspace: Workspace) -> None:
        """The last event of a verb that ran stages: what came out of the whole workspace, gate by gate."""
        if self.log_json and workspace.stages:
            from csa_deploy.report.data import collect

            found = collect(workspace).verdict
            gates = [{"name": c.name, "state": c.state, "text": c.text} for c in found.checks]
            self.event("verdict", state=found.state, gates=gates, reasons=found.reasons)

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """An observer for :func:`csa_deploy.pipeline.run_stages`."""
        from rich.console import Console as RichConsole

        terminal = RichConsole(stderr=True, highlight=False)
        live = terminal.is_terminal and not (self.quiet or self.log_json)
        if not live:
            yield Watcher(self, None, terminal)
            return
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.fields[name]:<10}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[part]}"),
        )
        with Progress(*columns, console=terminal, transient=True) as bars:
            yield Watcher(self, bars, terminal)


def _terminal(quiet: bool, width: int | None) -> RichConsole:
    """Standard output, whose reader may leave early: the command still ends with the exit code of its result."""
    from rich.console import Console as RichConsole

    class Terminal(RichConsole):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return Terminal(quiet=quiet, width=width, highlight=False)


class _JsonLines(logging.Formatter):
    """A notice as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {"time": round(record.created, 3), "event": "log", "level": record.levelname}
        return json.dumps({**line, "message": super().format(record)})


class Watcher:
    """Shows stages as they run; see :class:`csa_deploy.pipeline.Observer`."""

    def __init__(self, console: Console, bars: Progress | None, terminal: RichConsole) -> None:
        self.console, self.bars, self.terminal = console, bars, terminal
        self.task: TaskID | None = None

    def started(self, stage: Activity) -> None:
        """A stage begins."""
        self.console.event("started", stage=stage.name)
        if self.bars is not None:
            self.task = self.bars.add_task(stage.title, name=stage.name, part="", total=None)

    def progress(self, stage: Activity, done: int, total: int, part: str = "") -> None:
        """A stage advances, in a part of it where it has several."""
        self.console.event("progress", stage=stage.name, done=done, total=total, **({"part": part} if part else {}))
        if self.bars is not None and self.task is not None:
            self.bars.update(self.task, completed=done, total=total, part=part)

    def finished(self, stage: Activity, state: str, seconds: float, summary: str) -> None:
        """A stage ended: its line stays on the screen."""
        self.console.event("finished", stage=stage.name, state=state, seconds=round(seconds, 3), summary=summary)
        if self.bars is not None and self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None
        if self.console.quiet or self.console.log_json:
            return
        from rich.markup import escape

        took = f"{seconds:6.1f} s" if state != "kept" else "    kept"
        self.terminal.print(f"{MARK[state]} {stage.name:<10} {took}  {escape(summary)}", soft_wrap=True)
