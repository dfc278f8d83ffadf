"""What the stages say to people at a command line, said to callers of Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_origin

from csa_deploy.errors import CsaDeployError
from csa_deploy.options import OPTIONS

_FLAG = re.compile(r"--(no-)?([a-z][a-z0-9-]*)(?:[ =]([\w.]+=[^\s,;)]+|[\w./]+\.\w+:\w+|[A-Z][A-Z0-9_.=]+\b))?")
_ARRAYS = re.compile(r"\S*\barrays-[0-9a-f]{16}\.npz")


def in_python(text: str) -> str:
    """The same with parameters instead of flags, and without the file that the caller's arrays were written to.

    ``give --budget fp16.snr_db=20`` becomes ``give budget=['fp16.snr_db=20']``; commands in backticks stay.
    """
    parts = _ARRAYS.sub("the given arrays", text).split("`")
    return "`".join(_FLAG.sub(_parameter, part) if place % 2 == 0 else part for place, part in enumerate(parts))


def _parameter(found: re.Match[str]) -> str:
    negated, key, value = found[1], found[2].replace("-", "_"), found[3]
    option = OPTIONS.get(key)
    if option is None:
        return found[0]
    if option.type is bool:
        return f"{key}={not negated}" + (f" {value}" if value else "")
    if value is None:
        return f"{key}="
    return f"{key}=[{value!r}]" if get_origin(option.type) is list else f"{key}={value!r}"


@contextmanager
def python_errors() -> Iterator[None]:
    """Errors as a caller of Python reads them."""
    try:
        yield
    except CsaDeployError as error:
        error.message, error.fix = in_python(error.message), error.fix and in_python(error.fix)
        error.args = (error.message,)
        raise
