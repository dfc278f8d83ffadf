"""Drives :mod:`worker`: a process that dies or does not answer is a failure of the file that it read."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MOST_SECONDS = 60.0  # of processor time
_PATIENCE = 5  # on a machine that does other work
MOST_MEMORY = 4 * 2**30


@dataclass(frozen=True)
class Outcome:
    """What came of a file.

    Attributes:
        outcome: ``done``, a documented exit code, ``internal``, ``signal N`` or ``no answer``.
        detail: the error's line.
        seconds: processor time that it took.
        peak: most bytes that the reading process had so far.
    """

    outcome: str
    detail: str = ""
    seconds: float = 0.0
    peak: int = 0

    @property
    def failure(self) -> str:
        """Why it is not as promised; empty where it is."""
        if self.outcome not in ("done", "2", "3", "4", "5", "6", "7"):
            return f"{self.outcome}: {self.detail}"
        if self.seconds > MOST_SECONDS:
            return f"{self.seconds} s"
        return f"{self.peak / 2**30:.1f} GiB" if self.peak > MOST_MEMORY else ""


class Reader:
    """A worker process, started again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def read(self, verb: str, path: Path) -> Outcome:
        process = self._process = self._process or self._start()
        assert process.stdin and process.stdout
        start = time.monotonic()
        process.stdin.write(f"{verb} {path}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], _PATIENCE * MOST_SECONDS)[0]:
            self._end()
            return Outcome("no answer", f"in {MOST_SECONDS:g} s", time.monotonic() - start)
        line = process.stdout.readline()
        if line:
            found = Outcome(**json.loads(line))
            if found.peak > MOST_MEMORY:
                self._end()  # its peak would be counted against the next file
            return found
        code = process.wait()
        self._end()
        return Outcome(f"signal {-code}" if code < 0 else f"ended with {code}", "", time.monotonic() - start)

    def _start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
            start_new_session=True,
        )

    def _end(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream:
                    stream.close()
            self._process = None


def read_all(verb: str, files: Iterable[tuple[str, bytes]], folder: Path) -> Iterator[tuple[str, Outcome]]:
    """Read named contents one after another; each gives its name and what came of it."""
    path = folder / "damaged.onnx"
    with Reader() as reader:
        for name, data in files:
            path.write_bytes(data)
            yield name, reader.read(verb, path)
