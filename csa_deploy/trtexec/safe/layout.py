"""Arrays in the layout that a safety engine's tensors have in memory: trtexec_safe reads and writes these bytes.

A tensor of shape (N, C, H, W) is, as TensorRT's documentation of I/O formats says, in ``chwV`` (N, ceil(C/V), H, W, V)
with the channels beyond C zero, in ``hwc`` (N, H, W, C), in ``hwc8`` and ``hwc16`` (N, H, W, C) with C rounded up.
"""

from __future__ import annotations

import re

import numpy as np

from csa_deploy.errors import UsageError

_VECTOR = re.compile(r"chw(2|4|16|32)|hwc(8|16)?")


def layout_of(formats: str | None, place: int) -> str:
    """The layout of one tensor among formats as trtexec takes them (``fp16:chw16`` or ``chw16``, one for all or each).

    Raises:
        UsageError: several layouts to choose from, of which only the engine knows which it took.
    """
    if formats is None:
        return "chw"
    items = formats.split(",")
    layout = (items[place] if len(items) > 1 else items[0]).rpartition(":")[2]
    if layout != "chw" and not _VECTOR.fullmatch(layout):
        raise UsageError(
            f"{formats}: how a tensor of format {layout} lies in memory is not known here",
            fix="build with one of chw, chw2, chw4, chw16, chw32, hwc, hwc8, hwc16",
        )
    return layout


def pack(array: np.ndarray, layout: str) -> np.ndarray:
    """An array of at least three axes, the channels third from the end, as it lies in memory."""
    if layout == "chw":
        return np.ascontiguousarray(array)
    width, last = _width(layout), layout.startswith("hwc")
    channels = _channels(array.shape, layout)
    padding = [(0, 0)] * array.ndim
    padding[-3] = (0, -channels % width)
    padded = np.pad(array, padding)
    if last:
        return np.ascontiguousarray(np.moveaxis(padded, -3, -1))
    split = padded.reshape(*array.shape[:-3], -1, width, *array.shape[-2:])
    return np.ascontiguousarray(np.moveaxis(split, -3, -1))


def unpack(raw: np.ndarray, shape: tuple[int, ...], layout: str) -> np.ndarray:
    """The values of memory as an array of a shape; the opposite of :func:`pack`.

    Raises:
        UsageError: another number of values than that layout has.
    """
    whole = pack(np.empty(shape, raw.dtype), layout).shape
    if raw.size != int(np.prod(whole)):
        raise UsageError(
            f"{raw.size} values where layout {layout} of {list(shape)} has {int(np.prod(whole))}",
            fix="state the formats that the engine was built with, input_formats= and output_formats=",
        )
    array = raw.reshape(whole)
    if layout == "chw":
        return array
    if layout.startswith("hwc"):
        return np.ascontiguousarray(np.moveaxis(array, -1, -3)[..., : shape[-3], :, :])
    joined = np.moveaxis(array, -1, -3).reshape(*shape[:-3], -1, *shape[-2:])
    return np.ascontiguousarray(joined[..., : shape[-3], :, :])


def _width(layout: str) -> int:
    return int(re.sub(r"\D", "", layout) or 1)


def _channels(shape: tuple[int, ...], layout: str) -> int:
    if len(shape) < 3:
        raise UsageError(
            f"a tensor of shape {list(shape)} has no layout {layout}", fix="use chw for tensors without channels"
        )
    return shape[-3]
