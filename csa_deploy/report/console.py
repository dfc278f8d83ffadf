"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from csa_deploy import units
from csa_deploy.report.data import collect
from csa_deploy.workspace import Workspace

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLE = {"pass": "bold green", "fail": "bold red", "incomplete": "bold yellow", "undecided": "yellow"}
SHOWN_AFTER = ("build", "verify", "profile", "report")


def show(workspace: Workspace, names: Sequence[str], console: Console) -> None:
    """Print what the verb that ran the named stages is about; nothing when the workspace is empty."""
    if not workspace.manifest["stages"]:
        return
    from rich.markup import escape

    data = collect(workspace)
    if names[-1] in SHOWN_AFTER:
        console.print()
        console.print(table(data, names[-1]))
        if names[-1] in ("build", "report"):
            restricted(data, console)
    for item in data["not_measured"] if names[-1] in ("verify", "profile", "report") else []:
        console.print(f"[yellow]not measured[/yellow] {escape(item['what'])}: {escape(item['reason'])}", soft_wrap=True)
    if names[-1] == "build":
        for gate in data["verdict"]["gates"]:
            console.print(escape(gate), soft_wrap=True)
    if names[-1] == "report":
        verdict(data, console)
    elif names[-1] in data["records"]:
        for note in data["records"][names[-1]].get("notes", []):
            console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)
        graph = data["records"][names[-1]].get("graph")
        console.print(
            str(workspace.root / graph) if graph else f"results in {workspace.root}", markup=False, soft_wrap=True
        )


def verdict(data: dict[str, Any], console: Console) -> None:
    """The last lines: what came out, why, and where the page is."""
    from rich.markup import escape

    state = data["verdict"]["state"]
    console.print(f"[{STYLE[state]}]{state.upper()}[/{STYLE[state]}] {escape(data['network'])}")
    for gate in data["verdict"]["gates"]:
        console.print(f"  {escape(gate)}", soft_wrap=True)
    for reason in data["verdict"]["reasons"]:
        console.print(f"  {escape(reason)}", soft_wrap=True)
    console.print(f"report: {data['workspace']}/report.html", markup=False, soft_wrap=True)


def table(data: dict[str, Any], verb: str) -> Table:
    """One line per graph and engine."""
    from rich.markup import escape
    from rich.table import Table

    verified = data["records"].get("verify")
    title = data["network"]
    if verified:
        title += f" on {verified['data']['samples']} samples of {verified['data']['name']}"
    labelled = any("top1" in row["metrics"] for row in data["rows"])
    shown = Table(title=escape(title), title_justify="left")
    accuracy = ["top-1", "top-5"] if labelled else []
    for heading in (
        "",
        "size",
        "MACs",
        *accuracy,
        "agrees with PyTorch",
        "signal/noise",
        "max error",
        "verdict",
        "CPU median",
    ):
        shown.add_column(heading, justify="left" if heading in ("", "verdict") else "right")
    if labelled and verified:
        reference = verified["candidates"][0]["outputs"][0]["metrics"]
        cells = [units.percent(reference.get("reference_top1")), units.percent(reference.get("reference_top5"))]
        shown.add_row(verified["reference"]["backend"] + " fp32", "", "", *cells, "reference", "", "", "", "")
    for row in data["rows"]:
        shown.add_row(*_cells(row, labelled))
    return shown


def _cells(row: dict[str, Any], labelled: bool) -> list[str]:
    metrics = row["metrics"]
    accuracy = [units.percent(metrics.get("top1")), units.percent(metrics.get("top5"))] if labelled else []
    state = row["verify"] or ("not measured" if row["not_measured"] else units.NONE)
    style = STYLE.get(state, "yellow" if row["not_measured"] else "")
    # An engine's latency is a GPU's; it stands in the report, never in the CPU column.
    latency = row["latency_ms"]["50"] if row["latency_ms"] and not row["label"].startswith("engine") else None
    return [
        NAMES.get(row["label"], row["label"]),
        units.size(row["bytes"]),
        units.giga(row["macs"]),
        *accuracy,
        units.percent(metrics.get("top1_agreement")),
        units.decibel(metrics.get("snr_db")),
        units.scientific(metrics.get("max_abs_error")),
        f"[{style}]{state}[/{style}]" if style else state,
        units.milliseconds(latency),
    ]


NAMES = {"exported": "exported graph", "fp32": "optimized graph", "fp16": "fp16 graph", "int8": "int8 graph"}


def restricted(data: dict[str, Any], console: Console) -> None:
    """The gates that count, or one line per scope of the exported graph, with the level of evidence."""
    for scope in data["records"].get("check", {}).get("scopes", []):
        colour = {"allowed": "green", "denied": "red"}.get(scope["verdict"], "yellow")
        console.print(
            f"exported graph in {scope['scope']}: [{colour}]{scope['verdict']}[/{colour}] (evidence: {scope['level']})",
            soft_wrap=True,
        )
