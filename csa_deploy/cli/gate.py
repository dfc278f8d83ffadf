"""``csa-deploy gate``: hold a bundle or a workspace against a project's acceptance policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.tables import titled

if TYPE_CHECKING:
    import datetime

    from csa_deploy.policy.deployment import Deployment
    from csa_deploy.policy.verdict import PolicyVerdict

_STYLE = {"pass": "green", "fail": "bold red", "undecided": "yellow", "not measured": "yellow", "not applicable": "dim"}


@flags("gate")
def gate(
    console: Console,
    settings: dict[str, Any],
    policy: Annotated[
        Path, typer.Argument(metavar="POLICY", help="The policy, a YAML file; docs/gate.md has its keys.")
    ],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="The bundle to judge, in place of a workspace.")
    ] = None,
    day: Annotated[
        str | None, typer.Option("--on", metavar="DAY", help="Judge what expires on this day; default: today, in UTC.")
    ] = None,
    output_format: str = "text",
) -> None:
    """Judge a bundle or a workspace by a policy.

    Every requirement is named with its state and what shows it. Exit 0 when it is accepted, 8 when it is not: a
    requirement fails, is undecided or was not measured, or something accepted has expired or is not needed.
    """
    from csa_deploy.policy.judging import judge_policy
    from csa_deploy.policy.reporters import as_junit, as_markdown

    metric = tuple(settings.get("metric", ()))
    verdict = judge_policy(policy, _deployment(bundle, settings), metric=metric, today=_day(day))
    console.answer.add(verdict.to_json())
    if output_format == "junit":
        console.write(as_junit(verdict))
    elif output_format == "markdown":
        console.write(as_markdown(verdict))
    else:
        _show(verdict, console)
    if (failure := verdict.failure()) is not None:
        raise failure


def _deployment(bundle: Path | None, settings: dict[str, Any]) -> Deployment:
    from csa_deploy.errors import UsageError
    from csa_deploy.policy.deployment import of_bundle, of_workspace

    workspace = settings.get("workspace")
    if (bundle is None) == (workspace is None):
        raise UsageError("gate judges a bundle or a workspace", fix="give one of --bundle FILE and --workspace FOLDER")
    return of_bundle(bundle) if bundle is not None else of_workspace(Path(str(workspace)))


def _day(text: str | None) -> datetime.date | None:
    import datetime

    from csa_deploy.errors import UsageError

    try:
        return datetime.date.fromisoformat(text) if text is not None else None
    except ValueError:
        raise UsageError(f"--on {text}: it is no day", fix="write it as 2027-03-31") from None


def _show(verdict: PolicyVerdict, console: Console) -> None:
    from rich.markup import escape

    title = escape(f"{verdict.deployment}: {verdict.verdict}")
    table = titled(title, ("", "requirement", "state", "found", "evidence"))
    for r in verdict.requirements:
        cells = map(escape, (r.found, r.evidence))
        table.add_row(r.kind, escape(r.name), f"[{_STYLE[r.state]}]{r.state}[/{_STYLE[r.state]}]", *cells)
    console.show(table)
    console.out.print(escape(verdict.summary), soft_wrap=True)
