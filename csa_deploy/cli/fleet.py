"""``csa-deploy fleet``: networks, precisions and targets as one job on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags

if TYPE_CHECKING:
    from csa_deploy.records.fleet import FleetReport


@flags("fleet")
def fleet(
    console: Console,
    settings: dict[str, Any],
    file: Annotated[Path, typer.Argument(metavar="FLEET.yaml", help="Its networks, targets and settings.")],
) -> None:
    """Deploy several networks to several targets.

    Every network in every precision on every target, on the workers of a cluster; a board has one job at a time. A cell
    that fails stops no other; the same command goes on where an earlier one ended. The exit code is that of the worst;
    with --strict 3 where something was not measured.
    """
    from rich.markup import escape

    from csa_deploy.cli.session import DEFAULT_ROOT
    from csa_deploy.errors import EnvironmentLacksError, failure_with
    from csa_deploy.matrix.fleet import Fleet, read_fleet
    from csa_deploy.matrix.judging import exit_of

    plan = read_fleet(file, settings, DEFAULT_ROOT / file.stem)
    try:
        report = Fleet(plan, lambda said: console.notice(escape(said))).run()
    except KeyboardInterrupt:
        _end(plan.report(finished=False), plan.root, console)
        raise
    page = _end(report, plan.root, console)
    if report.exit_code:
        raise failure_with(report.exit_code, f"{report.summary}: {report.worst}", fix=f"see {page}")
    doubts = [exit_of(network.upgrades, strict=plan.strict)[1] for network in report.networks]
    doubts += report.unmeasured if plan.strict else []
    if said := next(filter(None, doubts), ""):
        raise EnvironmentLacksError(said, fix=f"see {page}")


def _end(report: FleetReport, root: Path, console: Console) -> Path:
    """The table, the result for machines, and the page, whose path is returned."""
    from rich.markup import escape
    from rich.table import Table

    from csa_deploy.report.fleet import write_fleet
    from csa_deploy.report.matrix import CELL_HEADINGS, row_of

    console.answer.add(report.to_json())
    table = Table(title=report.summary, title_justify="left")
    for heading in ("network", *CELL_HEADINGS):
        table.add_column(heading, overflow="fold")
    for network, cell in report.cells:
        table.add_row(escape(network.network), *map(escape, row_of(cell)))
    page = write_fleet(report, root)
    console.show(table, str(page))
    return page
