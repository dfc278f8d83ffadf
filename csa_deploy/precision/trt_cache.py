"""TensorRT's calibration cache: text, a header line and one scale per tensor as hexadecimal FP32 bits.

Implicit INT8 (``trtexec --int8 --calib=FILE`` up to TensorRT 10, DLA) reads it. TensorRT checks only the header's
version, so a cache must never be reused for another graph; here its key lies in the audit beside it.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from csa_deploy.errors import UsageError

_HEADER = re.compile(r"TRT-(\d+)-(\w+)")
_LINE = re.compile(r"(.+): ([0-9a-fA-F]{8})")
VERSION = "8611"
"""TensorRT 8.6.11, of DRIVE OS 6.0.8."""


def cache_text(scales: Mapping[str, float], *, version: str = VERSION) -> str:
    """The text of a cache.

    Args:
        scales: INT8 scale (largest value / 127) by tensor name of the graph that TensorRT parses.
        version: TensorRT's version, digits only.

    Raises:
        UsageError: a scale is not finite and above zero, or a name has a line break.
    """
    lines = [f"TRT-{version}-EntropyCalibration2"]
    for name, scale in scales.items():
        if not math.isfinite(scale) or scale <= 0 or "\n" in name:
            raise UsageError(f"tensor {name!r} has the scale {scale}, no finite number above zero")
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"


def read_cache(path: Path) -> tuple[str, dict[str, float]]:
    """Version and scales of a cache.

    Raises:
        UsageError: unreadable, no calibration cache, or a damaged line; names the line.
    """
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a calibration cache ({error})") from None
    match = _HEADER.fullmatch(header.strip())
    if not match:
        raise UsageError(f"{path}: no TensorRT calibration cache: the first line is {header[:60]!r}")
    scales = {}
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        parts = _LINE.fullmatch(line.strip())
        if not parts:
            raise UsageError(f"{path}: line {number} is no 'tensor: hexadecimal scale': {line[:60]!r}")
        scales[parts[1]] = struct.unpack(">f", bytes.fromhex(parts[2]))[0]
    return match[1], scales
