"""Failures of the operating system in the user's words."""

from __future__ import annotations

import errno

_MEANING = {
    errno.ENOSPC: ("the disk is full", "free some space, or use --workspace on another disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or use --workspace on another disk"),
    errno.EROFS: ("the file system is read-only", "use --workspace with a writable directory"),
    errno.EACCES: ("permission denied", "use --workspace with a directory you can write"),
    errno.EPERM: ("operation not permitted", "use --workspace with a directory you can write"),
    errno.EMFILE: ("too many open files", "raise `ulimit -n`"),
}


def explain(error: OSError) -> tuple[str, str]:
    """Message and cure of an operating-system error."""
    meaning, fix = _MEANING.get(error.errno or 0, (error.strerror or str(error), "see the message"))
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{meaning}", fix
