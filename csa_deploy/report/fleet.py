"""A fleet as one table: every cell with a link to its report, in a page that needs nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from csa_deploy import __version__
from csa_deploy.records.fleet import FleetReport
from csa_deploy.records.matrix import Cell
from csa_deploy.report.matrix import CELL_HEADINGS, row_of, write_page
from csa_deploy.report.page import TEMPLATES
from csa_deploy.workspace import write_atomic

FLEET_PAGE = "fleet.html"


def write_fleet(report: FleetReport, root: Path) -> Path:
    """Write ``fleet.html`` and the page of every network's matrix; the path of the first."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def link(cell: Cell) -> str:
        page = Path(cell.workspace) / "report.html"
        return page.relative_to(root).as_posix() if page.is_file() else ""

    pages = {
        network.network: write_page(network, root / folder).relative_to(root).as_posix()
        for network, folder in zip(report.networks, report.folders, strict=True)
    }
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("fleet.html.j2").render(
        f=report,
        pages=pages,
        headings=CELL_HEADINGS,
        row_of=row_of,
        link=link,
        css=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        csa_deploy=__version__,
    )
    write_atomic(root / FLEET_PAGE, page)
    return root / FLEET_PAGE
