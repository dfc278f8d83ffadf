"""Layers: the slowest as bars, all of them on the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from csa_deploy.report.charts.svg import Scale, line, svg, text, title, x_axis, y_axis

if TYPE_CHECKING:
    from csa_deploy.records.device import Ceilings
    from csa_deploy.report.views import ShownNode

_WIDTH = 960
MOST_BARS = 14
_OPERATORS = ("Conv", "Gemm", "MatMul", "Mul", "Add", "Sigmoid", "Resize", "AveragePool")


def kind_of(op: str) -> str:
    """Class of an operator's colour."""
    family = {"ConvTranspose": "Conv", "MaxPool": "AveragePool", "GlobalAveragePool": "AveragePool"}.get(op, op)
    family = {"Gemm": "Conv", "MatMul": "Conv", "Sub": "Add", "Relu": "Sigmoid", "Clip": "Sigmoid"}.get(family, family)
    return f"op-{family.lower()}" if family in _OPERATORS else "op-other"


def bars(rows: Sequence[ShownNode], where: str) -> str:
    """The layers that take most time.

    Args:
        rows: layers, slowest first.
        where: they were timed, in words.
    """
    timed = [(row, row.time_us) for row in rows if row.time_us][:MOST_BARS]
    if not timed:
        return ""
    scale = Scale(0, timed[0][1], 330, _WIDTH - 190)
    parts = []
    for index, (row, time) in enumerate(timed):
        y = 6 + 25 * index
        place = row.module or row.name
        parts.append(text(318, y + 14, place if len(place) < 44 else f"…{place[-42:]}", kind="name", anchor="end"))
        tip = title(f"{row.name} ({row.op}): {time:.1f} us, {100 * row.share:.1f} %")
        width = max(scale(time) - 330, 1)
        parts.append(
            f'<rect x="330" y="{y}" width="{width:g}" height="19" rx="3" class="{kind_of(row.op)}">{tip}</rect>'
        )
        said = f"{row.op}  {time:.0f} µs  {100 * row.share:.1f} %"
        parts.append(text(330 + width + 8, y + 14, said, kind="mark"))
    return svg(_WIDTH, 12 + 25 * len(timed), f"The {len(timed)} slowest layers {where}", parts)


def roofline(rows: Sequence[ShownNode], ceilings: Ceilings | None = None) -> str:
    """Operations per second against operations per byte, both logarithmic, on the machine that timed the layers.

    Args:
        rows: layers, timed.
        ceilings: of that machine, where they were measured.
    """
    points = [
        (row, row.intensity, row.operations / row.time_us / 1e3, row.time_us)
        for row in rows
        if row.time_us and row.operations and row.intensity
    ]
    if not points:
        return ""
    _, works, speeds, times = zip(*points, strict=True)
    peaks = {name: value / 1e9 for name, value in ceilings.operations_per_second.items()} if ceilings else {}
    x = Scale(min(works) / 1.5, max(works) * 1.5, 70, _WIDTH - 30, True)
    y = Scale(min(speeds) / 2, max([*speeds, *peaks.values()]) * 2, 310, 30, True)
    parts = [*x_axis(x, 30, 310, "operations per byte"), *y_axis(y, 70, _WIDTH - 30, "billion operations per second")]
    for name, peak in peaks.items():
        parts += _ceiling(x, y, name, peak, ceilings.bytes_per_second / 1e9 if ceilings else 0.0)
    for row, work, speed, time in points:
        radius = 3 + 11 * (time / max(times)) ** 0.5
        tip = title(
            f"{row.module or row.name} ({row.op}): {speed:.2f} billion operations per second at "
            f"{work:.2f} operations per byte, {time:.0f} us"
        )
        where = f'cx="{x(work):g}" cy="{y(speed):g}" r="{radius:.1f}"'
        parts.append(f'<circle {where} class="bubble {kind_of(row.op)}">{tip}</circle>')
    return svg(_WIDTH, 348, f"Roofline: {len(points)} layers by operations per byte and speed", parts)


def _ceiling(x: Scale, y: Scale, name: str, peak: float, memory: float) -> list[str]:
    """The roof of a precision: bytes per second up to the ridge, then its peak; both in billions."""
    ridge = min(max(peak / memory, x.low), x.high)
    parts = [line(x(ridge), y(peak), x(x.high), y(peak), "bound")]
    start = max(x.low, y.low / memory)
    if start < ridge:
        parts.append(line(x(start), y(memory * start), x(ridge), y(min(peak, memory * ridge)), "bound"))
    return [*parts, text(x(x.high), y(peak) - 5, f"{name} peak", kind="mark", anchor="end")]
