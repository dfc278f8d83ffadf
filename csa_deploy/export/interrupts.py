"""Ctrl-C while an exporter runs.

PyTorch's exporters do not survive an interrupt: an exception between two of their modes ends the process in C++
(``terminate called after throwing an instance of 'c10::Error'``), and dynamo's import makes an error of its own of it,
after which the export seems to have failed.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """The first ctrl-C takes effect at the end of the block, which ends as usual; a second one at once.

    Elsewhere than in the main thread, and where interrupts are ignored or handled by others, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    asked: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        logger.warning("interrupted: the exporter comes to its end first; ctrl-C again stops at once")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            raise KeyboardInterrupt


def pass_on_interrupt(error: BaseException | None) -> None:
    """Raise the KeyboardInterrupt that a library made an error of its own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        seen.add(id(error))
        error = error.__cause__ or error.__context__
