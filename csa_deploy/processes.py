"""Child processes for work that cannot be interrupted or may crash: what they see, and that they end with us."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def child_environment(**others: str) -> dict[str, str]:
    """This process's environment for a child of the same Python, which sees the modules that this process sees."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "PYTHONSAFEPATH": "1",  # and none from the working directory
        "PYTHONUNBUFFERED": "1",  # Python's and a native library's lines in order
        **others,
    }


def end_with_parent() -> None:
    """In a child: end when its parent is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
