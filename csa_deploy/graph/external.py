"""External data of tensors: where it lies, by a grammar, and only in plain files below the model's folder."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from onnx import TensorProto

_NUMBER = re.compile(r"[0-9]{1,18}")  # bytes; `str.isdigit` takes superscripts, `int` takes underscores


class ExternalDataError(ValueError):
    """External data that cannot be used; the message says why, in words that follow the tensor's name.

    Args:
        missing: whether there is no such file.
    """

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


@dataclass(frozen=True)
class ExternalData:
    """Where the values of a tensor lie.

    Attributes:
        location: name of the file below the model's folder.
        offset: first byte.
        length: bytes; None for all up to the end of the file.
    """

    location: str
    offset: int = 0
    length: int | None = None


def is_external(tensor: TensorProto) -> bool:
    """Whether the values of a tensor lie in another file."""
    return tensor.data_location == TensorProto.EXTERNAL


def stated_location(tensor: TensorProto) -> str:
    """What stands for the file, cut to a line."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")[:100]


def external_data(tensor: TensorProto) -> ExternalData:
    """Where the values of an external tensor lie.

    Raises:
        ExternalDataError: no usable location, or an offset or length that is no number of bytes.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = PurePosixPath(location)
    if not location or path.is_absolute() or ".." in path.parts or "\0" in location or len(location) > 4096:
        raise ExternalDataError("points outside the model's folder")
    numbers = {}
    for key in ("offset", "length"):
        text = entries.get(key, "")
        if text and not _NUMBER.fullmatch(text):
            raise ExternalDataError(f"has the {key} '{text[:40]}', which is no number of bytes")
        numbers[key] = int(text) if text else None
    return ExternalData(location, numbers["offset"] or 0, numbers["length"])


def external_file(location: str, folder: Path) -> Path:
    """The file of external data.

    Raises:
        ExternalDataError: missing, or no plain file below ``folder`` (a link, a pipe or a device is none).
    """
    file = folder / location
    try:
        kind = os.lstat(file).st_mode
        inside = file.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # too long a name, a NUL, a loop of links
        raise ExternalDataError("is missing", missing=True) from None
    if not inside or stat.S_ISLNK(kind):
        raise ExternalDataError("points outside the model's folder")
    if not stat.S_ISREG(kind):
        raise ExternalDataError("is no plain file")
    return file


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it; never waits for the other end of a pipe.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # noqa: SIM115, PTH123 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "it is no plain file", str(path))
    return file
