"""Small pieces of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """A text that cannot end its cell, and whose words in angle brackets are no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """As code; inside it nothing but the bar has to be masked."""
    return f"`{' '.join(text.split())}`".replace("|", "\\|") if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; the cells are Markdown already."""
    return [
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def page(title: str, *parts: str | Iterable[str]) -> str:
    """A page with its heading."""
    lines = [f"# {title}", ""]
    for part in parts:
        lines += [part, ""] if isinstance(part, str) else [*part]
    return "\n".join(lines).rstrip() + "\n"
