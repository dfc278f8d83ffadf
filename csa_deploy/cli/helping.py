"""Help pages: options in groups; where a page would be long, those that people need first, and the names of the others.

The library's own coloured pages are not used: loading what draws them takes longer than a command may take to start.
"""

from __future__ import annotations

import textwrap
from typing import Any

import typer
from typer.core import TyperCommand

from csa_deploy.options import GROUPS, OPTIONS

MOST_LINES = 55
"""Of a page with an explanation of every option; with more, ``--help-all`` has them."""

_FEW = 8
_COLUMN = 21
_FORMAT = ("output_format", "as_json")  # of the result: each verb has others
_WHOLE = "csa_deploy.help_all"


def show_all(context: typer.Context, wanted: bool) -> None:
    """Print the page with every option explained."""
    if wanted:
        context.meta[_WHOLE] = True
        typer.echo(context.get_help())
        raise typer.Exit


class GroupedCommand(TyperCommand):
    """A command whose help page shows its options in groups."""

    _short = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See the module."""
        self._short = False
        if not ctx.meta.get(_WHOLE):
            whole = ctx.make_formatter()
            super().format_help(ctx, whole)
            self._short = whole.getvalue().count("\n") > MOST_LINES
        super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the options by group: of all, or of the first ones with the names of the others."""
        params = [(param, record) for param in self.get_params(ctx) if (record := param.get_help_record(ctx))]
        arguments = [record for param, record in params if param.param_type_name == "argument"]
        grouped: dict[str, list[tuple[Any, Any]]] = {group: [] for group in ("", *GROUPS)}
        for param, record in params:
            if param.param_type_name != "argument":
                own = "output" if param.name == "help" else getattr(param, "rich_help_panel", None) or ""
                grouped.setdefault(own, []).append((param, record))
        _section(formatter, "Arguments", arguments)
        if self._short:
            _short(formatter, grouped, str(ctx.info_name))
            return
        for group, found in grouped.items():
            _section(formatter, _title(group), [record for _, record in found])


def _short(formatter: Any, grouped: dict[str, list[tuple[Any, Any]]], verb: str) -> None:
    first = [
        record
        for group, found in grouped.items()
        for param, record in found
        if (not group and len(found) <= _FEW) or param.name in _FORMAT or _is_first(param.name)
    ]
    _section(formatter, "Options", first)
    names = {
        group: ", ".join(max(param.opts, key=len) for param, record in found if record not in first)
        for group, found in grouped.items()
    }
    with formatter.section(f"More options (csa-deploy {verb} --help-all explains them)"):
        for group, said in names.items():
            for number, line in enumerate(textwrap.wrap(said, formatter.width - _COLUMN, break_on_hyphens=False)):
                formatter.write(f"  {_title(group).lower() if not number else '':<{_COLUMN - 2}}{line}\n")


def _is_first(name: str) -> bool:
    return name in OPTIONS and OPTIONS[name].first


def _title(group: str) -> str:
    return f"{group[0].upper()}{group[1:]}" if group else "Options"


def _section(formatter: Any, title: str, records: list[Any]) -> None:
    if records:
        with formatter.section(title):
            formatter.write_dl(records)
