"""Work done ahead in threads: Pillow decodes and resizes without Python's lock, so the network does not wait.

On few cores the threads would take them from the network, whose own threads then wait for one another. So they run at a
lower priority: in the time that the network leaves, and at full speed when it waits for them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = min(4, os.cpu_count() or 1)
NICE = 5  # a third of the time of a thread that competes; much less would stall the network on a busy machine


def ahead(function: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    """``map`` in threads, in order, with at most ``count`` results waiting: memory stays bounded.

    An exception of ``function`` is raised where its result would have come.
    """
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="csa-deploy-data", initializer=_step_back)
    source = iter(items)
    try:
        waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(source, count))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _step_back() -> None:
    """Lower the priority of this thread alone, where the system (Linux) has one per thread."""
    with contextlib.suppress(AttributeError, OSError):
        here = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, here, os.getpriority(os.PRIO_PROCESS, here) + NICE)
