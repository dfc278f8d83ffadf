"""CPU seconds of the help page, against polygraphy's."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.pairs import Ratio, measure

PAIRS = 15


def run() -> list[Ratio]:
    """User and system CPU seconds of whole processes."""
    ours, theirs = (Path(sys.executable).with_name(name) for name in ("csa-deploy", "polygraphy"))
    a, b = ("csa-deploy --help", cpu_of([ours, "--help"])), ("polygraphy --help", cpu_of([theirs, "--help"]))
    return [measure("start-up, CPU seconds", a, b, PAIRS)]


def cpu_of(command: list[str | Path]) -> Callable[[], float]:
    """A function that runs a command and returns its CPU seconds."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return once
