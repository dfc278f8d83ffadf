"""Numbers as people read them, with their units."""

from __future__ import annotations

from typing import Any

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
    """A latency."""
    return NONE if value is None else f"{float(value):.2f} ms"


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
    return f"{value / 1e9:.3f} G" if value >= 1e8 else f"{value / 1e6:.2f} M"


def thousands(value: Any) -> str:
    """A count."""
    return NONE if value is None else f"{value:,}"
