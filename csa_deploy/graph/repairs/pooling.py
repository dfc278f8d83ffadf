"""What the repairs of poolings share: which windows and strides the scopes take, and what a pooling node says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import onnx_ir as ir

from csa_deploy.graph.facts import constant
from csa_deploy.graph.rewrite import DeclinedError, inherit, is_float


@dataclass(frozen=True)
class Limits:
    """The largest poolings that repairs may make.

    The defaults meet every scope with a documented or probed limit: DLA takes windows up to 8, the validator of
    DRIVE OS 7 strides up to 6 and windows up to 22.

    Attributes:
        window: of the steps of a chain.
        stride: of the steps of a chain.
        whole: window of a pooling that stays one step, where a chain is not to be had.
    """

    window: int = 8
    stride: int = 6
    whole: int = 22


_LIMITS: ContextVar[Limits] = ContextVar("limits", default=Limits())  # noqa: B039 - frozen


@contextmanager
def within(limits: Limits) -> Iterator[None]:
    """Repairs inside make poolings of these limits."""
    token = _LIMITS.set(limits)
    try:
        yield
    finally:
        _LIMITS.reset(token)


def limits() -> Limits:
    """The limits in force."""
    return _LIMITS.get()


_KNOWN = {
    *("kernel_shape", "strides", "pads", "dilations", "auto_pad", "ceil_mode"),
    *("count_include_pad", "storage_order"),
}


def plain_window(node: ir.Node) -> tuple[int, ...] | None:
    """The window of a pooling that reads every position of it and nothing else, or None.

    Raises:
        DeclinedError: it pads, dilates, gives indices, or has an attribute that is not known here.
    """
    if not is_float(node.inputs[0]):
        raise DeclinedError("not floating point")
    if len(node.outputs) > 1:
        raise DeclinedError("gives indices as well")
    if unknown := sorted(set(node.attributes) - _KNOWN):
        raise DeclinedError(f"attribute {unknown[0]} is not known")
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise DeclinedError("pads by auto_pad")
    if any(node.attributes.get_ints("pads", ()) or ()):
        raise DeclinedError("pads its input")
    if any(step != 1 for step in node.attributes.get_ints("dilations", ()) or ()):
        raise DeclinedError("has a dilated window")
    window = node.attributes.get_ints("kernel_shape", None)
    return None if window is None else tuple(window)


def factors(size: int, allowed: Limits) -> list[int] | None:
    """``size`` as a product for steps whose stride is their window, but for the last, whose stride does not matter.

    None where a prime factor is too large.
    """
    for last in range(min(size, allowed.window), 0, -1):
        if size % last == 0:
            before = _strided(size // last, min(allowed.window, allowed.stride))
            if before is not None:
                return [*before, last]
    return None


def _strided(size: int, largest: int) -> list[int] | None:
    found = []
    while size > 1:
        factor = next((f for f in range(min(size, largest), 1, -1) if size % f == 0), None)
        if factor is None:
            return None
        found.append(factor)
        size //= factor
    return found


Pooling = tuple[tuple[int, int], tuple[int, int]]
"""Window and stride of a pooling."""


def steps(kind: str, height: int, width: int, allowed: Limits) -> list[Pooling]:
    """Poolings of a chain over a whole map; the windows of ``MaxPool`` may overlap, which makes any size possible.

    Raises:
        DeclinedError: a side has no such factors.
    """
    sides = []
    for size in (height, width):
        found = _strides(kind, size, allowed)
        if found is None:
            raise DeclinedError(f"{size} has no factors for windows up to {allowed.window}, strides {allowed.stride}")
        sides.append(found[::-1])
    pairs = [*zip_longest(*sides, fillvalue=(1, 1))][::-1]
    return [((rows, columns), (down, right)) for (rows, down), (columns, right) in pairs]


def _strides(kind: str, size: int, allowed: Limits) -> list[tuple[int, int]] | None:
    """Windows and strides along one side."""
    found = factors(size, allowed)
    if found is not None:
        return [*((window, window) for window in found[:-1]), (found[-1], 1)]
    return _overlapping(size, allowed) if kind == "MaxPool" else None


def _overlapping(size: int, allowed: Limits) -> list[tuple[int, int]] | None:
    """Windows that reach every position and may share some."""
    found = []
    while size > allowed.window:
        fitting = (
            (window, stride)
            for stride in range(min(allowed.window, allowed.stride), 1, -1)
            for window in range(allowed.window, stride - 1, -1)
            if (size - window) % stride == 0
        )
        step = next(fitting, None)
        if step is None:
            return None
        found.append(step)
        size = (size - step[0]) // step[1] + 1
    return [*found, (size, 1)]


def chain(
    op: Any, node: ir.Node, kind: str, shape: Sequence[int], poolings: list[Pooling], value: ir.Value | None = None
) -> ir.Value:
    """Poolings after one another over a map of ``shape``, in place of ``node`` (on its input, unless on ``value``)."""
    value, (height, width) = value if value is not None else node.inputs[0], shape[2:]
    for number, ((rows, columns), (down, right)) in enumerate(poolings):
        last = number == len(poolings) - 1
        height, width = (height - rows) // down + 1, (width - columns) // right + 1
        pooled = op.op(
            kind,
            value,
            _name=node.name if last else f"{node.name}_{number}",
            kernel_shape=[rows, columns],
            strides=[down, right],
            pads=[0, 0, 0, 0],
        )
        value = inherit(pooled, node, shape=(*shape[:2], height, width))
        value.name = f"{node.outputs[0].name}_{height}x{width}"
    assert value is not None
    return value


def poolings(kind: str, height: int, width: int) -> list[Pooling]:
    """A chain where one window is too large for some scope; one window up to the largest where no chain exists.

    Raises:
        DeclinedError: neither is to be had.
    """
    allowed = limits()
    whole: list[Pooling] = [((height, width), (1, 1))]
    if max(height, width) <= allowed.window:
        return whole
    try:
        return steps(kind, height, width, allowed)
    except DeclinedError:
        if max(height, width) > allowed.whole:
            raise
        return whole


def reduced_axes(node: ir.Node, rank: int) -> list[int] | None:
    """Axes that a reduction of an array of ``rank`` is over, counted from the front; None where they are computed."""
    axes = node.attributes.get_ints("axes", None)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is None and given is not None:
        values = constant(given)
        if values is None:
            return None
        axes = tuple(int(axis) for axis in values.reshape(-1))
    if not axes:
        return [] if node.attributes.get_int("noop_with_empty_axes", 0) else list(range(rank))
    return sorted({axis % rank for axis in axes})
