"""What a cluster costs and brings: samples that cost nothing, whether the scheduler holds, two workers for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from distributed import Client, LocalCluster, get_task_stream

import csa_deploy
from benchmarks.pairs import Ratio, measure
from csa_deploy.cluster.parts import KeptShares, SharePart, shares_of
from csa_deploy.cluster.spread import parts_of
from csa_deploy.cluster.worker import Local, Run
from csa_deploy.data.arrays import RandomDataset
from csa_deploy.data.base import Dataset

SAMPLES, NETWORKS = 10_000, 20
SINGLE = 5_120
COMPARED = 1_000
PAIRS = 3


def run() -> list[Ratio]:
    """Samples that cost nothing, in the shares of a fleet and one by one; a comparison on one local worker and two."""
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as two:
        rows = _tasks(two)
        with LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as one:
            return [*rows, *_workers(one, two)]


@dataclass(frozen=True)
class Nothing:
    """A job whose samples cost nothing: all that is left is what sending them costs."""

    data: Dataset
    batch: int = 1

    def files(self) -> Sequence[Path]:
        """None."""
        return ()

    def open(self, stack: ExitStack, local: Local) -> Run:
        """Answers at once."""
        return nothing


def nothing(share: range) -> SharePart:
    """Of some samples their places."""
    return SharePart({"places": np.asarray(share)}, {})


def _tasks(cluster: LocalCluster) -> list[Ratio]:
    """Milliseconds of a share that costs nothing, by the clock and of all processes' CPU time."""
    shares = shares_of(SAMPLES, 1)

    def spread(networks: int, shares: Sequence[range]) -> tuple[float, float]:
        with Client(cluster) as client, TemporaryDirectory() as folder:
            job = Nothing(RandomDataset({"x": (1,)}, shares[-1].stop, seed=0))
            start, cpu = time.perf_counter(), _cpu_seconds()
            for network in range(networks):
                kept = KeptShares(Path(folder) / "shares", f"{network:016}")
                for share, part in parts_of(client, job, shares, nothing, kept, lambda *said: None):
                    assert part is not None and np.array_equal(part.arrays["places"], share)
            tasks = networks * (len(shares) - 1)
            return 1e3 * (time.perf_counter() - start) / tasks, 1e3 * (_cpu_seconds() - cpu) / tasks

    spread(1, shares)  # workers start
    singles = [range(n, n + 1) for n in range(SINGLE + 1)]
    many, few = spread(1, singles), spread(NETWORKS, shares)
    names = f"{SINGLE:,} shares of one network", f"{NETWORKS * (len(shares) - 1):,} shares"
    said = f"of a share that costs nothing; {SAMPLES:,} samples of {NETWORKS} networks are the latter"
    return [
        Ratio.of(f"ms of {k} {said}", *names, [(a, b)]) for k, a, b in zip(("clock", "CPU"), many, few, strict=True)
    ]


def _cpu_seconds() -> float:
    """Of this process and of all that it started and that run."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def _workers(one: LocalCluster, two: LocalCluster) -> list[Ratio]:
    """One comparison: seconds by the clock and of CPU time, and the share of the workers' time in which samples ran."""
    exported = csa_deploy.export("csa_digits")
    half = csa_deploy.to_fp16(exported.graph)
    shares: list[tuple[float, float]] = []
    spent: dict[LocalCluster, list[float]] = {one: [], two: []}

    def compared(cluster: LocalCluster) -> float:
        with Client(cluster) as client, get_task_stream(client) as stream:
            start, cpu = time.perf_counter(), _cpu_seconds()
            csa_deploy.compare(exported, half, samples=COMPARED, threads=1, cluster=cluster.scheduler_address)
            seconds = time.perf_counter() - start
            spent[cluster].append(_cpu_seconds() - cpu)
        tasks = [task for task in stream.data if task["key"].startswith("run_share")]
        parts = [(part["start"], part["stop"]) for task in tasks for part in task["startstops"]]
        whole = len(cluster.workers) * (max(stop for _, stop in parts) - min(start for start, _ in parts))
        busy = sum(
            part["stop"] - part["start"] for task in tasks for part in task["startstops"] if part["action"] == "compute"
        )
        if cluster is two:
            shares.append((busy, whole))
        return seconds

    def on(cluster: LocalCluster) -> Callable[[], float]:
        return lambda: compared(cluster)

    said = f"seconds of a comparison of {COMPARED} digits in PyTorch and FP16"
    scaling = measure(said, ("two workers", on(two)), ("one worker", on(one)), PAIRS)
    of_cpu = list(zip(spent[two][1:], spent[one][1:], strict=True))
    at_work = Ratio.of("seconds of two workers in which samples ran", "running", "all", shares[1:])
    return [scaling, Ratio.of(f"CPU {said}", "two workers", "one worker", of_cpu), at_work]
