"""Runs a program of this machine for hours: its log is masked and read as it comes, and its end is certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from csa_deploy.errors import CsaDeployError, EnvironmentLacksError
from csa_deploy.trtexec.safe.secrets import masked

_POLL_S = 0.2
_GRACE_S = 10.0


def run_watched(
    argv: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    limit_s: float,
    lost: Callable[[], CsaDeployError | None],
    told: Callable[[str], None],
    terminal: bool = False,
) -> tuple[int, str]:
    """Run a program to its end, or end it.

    Args:
        environment: variables beside this process's own.
        limit_s: seconds after which it is ended.
        lost: asked now and then; an error that it gives ends the program.
        told: called with every line of its output, masked.
        terminal: leave the terminal to it: it may ask for a password.

    Returns:
        Exit status (128 and the signal's number where a signal ended it), and its whole output, masked.

    Raises:
        CsaDeployError: what ``lost`` gave, or the time limit; the program is ended then, as it is by ctrl-C.
    """
    process = subprocess.Popen(
        argv,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=None if terminal else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=not terminal,  # a process that asks at the terminal must stay in its session
    )
    assert process.stdout is not None
    lines: list[str] = []
    failed: list[Exception] = []
    reader = threading.Thread(target=_read, args=(process.stdout, lines, told, failed, terminal), daemon=True)
    reader.start()
    begun = time.monotonic()
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(_POLL_S)
                break
            if error := lost():
                raise error
            if time.monotonic() > begun + limit_s:
                raise EnvironmentLacksError(
                    f"this machine: not done within {limit_s / 3600:g} hours, ended",
                    fix="raise build_hours: in the target's file",
                )
    finally:
        _end(process, alone=not terminal)
        reader.join(_GRACE_S)
    if failed:
        raise failed[0]
    return (128 - status if status < 0 else status), "".join(lines)


def _read(
    stream: IO[bytes], lines: list[str], told: Callable[[str], None], failed: list[Exception], echo: bool
) -> None:
    try:
        for raw in stream:
            line = masked(raw.decode(errors="replace"))
            lines.append(line)
            if echo:
                sys.stderr.write(line)
            told(line)
    except Exception as error:  # told by the main thread
        failed.append(error)


def _end(process: subprocess.Popen[bytes], *, alone: bool) -> None:
    """End a program and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            if alone:
                os.killpg(process.pid, number)
            elif process.poll() is None:
                process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
            if not alone:
                return
        if number == signal.SIGTERM and alone and not _group_lives(process.pid):
            return


def _group_lives(group: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, 0)
        return True
    return False
