"""``csa-deploy compare``: two runs, faster, slower or no difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags

STYLE = {"slower": "red", "faster": "green"}


@flags("compare")
def compare(
    console: Console,
    settings: dict[str, Any],
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Workspace of the first run.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Workspace of the second run.")],
    measure: Annotated[
        bool, typer.Option("--measure", help="Time both runs' graphs anew on this machine, interleaved.")
    ] = False,
    form: Annotated[str, typer.Option("--format", help="text, json or markdown.")] = "text",
) -> None:
    """Compare the latency of two runs.

    Says faster, slower or no difference, with a 99 % interval of the ratio.
    """
    from csa_deploy.errors import UsageError
    from csa_deploy.profile.comparison import MINIMUM_EFFECT
    from csa_deploy.profile.runs import compare_interleaved, compare_runs
    from csa_deploy.profile.stored import load_run

    if form not in ("text", "json", "markdown"):
        raise UsageError(f"--format {form}: no such form", fix="use one of text, json, markdown")
    a, b = load_run(run_a), load_run(run_b)
    effect = settings.get("max_slowdown", MINIMUM_EFFECT)
    if measure:
        data = compare_interleaved(
            a, b, iterations=settings.get("iterations", 100), threads=settings.get("threads"), minimum_effect=effect
        )
    else:
        data = compare_runs(a, b, minimum_effect=effect)
    if form == "json":
        typer.echo(json.dumps(data, indent=2, sort_keys=True))
    elif form == "markdown":
        from csa_deploy.report.markdown import comparison

        typer.echo(comparison(data))
    else:
        _show(data, console)


def _show(data: dict[str, Any], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    from csa_deploy.report.labels import label_of
    from csa_deploy.report.missing import by_reason

    table = Table(title=f"A {escape(data['a'])}   B {escape(data['b'])}", title_justify="left")
    for heading in ("", "percentile", "A", "B", "B / A", "99 % interval", "B is"):
        table.add_column(heading, justify="left" if heading in ("", "B is") else "right")
    for row in data["rows"]:
        style = STYLE.get(row["outcome"], "dim")
        table.add_row(
            label_of(row["label"]),
            f"p{row['percentile']:g}",
            f"{row['a_ms']:.3f} ms",
            f"{row['b_ms']:.3f} ms",
            f"{row['ratio']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"[{style}]{row['outcome']}[/{style}]",
        )
    console.show(table)
    out = console.out
    out.print(f"{data['method']}; changes below {_effect(data)} do not count", soft_wrap=True)
    for caveat in data["caveats"]:
        out.print(f"[yellow]not alike[/yellow] {escape(caveat)}", soft_wrap=True)
    for entry in by_reason(data["not_compared"]):
        said = f"{escape(', '.join(entry['what']))}: {escape(entry['reason'])}"
        out.print(f"[yellow]not compared[/yellow] {said}", soft_wrap=True)


def _effect(data: dict[str, Any]) -> str:
    return f"{100 * data['rows'][0]['minimum_effect']:g} %" if data["rows"] else "the minimum effect"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("compare")(compare)
