"""A Dask cluster of real processes: a scheduler, and workers without a nanny, so that a killed one stays dead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

TIMEOUT = 120.0


@dataclass
class DaskProcesses:
    """Processes of a cluster.

    Attributes:
        folder: of their files.
        address: the scheduler's.
        workers: by number.
    """

    folder: Path
    address: str = ""
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _others: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, count: int) -> None:
        """The scheduler and so many workers."""
        file = self.folder / "scheduler.json"
        self._others.append(self._popen("scheduler", "--port=0", "--dashboard-address=:0", f"--scheduler-file={file}"))
        until(file.is_file)
        with Client(scheduler_file=str(file), timeout=TIMEOUT) as client:
            self.address = client.scheduler.address
        for _ in range(count):
            self.add()

    def add(self, *, env: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()) -> None:
        """Another worker, which is there when this returns."""
        number = len(self.workers)
        with Client(self.address, timeout=TIMEOUT) as client:
            before = len(client.scheduler_info(n_workers=-1)["workers"])
            options = ("--no-nanny", "--nthreads=1", "--no-dashboard", f"--name=w{number}")
            self.workers.append(
                self._popen("worker", self.address, *options, env=env, pass_fds=pass_fds, cwd=self.folder)
            )
            client.wait_for_workers(before + 1, timeout=TIMEOUT)

    def stop(self) -> None:
        """End all."""
        for process in (*self.workers, *self._others):
            process.kill()
            process.wait()

    def _popen(self, *command: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{command[0]}{len(self.workers)}.log").open("wb")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        program = [sys.executable, "-m", "dask", *command]
        return subprocess.Popen(program, stdout=log, stderr=log, env=environment, start_new_session=True, **options)


def until(reached: Callable[[], bool]) -> None:
    """Wait; fail where that takes too long."""
    end = time.monotonic() + TIMEOUT
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def processes(folder: Path, count: int) -> Iterator[DaskProcesses]:
    """A cluster of one's own."""
    found = DaskProcesses(folder)
    try:
        found.start(count)
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler and two workers for tests that leave them as they are."""
    with processes(tmp_path_factory.mktemp("dask"), 2) as found:
        yield found


@pytest.fixture()
def own_cluster(tmp_path: Path) -> Iterator[Callable[[int], DaskProcesses]]:
    """``own_cluster(workers)``: one that a test may break."""
    with ExitStack() as stack:
        folder = tmp_path / "dask"
        folder.mkdir()
        yield lambda count: stack.enter_context(processes(folder, count))
