"""A matrix as a table: its cells in words, and one self-contained page."""

from __future__ import annotations

from pathlib import Path

from csa_deploy import __version__, units
from csa_deploy.records.matrix import Cell, MatrixReport, version_words
from csa_deploy.report.page import TEMPLATES
from csa_deploy.workspace import write_atomic

CELL_HEADINGS = ("version", "target", "precision", "build", "obtained, share of the work", "accuracy", "latency")
PAGE = "matrix.html"


def row_of(cell: Cell) -> tuple[str, ...]:
    """A cell under :data:`CELL_HEADINGS`."""
    head = (
        f"{version_words(cell.tensorrt)}{f' ({cell.version})' if cell.version else ''}",
        cell.target,
        cell.precision,
    )
    if cell.engine_mib is None:
        word = "failed" if cell.state == "failed" else "not measured"
        return (*head, f"{word}: {cell.reason}", "-", "-", "-")
    reasons = {item.what: f"not measured: {item.reason}" for item in cell.not_measured}
    took = f", {units.duration(cell.build_seconds)}" if cell.build_seconds is not None else ""
    share = cell.obtained.share if cell.obtained else None
    listed = ", ".join(item.type for item in cell.obtained.types) if cell.obtained else ""
    obtained = f"{units.percent(share)} (layers in {listed})" if share is not None else reasons["obtained precision"]
    said = (f"{cell.engine_mib} MiB{took}", cell.note, f"failed: {cell.reason}" if cell.state == "failed" else "")
    build = "; ".join(filter(None, said))
    return (*head, build, obtained, _accuracy(cell, reasons), _latency(cell, reasons))


def _accuracy(cell: Cell, reasons: dict[str, str]) -> str:
    found = cell.accuracy
    if found is None:
        return reasons["accuracy"]
    ratio = found.metrics.get("snr_db")
    told = ratio is None or found.decided_by.startswith("snr_db ")
    said = [found.verdict, found.decided_by, "" if told else units.decibel(ratio)]
    return f"{', '.join(filter(None, said))} on {units.counted(found.samples, 'sample')}"


def _latency(cell: Cell, reasons: dict[str, str]) -> str:
    found = cell.latency
    if found is None:
        return reasons["latency"]
    low, high = found.interval_ms or (None, None)
    between = f" ({units.milliseconds(low)} to {units.milliseconds(high)})" if low and high else ""
    last = f", p99 {units.milliseconds(found.p99_ms)}" if found.p99_ms is not None else ""
    return f"median {units.milliseconds(found.p50_ms)}{between}{last}"


def write_page(report: MatrixReport, root: Path) -> Path:
    """Write ``matrix.html``, which needs nothing from elsewhere; its path."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters["version"] = version_words
    page = environment.get_template("matrix.html.j2").render(
        m=report,
        headings=CELL_HEADINGS,
        row_of=row_of,
        css=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        csa_deploy=__version__,
    )
    path = root / PAGE
    write_atomic(path, page)
    return path
