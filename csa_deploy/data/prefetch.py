"""Reading ahead in threads: Pillow decodes and resizes without Python's lock.

Beside a network that computes on every core, threads that read ahead would cost it more than their own time, as its
threads wait for one another whenever one of them has to share its core. Reading at a lower priority is no way out: a
thread that the system holds back may hold Python's lock. So the two take turns there: a few samples are read on all
cores, then the network has the cores to itself. Where it leaves enough cores free, samples are read on those meanwhile.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = min(8, CORES)  # a decoded photograph may take 100 MB


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], count: int, free_cores: int = 0
) -> Iterator[Result]:
    """``map`` in threads, in order, with at most ``count`` results waiting: memory stays bounded.

    Args:
        items: taken one by one, in the caller's thread.
        count: of results ready or under way.
        free_cores: cores that the caller leaves idle between taking results. If they are less than half of
            :data:`WORKERS`, nothing is done between them: all cores in turns are faster than few all the time.

    Raises:
        Exception: of ``function``, where its result would have come.
    """
    beside = 2 * free_cores >= WORKERS
    pool = ThreadPoolExecutor(min(free_cores, WORKERS) if beside else WORKERS, thread_name_prefix="csa-deploy-data")
    source, waiting = iter(items), deque[Future[Result]]()
    try:
        while True:
            if beside or not waiting:
                waiting.extend(pool.submit(function, item) for item in islice(source, count - len(waiting)))
            if not waiting:
                return
            if not beside:
                wait(waiting)
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
