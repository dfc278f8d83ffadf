"""``csa-deploy judge``: hold stored results against budgets, without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.tables import titled

if TYPE_CHECKING:
    from csa_deploy.verify.judging import Judgement

_STYLE = {"pass": "green", "fail": "bold red", "undecided": "yellow", "not measured": "dim"}


@flags("judge")
def judge(
    console: Console,
    settings: dict[str, Any],
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A workspace, a samples.npz or partial.npz, or a network's name; default ./deploy/convselfattn.",
            show_default=False,
        ),
    ] = None,
    output_format: str = "text",
) -> None:
    """Judge stored results again, without running.

    The budgets are those of the run, overridden by --budget. Exit 6 when one is broken, and with --strict when it is
    undecided.
    """
    from csa_deploy.api.runs import judge_stored
    from csa_deploy.verify.reporters import as_junit, as_markdown

    path = _file(run, settings)
    judgement = judge_stored(path, budget=settings.get("budget", []), metric=settings.get("metric", []))
    strict = bool(settings.get("strict"))
    console.answer.add(judgement.to_json())
    if output_format == "junit":
        console.write(as_junit(judgement, strict=strict))
    elif output_format == "markdown":
        console.write(as_markdown(judgement, str(path)))
    else:
        _show(judgement, path, console)
    failure = judgement.failure(strict=strict)
    if failure is not None:
        raise failure


def _file(run: str | None, settings: dict[str, Any]) -> Path:
    from csa_deploy.cli.session import resolve
    from csa_deploy.verify.results import stored_results

    given = Path(run) if run else None
    if given and given.suffix == ".npz":
        return given
    if given and (given / "manifest.json").is_file():
        return stored_results(given)
    where = {k: v for k, v in settings.items() if k == "workspace"}
    return stored_results(resolve(run, where, inherit=False)[1])


def _show(judgement: Judgement, path: Path, console: Console) -> None:
    from rich.markup import escape

    from csa_deploy import units
    from csa_deploy.verify.reporters import BOUND_HEADINGS, BOUND_NUMBERS

    table = titled(escape(f"{path}: {judgement.verdict}"), BOUND_HEADINGS, right=BOUND_NUMBERS)
    for candidate in judgement.candidates:
        for c in candidate.checks:
            style, sure = _STYLE[c.state], units.metric(c.sure, c.metric)
            row = map(escape, (candidate.label, c.output, c.metric, c.measured, sure, c.limit))
            table.add_row(*row, f"[{style}]{c.state}[/{style}]")
    console.show(table)
    for note in judgement.notes:
        console.out.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)
