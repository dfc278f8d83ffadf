"""Tables for a terminal and in Markdown. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def titled(title: str, headings: Iterable[str], *, right: Collection[str] = ()) -> Table:
    """An empty table under its title; long cells go on in the next line.

    Args:
        title: in rich's markup.
        headings: of the columns.
        right: those of them that are set right, as numbers are.
    """
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return table


def markdown_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] | None = None
) -> list[str]:
    """The lines of a table; ``right`` are the columns that are set right: all after the first where none is named."""
    numbers = headings[1:] if right is None else right
    rule = "|".join("---:" if heading in numbers else "---" for heading in headings)
    lines = ["| " + " | ".join(headings) + " |", f"|{rule}|"]
    return lines + ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows]


def plain(text: str) -> str:
    """Text that cannot break out of a table or become markup."""
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'").replace("\n", " ")
