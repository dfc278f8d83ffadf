"""Numbers as people read them, with their units."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csa_deploy.metrics.metric import Metric

NONE = "-"


def percent(value: Any) -> str:
    """A share of 1 as a percentage."""
    return NONE if value is None else f"{100 * float(value):.2f} %"


def decibel(value: Any) -> str:
    """A ratio in dB; identical outputs have an infinite one."""
    if value is None:
        return NONE
    return "identical" if float(value) == float("inf") else f"{float(value):.1f} dB"


def scientific(value: Any) -> str:
    """A small number."""
    return NONE if value is None else f"{float(value):.1e}"


def milliseconds(value: Any) -> str:
    """A latency; of one below 0.1 ms, as GPUs have, four digits behind the point."""
    return NONE if value is None else f"{float(value):.{4 if 0 < float(value) < 0.1 else 2}f} ms"


def duration(seconds: Any) -> str:
    """A time that people wait for."""
    if seconds is None:
        return NONE
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def size(value: Any) -> str:
    """Bytes in binary units."""
    if value is None:
        return NONE
    value = float(value)
    return f"{value / 2**20:.1f} MiB" if value >= 2**20 else f"{value / 2**10:.1f} KiB"


def giga(value: Any) -> str:
    """Multiply-accumulates."""
    if value is None:
        return NONE
    if value >= 1e8:
        return f"{value / 1e9:.3f} G"
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.2f} k"


def span(low: Any, high: Any, shown: Callable[[Any], str] = "{:g}".format) -> str:
    """An interval, whose ends may be open: ``2 to 3``, ``2 or more``, ``3 or less``."""
    if low is None or high is None:
        return f"{shown(low)} or more" if low is not None else f"{shown(high)} or less" if high is not None else NONE
    return f"{shown(low)} to {shown(high)}"


def slowdown(ratio: Any) -> str:
    """A ratio of latencies as the change in percent, without the sign of percent."""
    return f"{100 * (float(ratio) - 1):+.1f}"


def thousands(value: Any) -> str:
    """A count."""
    return NONE if value is None else f"{value:,}"


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 finding``, ``2 findings``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def probability(value: Any) -> str:
    """A p-value."""
    return NONE if value is None else f"{float(value):.2g}"


def metric(value: Any, name: str, more: int = 0) -> str:
    """The value of an accuracy metric in its own unit, with so many more digits than usual."""
    return NONE if value is None else _named(name).shown(float(value), more)


def _named(name: str) -> Metric:
    from csa_deploy.metrics.table import named

    return named(name)


def _scale(name: str) -> tuple[int, str, str]:
    """What a difference of two values is multiplied by, and its unit; of shares percentage points."""
    unit = _named(name).unit
    return (100, " points", ".2f") if unit == "share" else (1, f" {unit}" if unit else "", ".3g")


def bound(value: Any, name: str) -> str:
    """A metric's bound, with as many digits as it has."""
    scale = _scale(name)[0]
    shown = (metric(value, name, more) for more in range(12))
    exact = (text for text in shown if math.isclose(float(text.split()[0]), scale * float(value), rel_tol=1e-13))
    return (
        next(exact, f"{float(value)!r}") if value is not None and math.isfinite(float(value)) else metric(value, name)
    )


def beside(value: Any, other: Any, name: str) -> str:
    """A metric's value with so many digits that it does not read as another one, such as its bound."""
    digits = range(13 if value is not None and other is not None and float(value) != float(other) else 1)
    shown = (metric(value, name, more) for more in digits if metric(value, name, more) != metric(other, name, more))
    return next(shown, metric(value, name))


def distance(difference: Any, name: str) -> str:
    """The size of a difference of two values of a metric; of shares in percentage points."""
    scale, unit, _ = _scale(name)
    return f"{scale * abs(float(difference)):.2g}{unit}"


def change(difference: Any, interval: Any, name: str) -> str:
    """By how much an accuracy metric changed, with its interval; shares in percentage points."""
    scale, unit, digits = _scale(name)
    shown = f"{scale * float(difference):+{digits}}{unit}"
    return f"{shown} ({' to '.join(f'{scale * end:+{digits}}' for end in interval)})" if interval else shown
