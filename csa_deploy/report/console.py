"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from csa_deploy import units
from csa_deploy.metrics.table import named
from csa_deploy.records.split import SplitRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.report.data import collect
from csa_deploy.report.labels import SIZE, label_of, reference_of, size_of, timed_on
from csa_deploy.report.not_measured import by_reason
from csa_deploy.report.timings import timings
from csa_deploy.report.views import accuracy_columns
from csa_deploy.workspace import Workspace

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STYLE = {"pass": "bold green", "fail": "bold red", "incomplete": "bold yellow", "undecided": "yellow"}
SHOWN_AFTER = ("build", "verify", "profile", "report")


def show(workspace: Workspace, names: Sequence[str], console: Console) -> None:
    """Print what the verb that ran the named stages is about; nothing when the workspace is empty."""
    if not workspace.manifest["stages"]:
        return

    data, verb = collect(workspace), names[-1]
    if verb in SHOWN_AFTER:
        console.print()
        timings(data, console) if verb == "profile" else console.print(table(data))
    if verb in ("build", "report"):
        restricted(data, console)
    if verb in ("verify", "report"):
        parts(data, console)
    if verb == "verify" and "verify" in data["records"]:
        _of_verify(data["records"]["verify"], console)
    if verb in ("verify", "profile", "report"):
        missing(data, console)
    if verb == "build":
        _of_build(data, console)
    if verb == "report":
        _notes(data["records"].get("export", {}), console)
        verdict(data, console)
    elif verb in data["records"]:
        _end(workspace, data["records"][verb], console)


def _of_build(data: dict[str, Any], console: Console) -> None:
    """What the engines obtained, and the scopes that decide."""
    from rich.markup import escape

    for engine in data["records"].get("build", {}).get("engines", {}).values():
        if "obtained" in engine:  # not in records of older versions
            console.print(f"obtained {escape(engine['obtained']['statement'])}", soft_wrap=True)
    for gate in data["verdict"]["gates"]:
        console.print(escape(gate), soft_wrap=True)


def missing(data: dict[str, Any], console: Console) -> None:
    """What was not measured, one line per reason."""
    from rich.markup import escape

    for entry in by_reason(data["not_measured"]):
        shown = f"{escape(entry['brief'])}: {escape(entry['reason'])}"
        console.print(f"[yellow]not measured[/yellow] {shown}", soft_wrap=True)


def _of_verify(record: dict[str, Any], console: Console) -> None:
    """Where errors come from, and whether samples give the same in every batch."""
    from rich.markup import escape

    for found in record["localization"]:
        explanation(found, console)
    for said, labels in VerifyRecord.from_json(record).batches().items():
        console.print(f"{escape(said)} ({escape(', '.join(labels))})", soft_wrap=True)


def _end(workspace: Workspace, record: dict[str, Any], console: Console) -> None:
    _notes(record, console)
    graph = record.get("graph")
    console.print(
        str(workspace.root / graph) if graph else f"results in {workspace.root}", markup=False, soft_wrap=True
    )


def _notes(record: dict[str, Any], console: Console) -> None:
    from rich.markup import escape

    for note in record.get("notes", []):
        console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)


