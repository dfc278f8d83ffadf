"""A small picture language: boxes, words, lines on a paper of its own, readable on light and dark pages."""

from __future__ import annotations

from html import escape

PAPER, INK, GREY, LINE = "#fbfcfc", "#1b2a2f", "#51646b", "#9fb1b6"
GOOD, BAD, DOUBT, CALM = "#0f766e", "#b42318", "#8a5a00", "#d7ebe8"


class Picture:
    """Collects shapes; sizes in pixels, the origin at the top left.

    Args:
        width: of the paper.
        height: of the paper.
        title: what it shows, for readers who do not see it.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._shapes: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str = "#ffffff", edge: str = LINE) -> None:
        """A rectangle with round corners."""
        self._shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" fill="{fill}" '
            f'stroke="{edge}"/>'
        )

    def text(
        self, x: float, y: float, words: str, *, size: int = 14, color: str = INK, anchor: str = "start", **style: str
    ) -> None:
        """One line; ``y`` is its base line."""
        more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{more}>'
            f"{escape(words)}</text>"
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, color: str = LINE, width: float = 1.5, dash: str = ""
    ) -> None:
        """A straight line."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._shapes.append(
            f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{color}" stroke-width="{width}"{dashes}/>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float, color: str = GREY) -> None:
        """A line with a head at its end; horizontal or vertical."""
        self.line(x1, y1, x2, y2, color)
        if y1 == y2:
            points = f"{x2},{y2} {x2 - 7},{y2 - 4} {x2 - 7},{y2 + 4}"
        else:
            points = f"{x2},{y2} {x2 - 4},{y2 - 7} {x2 + 4},{y2 - 7}"
        self._shapes.append(f'<polygon points="{points}" fill="{color}"/>')

    def bar(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """A rectangle without an edge."""
        self._shapes.append(f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}"/>')

    def __str__(self) -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'role="img" aria-label="{escape(self.title)}" font-family="system-ui, sans-serif" fill="none">\n'
            f"<title>{escape(self.title)}</title>\n"
            f'<rect width="{self.width}" height="{self.height}" rx="8" fill="{PAPER}" stroke="{LINE}"/>\n'
            + "\n".join(self._shapes)
            + "\n</svg>\n"
        )
