"""Memory of this process: how much at the most, and giving back what is free."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Most bytes that this process ever had in memory since its program started (Linux: ``VmHWM``).

    ``getrusage`` would answer with the memory of the process that started this one, where that had more.
    """
    lines = _STATUS.read_text().splitlines() if _STATUS.is_file() else []
    for kib in (line.split()[1] for line in lines if line.startswith("VmHWM:")):
        return int(kib) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Return to the system what was freed in pieces: glibc keeps it, and other threads do not get it.

    Where the C library has no ``malloc_trim`` nothing happens.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