def explanation(found: dict[str, Any], console: Console) -> None:
    """Which modules a graph's error comes from: those to blame, or the five that add the largest errors."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=escape(f"{found['candidate']}: {found['statement']}"), title_justify="left")
    for heading in ("module", "error in", "error out", "error added", "outputs if restored", "clipped"):
        shown.add_column(heading, justify="left" if heading == "module" else "right")
    rows = [row for row in found["rows"] if row["module"] in found["culprits"]] or found["rows"]
    for row in rows[:5]:
        restored, clipped = units.decibel(row["restored_snr_db"]), units.percent(row["clipped"])
        errors = [units.scientific(row[key]) for key in ("error_in", "error_out", "error_added")]
        shown.add_row(escape(row["module"]), *errors, restored, clipped)
    console.print(shown)


def verdict(data: dict[str, Any], console: Console) -> None:
    """The last lines: what came out, why, and where the page is."""
    from rich.markup import escape

    state = data["verdict"]["state"]
    console.print(f"[{_STYLE[state]}]{state.upper()}[/{_STYLE[state]}] {escape(data['network'])}")
    for check in data["verdict"]["checks"]:
        style = _STYLE.get(check["state"], "yellow")
        console.print(f"  [{style}]{check['state']}[/{style}]  {escape(check['text'])}", soft_wrap=True)
    for reason in data["verdict"]["reasons"]:
        console.print(f"  {escape(reason)}", soft_wrap=True)
    console.print(f"report: {data['workspace']}/report.html", markup=False, soft_wrap=True)


def table(data: dict[str, Any]) -> Table:
    """One line per graph and engine."""
    from rich.markup import escape
    from rich.table import Table

    verified = data["records"].get("verify")
    title = data["network"]
    if verified:
        title += f" on {verified['data']['samples']} samples of {verified['data']['name']}"
    title += f"; work and time per inference of batch {data['batch']}"
    shown = Table(title=escape(title), title_justify="left")
    reference = reference_of(verified)
    columns = accuracy_columns(data, reference)
    for heading in ("", SIZE, "MACs", *(heading for heading, _ in columns), "max error", "verdict", "median"):
        shown.add_column(heading, justify="left" if heading in ("", "verdict") else "right")
    beside = [named(metric).beside for _, metric in columns]
    labelled = next((row["metrics"] for row in data["rows"] if row["metrics"].keys() & set(beside)), None)
    if labelled:
        cells = [units.metric(labelled.get(own), own) if own else "" for own in beside]
        shown.add_row(f"{reference} fp32", "", "", *cells, "", "reference", "")
    for row in data["rows"]:
        shown.add_row(*_cells(row, [metric for _, metric in columns]))
    return shown


def _cells(row: dict[str, Any], metrics: list[str]) -> list[str]:
    from rich.markup import escape

    state = row["verify"] or ("not measured" if row["not_measured"] else units.NONE)
    style = _STYLE.get(state, "yellow" if row["not_measured"] else "")
    said = escape(f"{state}: {row['decided_by']}" if row["decided_by"] else state)
    median = units.milliseconds(row["latency_ms"]["50"]) if row["latency_ms"] else units.NONE
    return [
        label_of(row["label"]),
        size_of(row),
        units.giga(row["macs"]),
        *(units.metric(row["metrics"].get(metric), metric) for metric in metrics),
        units.scientific(row["metrics"].get("max_abs_error")),
        f"[{style}]{said}[/{style}]" if style else said,
        median if median == units.NONE else f"{median} {timed_on(row['label'])}",
    ]


def parts(data: dict[str, Any], console: Console) -> None:
    """What each part of a split network is for, what crosses between them, and what does not fit."""
    from rich.markup import escape
    from rich.table import Table

    if "split" not in data["records"]:
        return
    split = SplitRecord.from_json(data["records"]["split"])
    rows = split.rows()
    shown = Table(title=f"parts, for TensorRT {split.tensorrt}", title_justify="left")
    for heading in rows[0]:
        shown.add_column(heading, justify="right" if heading == "nodes" else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(escape(str(cell)) for cell in row.values()))
    console.print(shown)
    for tensor in split.crossing:
        sides = f"{tensor.producer or 'the application'} -> {', '.join(map(str, tensor.consumers))}"
        console.print(f"{tensor.name}: {sides}, {units.size(tensor.bytes)}", markup=False, soft_wrap=True)
    _notes(data["records"]["split"], console)


def restricted(data: dict[str, Any], console: Console) -> None:
    """One line per scope of the graph that was checked, with the level of evidence, and whether it decides.

    Before these, what was repaired.
    """
    from rich.markup import escape

    if "repair" in data["records"]:
        console.print(f"repaired: {escape(data['records']['repair']['summary'])}", soft_wrap=True)
    checked = data["records"].get("check", {})
    graph = f"{checked.get('of', 'exported')} graph"
    for scope in checked.get("scopes", []):
        colour = {"allowed": "green", "denied": "red"}.get(scope["verdict"], "yellow")
        console.print(
            f"{graph} in {scope['scope']}: [{colour}]{escape(scope['said'])}[/{colour}] (evidence: {scope['level']}"
            f"{'' if scope['scope'] in checked['gate'] else ', for information'})",
            soft_wrap=True,
        )
    if errata := checked.get("errata"):
        console.print(errata["summary"], soft_wrap=True)
        for problem in (p for p in errata["problems"] if p["state"] == "affected"):
            said = f"{problem['severity']} {problem['id']}: {problem['title']}"
            console.print(f"  {escape(said)}", soft_wrap=True)
