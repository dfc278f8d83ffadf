"""Work done ahead in threads: Pillow decodes and resizes without Python's lock, so the network does not wait."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = min(4, os.cpu_count() or 1)


def ahead(function: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    """``map`` in threads, in order, with at most ``count`` results waiting: memory stays bounded.

    An exception of ``function`` is raised where its result would have come.
    """
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="csa-deploy-data")
    source = iter(items)
    try:
        waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(source, count))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
