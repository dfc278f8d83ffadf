"""``csa-deploy errata``."""

from __future__ import annotations

from typing import Annotated

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.tables import titled


@flags("errata", workspace=False)
def errata(
    console: Console,
    tensorrt: Annotated[
        str | None, typer.Option("--tensorrt", metavar="VERSION", help="Only those of this TensorRT, such as 10.10.10.")
    ] = None,
    explain: Annotated[str | None, typer.Option("--explain", metavar="ID", help="Tell all of one.")] = None,
) -> None:
    """List known problems of TensorRT.

    Each was read in a public source on the day that is named. Which of them a graph meets, check --errata says.
    """
    from rich.markup import escape

    from csa_deploy.restricted.errata.finding import listed
    from csa_deploy.restricted.explain import explain as explain_id

    if explain is not None:
        said = explain_id(explain)
        console.answer.add({"id": explain, "text": said})
        console.plain(said)
        return
    found = listed(tensorrt or "")
    console.answer.add(found.to_json())
    table = titled(found.summary, ("id", "severity", "symptom", "versions", "problem"))
    for problem in found.problems:
        severity = problem.severity if problem.state == "affected" else f"{problem.severity}, {problem.state}"
        table.add_row(*map(escape, (problem.id, severity, problem.symptom, problem.versions, problem.title)))
    console.show(table)
    for line in found.unknown:
        console.notice(line)
