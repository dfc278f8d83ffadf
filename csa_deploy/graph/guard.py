"""Reads what others wrote in a child process with bounds, so that native code that crashes or runs away ends nothing.

onnx's inference, checker and inliner are native code; a damaged file can make them abort, loop or allocate without
bound. A forked child costs some milliseconds and shares what is in memory already.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import pickle
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from csa_deploy.errors import CsaDeployError, UsageError

Result = TypeVar("Result")

MOST_SECONDS = 45
"""Processor time that the reading of one file may take."""

MOST_MEMORY = 3 << 30
"""Bytes that it may take on top of what the process has."""

_COPIES = 6
"""Times that a file's bytes may be in memory: read, parsed, serialized for native code, and again."""

_SECONDS_PER_BYTE = 20 / 2**30

_PATIENCE = 8
"""Seconds on the clock per second of processor time: other work may share the machine."""

_FIX = "copy the file again, and only use files from a source you trust"
_STATUS = Path("/proc/self/statm")


def guarded_reading(work: Callable[[], Result], *files: Path, alone: bool = False) -> Result:
    """What ``work`` returns, done in a child process whose bounds grow with the files that it reads.

    Args:
        work: as for :func:`guarded`.
        alone: whether it reads nothing beside them (the weights of a graph lie beside it).

    Raises:
        UsageError: it failed, or took too long or too much memory.
        CsaDeployError: it raised this.
    """
    size = sum(_size(file, alone) for file in files)
    what = f"reading {' and '.join(map(str, dict.fromkeys(files)))}"
    seconds = MOST_SECONDS + size * _SECONDS_PER_BYTE
    return guarded(work, what, seconds=seconds, memory=MOST_MEMORY + _COPIES * size)


def _size(file: Path, alone: bool) -> int:
    """Bytes of a file, or of all files of its folder."""
    try:
        if alone:
            return file.stat().st_size
        return sum(entry.stat().st_size for entry in os.scandir(file.parent) if entry.is_file(follow_symlinks=False))
    except OSError:
        return 0  # what reads it says why


def guarded(
    work: Callable[[], Result], what: str, *, seconds: float = MOST_SECONDS, memory: int = MOST_MEMORY
) -> Result:
    """What ``work`` returns, done in a child process.

    Args:
        work: reads something; its result must be picklable, what it changes is lost.
        what: for the message: ``"reading FILE"``.
        seconds: processor time that it may take.
        memory: bytes that it may take.

    Raises:
        UsageError: it failed, or took too long or too much memory.
        CsaDeployError: it raised this.
    """
    if not hasattr(os, "fork"):  # bounds need one
        return work()
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _in_child(work, theirs, seconds, memory)
    os.close(theirs)
    try:
        answer = _read(ours, time.monotonic() + _PATIENCE * seconds)
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        answer = b""
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    _, status = os.waitpid(child, 0)
    return _result(answer, status, what, seconds, memory)


def _read(pipe: int, deadline: float) -> bytes:
    """What the child writes until it ends; nothing when it neither works nor ends."""
    found = bytearray()
    with os.fdopen(pipe, "rb", buffering=0) as stream:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                raise TimeoutError
            block = stream.read(1 << 20)
            if not block:
                return bytes(found)
            found += block


def _result(answer: bytes, status: int, what: str, seconds: float, memory: int) -> Any:
    if os.WIFSIGNALED(status) or not answer:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number in (signal.SIGXCPU, signal.SIGKILL):
            raise UsageError(f"{what} takes more than {seconds:.0f} s", fix=_FIX)
        raise UsageError(f"{what} crashes ({signal.Signals(number).name if number else 'no answer'})", fix=_FIX)
    kind, value = _unpickled(answer)
    if kind == "memory":
        raise UsageError(f"{what} takes more than {memory >> 20} MiB", fix=_FIX)
    if kind == "error":
        raise value
    if kind == "internal":
        raise UsageError(f"{what} fails: {value}", fix=_FIX)
    return value


def _unpickled(answer: bytes) -> tuple[str, Any]:
    collected = gc.isenabled()
    gc.disable()  # it would walk what grows, again and again: twice the time for 10,000 nodes
    try:
        found: tuple[str, Any] = pickle.loads(answer)  # noqa: S301 - our own child wrote it
        return found
    finally:
        if collected:
            gc.enable()


def _in_child(work: Callable[[], object], stream: int, seconds: float, memory: int) -> None:
    """Do the work, write what came of it, and end the process without unwinding what the parent set up."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says that it was interrupted
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        _limit(seconds, memory)
        faulthandler.disable()  # a crash is an answer here
        gc.disable()
        answer = pickle.dumps(_outcome(work), pickle.HIGHEST_PROTOCOL)
        with os.fdopen(stream, "wb") as file:
            file.write(answer)
    finally:
        os._exit(0)


def _outcome(work: Callable[[], object]) -> tuple[str, object]:
    try:
        return "done", work()
    except CsaDeployError as error:
        return "error", error
    except MemoryError:
        return "memory", None
    except BaseException as error:
        logging.getLogger(__name__).debug("in the child process", exc_info=error)
        return "internal", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _limit(seconds: float, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an answer; its core file would be litter
    _lower(resource.RLIMIT_CPU, int(sum(os.times()[:2]) + seconds))
    if _STATUS.is_file():
        _lower(resource.RLIMIT_AS, int(_STATUS.read_text().split()[0]) * resource.getpagesize() + memory)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # native code prints there, and the result may be asked for as JSON
    if not logging.getLogger("csa_deploy").isEnabledFor(logging.DEBUG):
        os.dup2(nowhere, 2)  # what it says before it aborts


def _lower(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
