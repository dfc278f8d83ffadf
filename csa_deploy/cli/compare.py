"""``csa-deploy compare``: two runs; faster, slower or no difference shown; better, worse or no difference shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.tables import titled

if TYPE_CHECKING:
    from csa_deploy.profile.runs import LatencyChange, RunComparison
    from csa_deploy.verify.run_comparison import AccuracyComparison

_STYLE = {"slower": "red", "faster": "green", "worse": "red", "better": "green", "undecided": "yellow"}


@flags("compare")
def compare(
    console: Console,
    settings: dict[str, Any],
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Workspace of the first run.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Workspace of the second run.")],
    measure: Annotated[
        bool, typer.Option("--measure", help="Time both runs' graphs anew on this machine, interleaved.")
    ] = False,
    output_format: str = "text",
) -> None:
    """Compare the latency and the accuracy of two runs.

    Latency: faster, slower or no difference shown, with a 99 % interval of the ratio. Accuracy: better, worse or no
    difference shown, sample by sample, with a 95 % interval of the change. The exit code is 0 whatever comes out:
    what must fail is a limit, a budget or a baseline of its own run.
    """
    from csa_deploy.api.runs import compare_stored
    from csa_deploy.report.markdown import comparison

    how = {"minimum_effect" if key == "max_slowdown" else key: value for key, value in settings.items()}
    found = compare_stored(run_a, run_b, measure=measure, **how)
    console.answer.add(found.to_json())
    if output_format == "markdown":
        console.write(comparison(found) + "\n")
    else:
        _show(found, console)


def _show(found: RunComparison, console: Console) -> None:
    from rich.markup import escape

    out = console.out
    out.print(f"A {escape(found.a)}   B {escape(found.b)}", soft_wrap=True)
    if found.rows is not None:
        console.show(_latency_table(found.rows))
        effect = f"{100 * found.rows[0].minimum_effect:g} %" if found.rows else "the minimum effect"
        out.print(f"{found.method}; changes below {effect} do not count", soft_wrap=True)
    _limits(found, console)
    if found.accuracy:
        console.show(_accuracy_table(found.accuracy))
        out.print(found.accuracy.method, soft_wrap=True)
        _limits(found.accuracy, console)


def _latency_table(rows: Sequence[LatencyChange]) -> Any:
    from csa_deploy import units
    from csa_deploy.report.labels import label_of

    table = _table("latency", ("", "percentile", "A", "B", "B / A", "99 % interval", "B is"), 1)
    for row in rows:
        table.add_row(
            label_of(row.label),
            f"p{row.percentile:g}",
            f"{row.a_ms:.3f} ms",
            f"{row.b_ms:.3f} ms",
            f"{row.ratio:.3f}",
            units.span(row.low, row.high, "{:.3f}".format),
            _styled(row.outcome),
        )
    return table


def _accuracy_table(found: AccuracyComparison) -> Any:
    from rich.markup import escape

    from csa_deploy import units
    from csa_deploy.report.labels import label_of

    headings = ("", "output", "metric", "A", "B", "change (95 % interval)", "p", "B is", "lost, gained")
    table = _table("accuracy", headings, 3)
    for row in found.rows:
        moved = [*(f"-{escape(i)}" for i in row.lost), *(f"+{escape(i)}" for i in row.gained)]
        table.add_row(
            escape(label_of(row.label)),
            escape(row.output),
            row.metric,
            *(units.metric(value, row.metric) for value in (row.a, row.b)),
            units.change(row.difference, row.interval, row.metric),
            units.probability(row.p_value),
            _styled(row.outcome),
            " ".join(moved),
        )
    return table


def _table(title: str, headings: tuple[str, ...], names: int) -> Any:
    """A table whose first columns are names and whose others are numbers, but for the outcome and what follows."""
    return titled(title, headings, right=headings[names : headings.index("B is")])


def _styled(outcome: str) -> str:
    style = _STYLE.get(outcome, "dim")
    return f"[{style}]{outcome}[/{style}]"


def _limits(found: RunComparison | AccuracyComparison, console: Console) -> None:
    from rich.markup import escape

    from csa_deploy.report.not_measured import by_reason

    for caveat in found.caveats or ():
        console.out.print(f"[yellow]not alike[/yellow] {escape(caveat)}", soft_wrap=True)
    for entry in by_reason(found.not_compared):
        said = f"{escape(', '.join(entry.what))}: {escape(entry.reason)}"
        console.out.print(f"[yellow]not compared[/yellow] {said}", soft_wrap=True)
