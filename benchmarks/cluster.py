"""What a cluster costs and brings: a task that does nothing, whether the scheduler holds, two workers for one."""

from __future__ import annotations

import time

from distributed import Client, LocalCluster, get_task_stream

import csa_deploy
from benchmarks.pairs import Ratio, measure
from csa_deploy.cluster.parts import shares_of

SAMPLES, NETWORKS = 10_000, 20
COMPARED = 300
PAIRS = 3


def run() -> list[Ratio]:
    """Tasks that do nothing, alone and as many as a fleet has; one comparison on one local worker and on two."""
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as two:
        rows = _tasks(two)
        with LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as one:
            return [*rows, *_workers(one, two)]


def _tasks(cluster: LocalCluster) -> list[Ratio]:
    """Milliseconds for a task that does nothing, and for one of all shares of :data:`NETWORKS` networks."""
    shares = NETWORKS * len(shares_of(SAMPLES, 1))
    with Client(cluster) as client:

        def each(count: int) -> float:
            start = time.perf_counter()
            client.gather([client.submit(int, n, pure=False) for n in range(count)])
            return 1e3 * (time.perf_counter() - start) / count

        said = f"ms for a task that does nothing; {SAMPLES:,} samples of {NETWORKS} networks are {shares:,} shares"
        few, many = ("100 tasks", lambda: each(100)), (f"{shares:,} tasks", lambda: each(shares))
        return [measure(said, many, few, PAIRS)]


def _workers(one: LocalCluster, two: LocalCluster) -> list[Ratio]:
    """Seconds of one comparison, and the share of the workers' time in which samples ran."""
    exported = csa_deploy.export("csa_digits")
    half = csa_deploy.to_fp16(exported.graph)
    shares: list[tuple[float, float]] = []

    def compared(cluster: LocalCluster) -> float:
        with Client(cluster) as client, get_task_stream(client) as stream:
            start = time.perf_counter()
            csa_deploy.compare(exported, half, samples=COMPARED, threads=1, cluster=cluster.scheduler_address)
            seconds = time.perf_counter() - start
        tasks = [task for task in stream.data if task["key"].startswith("run_share")]
        spent = [(part["start"], part["stop"]) for task in tasks for part in task["startstops"]]
        whole = len(cluster.workers) * (max(stop for _, stop in spent) - min(start for start, _ in spent))
        busy = sum(
            part["stop"] - part["start"] for task in tasks for part in task["startstops"] if part["action"] == "compute"
        )
        if cluster is two:
            shares.append((busy, whole))
        return seconds

    said = f"seconds of a comparison of {COMPARED} digits in PyTorch and FP16"
    scaling = measure(said, ("two workers", lambda: compared(two)), ("one worker", lambda: compared(one)), PAIRS)
    at_work = Ratio.of("seconds of two workers in which samples ran", "running", "all", shares[1:])
    return [scaling, at_work]
