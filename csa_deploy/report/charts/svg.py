"""Parts of charts: scales, axes, escaped text. Text from outside goes through :func:`text` or :func:`title` only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels.

    Attributes:
        low: value at ``start``.
        high: value at ``end``.
        start: pixel.
        end: pixel.
        log: logarithmic; then ``low`` is above zero.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value; values outside go to the edge."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the scale."""
        if self.log:
            return self._decades()
        step = 10 ** math.floor(math.log10((self.high - self.low) / count)) if self.high > self.low else 1.0
        step *= next((m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= count), 10)
        first = math.ceil(self.low / step)
        return [round(i * step, 12) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _decades(self) -> list[float]:
        exponents = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
        decades = [10.0**e for e in exponents]
        if len(decades) >= 3:
            return decades[:: 1 + len(decades) // 9]
        lowest = math.floor(math.log10(self.low))
        fine = [m * 10.0**e for e in range(lowest, lowest + 4) for m in (1, 2, 5)]
        return [v for v in fine if self.low <= v <= self.high]


def svg(width: int, height: int, label: str, parts: list[str]) -> str:
    """A chart that fills its column, with a name for screen readers."""
    kind = "chart narrow" if width < 700 else "chart"
    name = escape(label, quote=True)
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def text(x: float, y: float, content: str, *, kind: str = "", anchor: str = "start") -> str:
    """A piece of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def title(content: str) -> str:
    """A tooltip."""
    return f"<title>{escape(content)}</title>"


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{kind}"/>'


def x_axis(scale: Scale, top: float, bottom: float, unit: str) -> list[str]:
    """Grid lines and figures below them."""
    parts = []
    for tick in scale.ticks():
        parts += [line(scale(tick), top, scale(tick), bottom, "grid")]
        parts += [text(scale(tick), bottom + 16, number(tick), kind="tick", anchor="middle")]
    return [*parts, text(scale.end, bottom + 32, unit, kind="axis", anchor="end")]


def y_axis(scale: Scale, left: float, right: float, unit: str) -> list[str]:
    """Grid lines and figures to the left of them."""
    parts = []
    for tick in scale.ticks():
        parts += [line(left, scale(tick), right, scale(tick), "grid")]
        parts += [text(left - 7, scale(tick) + 4, number(tick), kind="tick", anchor="end")]
    return [*parts, text(left - 7, min(scale.start, scale.end) - 10, unit, kind="axis", anchor="start")]


def number(value: float) -> str:
    """A short figure."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:g}"
