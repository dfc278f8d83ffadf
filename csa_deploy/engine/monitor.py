"""Turns TensorRT's nested build phases into one fraction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

THOUSANDTHS = 1000  # progress is reported in thousandths


@dataclass
class _Phase:
    parent: str | None
    total: int
    done: int = 0


class PhaseProgress:
    """Thousandths done, from the phases that the builder announces.

    A phase inside another fills one step of it. The fraction never goes back: a builder may run a phase of the same
    name again for the next subgraph.

    Args:
        report: called with (done, :data:`THOUSANDTHS`) when the number of thousandths grows.
    """

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report = report
        self._phases: dict[str, _Phase] = {}
        self._best = 0

    def start(self, name: str, parent: str | None, total: int) -> None:
        """A phase of ``total`` steps begins."""
        self._phases[name] = _Phase(parent, max(total, 1))

    def step(self, name: str, index: int) -> None:
        """Step ``index`` (from 0) of a phase is complete."""
        self._phases[name].done = index + 1
        fraction, current = 0.0, self._phases.get(name)
        while current is not None:
            fraction = min(1.0, (current.done + fraction) / current.total)
            current = self._phases.get(current.parent) if current.parent else None
        thousandths = int(fraction * THOUSANDTHS)
        if thousandths > self._best:
            self._best = thousandths
            self._report(thousandths, THOUSANDTHS)

    def finish(self, name: str) -> None:
        """A phase ends."""
        self._phases.pop(name, None)


def progress_monitor(trt: Any, report: Callable[[int, int], None]) -> Any:
    """TensorRT's IProgressMonitor around :class:`PhaseProgress`; None where the version has no such interface."""
    if not hasattr(trt, "IProgressMonitor"):
        return None
    progress = PhaseProgress(report)

    class Monitor(trt.IProgressMonitor):
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.step(phase_name, step)
            return True  # False would cancel; a build is cancelled by ending its process

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
