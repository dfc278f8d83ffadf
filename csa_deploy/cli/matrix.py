"""``csa-deploy matrix``: one network over several TensorRT versions and targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.cli.stages import Network
from csa_deploy.tables import titled

if TYPE_CHECKING:
    from rich.table import Table

    from csa_deploy.records.matrix import MatrixReport

Versions = Annotated[
    list[str] | None,
    typer.Option("--tensorrt", metavar="VERSIONS", help="TensorRT versions, the one in use first: 8.6,10.10,11.1,rtx."),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--targets", metavar="FILES", help="Files of targets, a.yaml,b.yaml; without them this machine."),
]


@flags("matrix")
def matrix(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    tensorrt: Versions = None,
    targets: Targets = None,
) -> None:
    """Say which TensorRT version a network may be deployed with.

    The same graph and samples on every version and target: build, obtained precision, accuracy, latency, what changes
    from version to version, and what is known without any machine. What cannot be reached is not measured, with the
    reason; a cell that fails stops no other; the same command goes on where an earlier one ended. Exit 4, 5, 6 or 7
    where a version may not be used; with --strict 3 where that is not known.
    """
    from rich.text import Text

    from csa_deploy.cli.session import resolve
    from csa_deploy.errors import failure_with
    from csa_deploy.matrix.judging import exit_of
    from csa_deploy.matrix.plan import parse_places, parse_versions, spots_of
    from csa_deploy.matrix.run import Matrix

    def begun(what: str) -> None:
        console.notice(Text(what, style="bold"))

    asked, places = parse_versions(tensorrt or []), parse_places(targets or [])
    config, default = resolve(network, settings, inherit=False)
    root = Path(settings.get("workspace") or default / "matrix")
    with console.watching() as watcher:
        run = Matrix(config, asked, spots_of(asked, places), root, watcher, begun)
        try:
            report = run.run()
        except BaseException:
            if run.graphs:
                _end(run.report(finished=False), root, console)
            raise
    page = _end(report, root, console)
    code, reason = exit_of(report.upgrades, strict=config.strict)
    if code:
        raise failure_with(code, reason, fix=f"see {page}")


def _end(report: MatrixReport, root: Path, console: Console) -> Path:
    """The tables, the result for machines, and the page, whose path is returned."""
    console.answer.add(report.to_json())
    console.show(_cells(report))
    from rich.markup import escape

    from csa_deploy.records.matrix import RTX, version_words
    from csa_deploy.report.matrix import write_page

    for facts in report.known:
        where = f"{version_words(facts.tensorrt)}{f' on {facts.platform}' if facts.platform else ''}"
        scopes = ", ".join(f"{s.scope} {s.verdict} ({s.level})" for s in facts.scopes)
        problems = ", ".join(f"{p.id} ({p.severity})" for p in facts.problems)
        problems = problems or ("" if facts.tensorrt == RTX else "no known problem")
        said = [scopes, problems, f"{facts.not_ruled_out} not ruled out" if facts.not_ruled_out else "", *facts.unknown]
        console.show(escape(f"{where}, without a machine: {'; '.join(filter(None, said))}"))
    for change in report.changes:
        text = f"{change.before} -> {change.after}, {change.where}: {change.what}: {change.said}"
        console.show(f"[{'red' if change.worse else 'green'}]change[/] {escape(text)}")
    style = {"yes": "green", "no": "bold red", "unknown": "yellow"}
    for upgrade in report.upgrades:
        reasons = f": {'; '.join(upgrade.reasons)}" if upgrade.reasons else ""
        console.show(f"[{style[upgrade.verdict]}]{upgrade.verdict:<8}[/]{escape(f'{upgrade.tensorrt}{reasons}')}")
    page = write_page(report, root)
    console.show(f"{page}")
    return page


def _cells(report: MatrixReport) -> Table:
    from rich.markup import escape

    from csa_deploy.report.matrix import CELL_HEADINGS, row_of

    table = titled(escape(f"{report.network}: {report.summary}"), CELL_HEADINGS)
    for cell in report.cells:
        table.add_row(*map(escape, row_of(cell)))
    return table
