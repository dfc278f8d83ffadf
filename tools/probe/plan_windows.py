"""Probes of windows: convolution, deconvolution and pooling, each number up to and beyond its limit."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from tools.probe.probe import Probe, layer, probe, tensor

_Words = dict[str, Any]

SEED = 8_6_12
_KERNELS = (1, 2, 3, 5, 7, 8, 9, 11, 13, 17, 18, 19, 20, 31, 33)
_STRIDES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33)
_DILATIONS = (1, 2, 3, 4, 9, 17, 18, 19, 31)
_PADDINGS = (0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 17, 18, 19, 32)
_MAPS = (1, 2, 1000, 1024, 4095, 4096, 4097, 8192, 16383, 16384, 16385, 65536)


def probes() -> Iterator[Probe]:
    """Yield the probes of this file."""
    for transposed in (False, True):
        yield from _convolutions(transposed)
        yield from _padding_against_kernel(transposed)
        yield from _chosen_padding(transposed)
        yield from _random_convolutions(transposed)
    yield from _stride_against_kernel()
    for kind in ("MAX", "AVERAGE"):
        yield from _poolings(kind)
        yield from _random_poolings(kind)


def _name(transposed: bool, spatial: int) -> str:
    return f"{'deconvolution' if transposed else 'convolution'}.{spatial}d"


def _convolution(
    name: str, value: Any, transposed: bool, spatial: int, size: int = 64, batch: int = 1, **attributes: Any
) -> Probe:
    attributes = {"kernel": [3] * spatial, "channels": 4, **attributes}
    shape = (batch, attributes["channels"], *[size] * spatial)
    return probe(name, value, tensor(shape=shape), layer("convolution", transposed=transposed, **attributes))


def _convolutions(transposed: bool) -> Iterator[Probe]:
    for spatial in (2, 3):
        yield from _single_attributes(transposed, spatial)
        yield from _channels(transposed, spatial)


def _single_attributes(transposed: bool, spatial: int) -> Iterator[Probe]:
    name = _name(transposed, spatial)
    for attribute, values in (("kernel", _KERNELS), ("stride_nd", _STRIDES), ("dilation_nd", _DILATIONS)):
        for value in values:
            words: _Words = {attribute: [value] * spatial}
            yield _convolution(f"{name}.{attribute.removesuffix('_nd')}", value, transposed, spatial, **words)
    room: _Words = {"kernel": [8] * spatial, "dilation_nd": _spread(transposed, spatial)}
    for value, side in product(_PADDINGS, ("pre", "post")):
        words = {f"{side}_padding": [value] * spatial}
        yield _convolution(f"{name}.{side}", value, transposed, spatial, **room, **words)
    for kernel in ((1, 3, 2), (3, 1, 1), (7, 1, 2), (1, 19, 1), (9, 1, 1)):
        yield _convolution(f"{name}.uneven", kernel[:spatial], transposed, spatial, kernel=list(kernel[:spatial]))


def _channels(transposed: bool, spatial: int) -> Iterator[Probe]:
    name = _name(transposed, spatial)
    one: _Words = {"kernel": [1] * spatial, "size": 4}
    for value in _MAPS:
        yield _convolution(f"{name}.maps", value, transposed, spatial, maps=value, **one)
        yield _convolution(f"{name}.channels", value, transposed, spatial, channels=value, maps=1, **one)
        deep = {"channels": value, "maps": value, "groups": value}
        yield _convolution(f"{name}.depthwise", value, transposed, spatial, **deep, **one)
    for value in (2, 4, 8, 16):
        grouped = {"channels": 16, "maps": 32, "groups": value}
        yield _convolution(f"{name}.groups", value, transposed, spatial, **grouped)
    for value in (0, 2, 16, 17, 33, 1024):
        yield _convolution(f"{name}.batch", value, transposed, spatial, size=8, batch=value)


def _spread(transposed: bool, spatial: int) -> list[int] | None:
    """A dilation that leaves room for padding beyond the kernel; deconvolutions cannot have one."""
    return None if transposed else [3] * spatial


def _padding_against_kernel(transposed: bool) -> Iterator[Probe]:
    name = _name(transposed, 2)
    for kernel in (1, 2, 3, 4, 5):
        for dilation in (1,) if transposed else (1, 2, 3):
            reach = (kernel - 1) * dilation
            for padding, side in product(sorted({max(reach - 1, 0), reach, reach + 1, reach + 2}), ("pre", "post")):
                words: _Words = {"kernel": [kernel] * 2, "dilation_nd": [dilation] * 2}
                words[f"{side}_padding"] = [padding] * 2
                value = (kernel, dilation, padding)
                yield _convolution(f"{name}.{side}-against-kernel", value, transposed, 2, **words)
    for kernel_pair, pre, post in (((3, 5), (2, 4), (2, 4)), ((3, 5), (3, 4), (2, 4)), ((3, 5), (2, 4), (2, 5))):
        sides: _Words = {"pre_padding": list(pre), "post_padding": list(post)}
        yield _convolution(f"{name}.uneven-padding", (*pre, *post), transposed, 2, kernel=list(kernel_pair), **sides)


def _chosen_padding(transposed: bool) -> Iterator[Probe]:
    """Padding that TensorRT chooses, around kernels up to and beyond the size of the input."""
    for mode, kernel, dilation, stride in product(("SAME_UPPER", "SAME_LOWER"), (1, 3, 8), (1, 2), (1, 2, 8)):
        for size in (7, 8, 14, 15, 16):
            words: _Words = {"kernel": [kernel] * 2, "dilation_nd": [dilation] * 2, "stride_nd": [stride] * 2}
            value = (kernel, dilation, stride, size)
            name = f"{_name(transposed, 2)}.{mode.lower()}"
            yield _convolution(name, value, transposed, 2, size, mode=mode, **words)


def _stride_against_kernel() -> Iterator[Probe]:
    name = "deconvolution.2d.stride-against-kernel"
    for kernel, stride in product(range(1, 9), range(1, 10)):
        words: _Words = {"kernel": [kernel] * 2, "stride_nd": [stride] * 2}
        yield _convolution(name, (kernel, stride), True, 2, 8, **words)
    for kernel_pair, stride_pair in (((2, 4), (3, 3)), ((4, 2), (3, 3)), ((4, 4), (3, 2)), ((2, 4), (2, 4))):
        attributes: _Words = {"kernel": list(kernel_pair), "stride_nd": list(stride_pair)}
        yield _convolution(
            "deconvolution.2d.uneven-stride", (*kernel_pair, *stride_pair), True, 2, size=8, **attributes
        )


def _random_convolutions(transposed: bool) -> Iterator[Probe]:
    draw = random.Random(SEED)
    top = (10, 5, 2, 9) if transposed else (20, 10, 20, 19)
    for number in range(80):
        spatial = draw.choice((2, 2, 3))

        def pick(limit: int, spatial: int = spatial) -> list[int]:
            return [draw.randint(1, draw.choice((2, 4, limit))) for _ in range(spatial)]

        attributes: _Words = {
            "kernel": pick(top[0]),
            "stride_nd": pick(top[1]),
            "dilation_nd": pick(top[2] if draw.random() < 0.4 else 1),
        }
        attributes |= {f"{side}_padding": [p - 1 for p in pick(draw.choice((1, top[3])))] for side in ("pre", "post")}
        groups = draw.choice((1, 1, 2, 4))
        attributes |= {"groups": groups, "bias": draw.random() < 0.5, "maps": draw.choice((4, 8, 12))}
        name = f"{_name(transposed, spatial)}.random"
        yield _convolution(name, number, transposed, spatial, 400 if spatial == 2 else 100, **attributes)


def _pool(
    name: str, value: Any, kind: str, spatial: int, window: Sequence[int], size: int = 64, **attributes: Any
) -> Probe:
    shape = (1, 4, *[size] * spatial)
    return probe(name, value, tensor(shape=shape), layer("pooling", kind=kind, window=list(window), **attributes))


def _poolings(kind: str) -> Iterator[Probe]:
    for spatial in (2, 3):
        name = f"pooling.{kind.lower()}.{spatial}d"
        for value in (1, 2, 3, 7, 8, 9, 16, 21, 22, 23, 33, 64):
            yield _pool(f"{name}.window", value, kind, spatial, [value] * spatial)
        for value in (1, 2, 3, 4, 5, 6, 7, 8, 16, 33):
            yield _pool(f"{name}.stride", value, kind, spatial, [2] * spatial, stride_nd=[value] * spatial)
        for window_pair in ((1, 22, 1), (23, 1, 1), (2, 5, 3)):
            yield _pool(f"{name}.uneven", window_pair[:spatial], kind, spatial, window_pair[:spatial])
        yield from _padded_poolings(name, kind, spatial)


def _padded_poolings(name: str, kind: str, spatial: int) -> Iterator[Probe]:
    for value, side, window in product((0, 1, 2, 3, 7, 8, 9, 10, 11, 12), ("pre", "post"), (2, 9, 22)):
        padding: _Words = {f"{side}_padding": [value] * spatial, "average_count_excludes_padding": False}
        yield _pool(f"{name}.{side}.{window}", value, kind, spatial, [window] * spatial, **padding)
    for mode, window, size in product(("SAME_UPPER", "SAME_LOWER"), (3, 8, 22), (7, 8, 21, 22)):
        yield _pool(f"{name}.{mode.lower()}", (window, size), kind, spatial, [window] * spatial, size, mode=mode)
    both: _Words = {"pre_padding": [1] * spatial, "post_padding": [1] * spatial}
    for value in (True, False):
        words = {"average_count_excludes_padding": value, **both}
        yield _pool(f"{name}.excludes", value, kind, spatial, [3] * spatial, **words)


def _random_poolings(kind: str) -> Iterator[Probe]:
    draw = random.Random(SEED)
    for number in range(40):
        spatial = draw.choice((2, 2, 3))
        window = [draw.randint(1, draw.choice((3, 8, 25))) for _ in range(spatial)]
        attributes: dict[str, Any] = {"stride_nd": [draw.randint(1, draw.choice((2, 7))) for _ in range(spatial)]}
        for side in ("pre", "post"):
            attributes[f"{side}_padding"] = [draw.randint(0, draw.choice((0, 2, 12))) for _ in range(spatial)]
        attributes["average_count_excludes_padding"] = False
        yield _pool(f"pooling.{kind.lower()}.{spatial}d.random", number, kind, spatial, window, size=100, **attributes)
