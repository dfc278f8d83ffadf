"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from csa_deploy import units
from csa_deploy.metrics.table import named
from csa_deploy.records.loadgen import LOADGEN_LOGS, NO_SUBMISSION
from csa_deploy.records.localization import Localization
from csa_deploy.records.profile import Gate, LatencySummary
from csa_deploy.records.report import Records, ReportData, Row
from csa_deploy.records.split import SplitRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.report.data import collect
from csa_deploy.report.labels import SIZE, label_of, rank, size_of, timed_on
from csa_deploy.report.not_measured import by_reason
from csa_deploy.report.verdict import against_baseline, word_of
from csa_deploy.report.views import BESIDE_MEDIAN, accuracy_columns
from csa_deploy.results import StageRecord
from csa_deploy.tables import titled
from csa_deploy.workspace import Workspace

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STYLE = {"pass": "bold green", "fail": "bold red", "incomplete": "bold yellow", "undecided": "yellow"}
_GATE_STYLE = {"pass": "green", "fail": "bold red"}
SHOWN_AFTER = ("build", "verify", "profile", "report")


def show(workspace: Workspace, names: Sequence[str], console: Console) -> None:
    """Print what the verb that ran the named stages is about; nothing when the workspace is empty."""
    if not workspace.stages:
        return

    data, verb = collect(workspace), names[-1]
    if verb in SHOWN_AFTER:
        console.print()
        timings(data, console) if verb == "profile" else console.print(table(data))
    if verb in ("build", "report"):
        restricted(data.records, console)
    parts(data.records.split if verb in ("verify", "report") else None, console)
    if verb == "verify" and data.records.verify:
        _of_verify(data.records.verify, console)
    if verb in ("verify", "profile", "report"):
        missing(data, console)
    if verb == "build":
        _of_build(data, console)
    record = data.records.export if verb == "report" else data.records.done.get(verb)
    if record:
        _notes(record, console)
    if verb == "report":
        verdict(data, console)
    elif record:
        graph = getattr(record, "graph", None)
        told = str(workspace.root / graph) if graph else f"results in {workspace.root}"
        console.print(told, markup=False, soft_wrap=True)


def _of_build(data: ReportData, console: Console) -> None:
    """What the engines obtained, and the scopes that decide."""
    from rich.markup import escape

    for engine in data.records.build.engines.values() if data.records.build else ():
        if engine.obtained:  # not in records of older versions
            console.print(f"obtained {escape(engine.obtained.statement)}", soft_wrap=True)
    for gate in data.verdict.gates:
        console.print(escape(gate), soft_wrap=True)


def missing(data: ReportData, console: Console) -> None:
    """What was not measured, one line per reason."""
    from rich.markup import escape

    for entry in by_reason(data.not_measured):
        shown = f"{escape(entry.brief)}: {escape(entry.said)}"
        console.print(f"[yellow]not measured[/yellow] {shown}", soft_wrap=True)


def _of_verify(record: VerifyRecord, console: Console) -> None:
    """Where errors come from, and whether samples give the same in every batch."""
    from rich.markup import escape

    for found in record.localization:
        explanation(found, console)
    for said, labels in record.batches().items():
        console.print(f"{escape(said)} ({escape(', '.join(labels))})", soft_wrap=True)


def _notes(record: StageRecord, console: Console) -> None:
    from rich.markup import escape

    for note in record.notes:
        console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)


def explanation(found: Localization, console: Console) -> None:
    """Which modules a graph's error comes from: those to blame, or the five that add the largest errors."""
    from rich.markup import escape

    numbers = ("error in", "error out", "error added", "outputs if restored", "clipped")
    shown = titled(escape(f"{found.candidate}: {found.statement}"), ("module", *numbers), right=numbers)
    rows = [row for row in found.rows if row.module in found.culprits] or found.rows
    for row in rows[:5]:
        restored, clipped = units.decibel(row.restored_snr_db), units.percent(row.clipped)
        errors = [units.scientific(value) for value in (row.error_in, row.error_out, row.error_added)]
        shown.add_row(escape(row.module), *errors, restored, clipped)
    console.print(shown)


def verdict(data: ReportData, console: Console) -> None:
    """The last lines: what came out, why, and where the page is."""
    from rich.markup import escape

    state = data.verdict.state
    console.print(f"[{_STYLE[state]}]{state.upper()}[/{_STYLE[state]}] {escape(data.network)}")
    for check in data.verdict.checks:
        style = _STYLE.get(check.state, "yellow")
        console.print(f"  [{style}]{check.state}[/{style}]  {escape(check.text)}", soft_wrap=True)
    for reason in data.verdict.reasons:
        console.print(f"  {escape(reason)}", soft_wrap=True)
    console.print(f"report: {data.workspace}/report.html", markup=False, soft_wrap=True)


def table(data: ReportData) -> Table:
    """One line per graph and engine."""
    from rich.markup import escape

    title, verified = data.network, data.records.verify
    if verified:
        title += f" on {verified.data.samples} samples of {verified.data.name}"
    title += f"; work and time per inference of batch {data.batch}"
    columns = accuracy_columns(data)
    numbers = (SIZE, "MACs", *(heading for heading, _ in columns), "max error")
    shown = titled(escape(title), ("", *numbers, "verdict", "median"), right=(*numbers, "median"))
    beside = [named(metric).beside for _, metric in columns]
    labelled = next((row.metrics for row in data.rows if row.metrics.keys() & set(beside)), None)
    if labelled:
        cells = [units.metric(labelled.get(own), own) if own else "" for own in beside]
        shown.add_row(f"{data.reference} fp32", "", "", *cells, "", "reference", "")
    for row in data.rows:
        shown.add_row(*_cells(row, [metric for _, metric in columns]))
    return shown


def _cells(row: Row, metrics: list[str]) -> list[str]:
    from rich.markup import escape

    state = row.verify or ("not measured" if row.not_measured else units.NONE)
    style = _STYLE.get(state, "yellow" if row.not_measured else "")
    said = escape(f"{state}: {row.decided_by}" if row.decided_by else state)
    median = units.milliseconds(row.latency_ms["50"]) if row.latency_ms else units.NONE
    return [
        label_of(row.label),
        size_of(row),
        units.giga(row.macs),
        *(units.metric(row.metrics.get(metric), metric) for metric in metrics),
        units.scientific(row.metrics.get("max_abs_error")),
        f"[{style}]{said}[/{style}]" if style else said,
        median if median == units.NONE else f"{median} {timed_on(row.label)}",
    ]


def parts(split: SplitRecord | None, console: Console) -> None:
    """What each part of a split network is for, what crosses between them, and what does not fit."""
    from rich.markup import escape

    if split is None:
        return
    rows = split.rows()
    shown = titled(f"parts, for TensorRT {split.tensorrt}", rows[0], right=("nodes",))
    for row in rows:
        shown.add_row(*(escape(str(cell)) for cell in row.values()))
    console.print(shown)
    for tensor in split.crossing:
        sides = f"{tensor.producer or 'the application'} -> {', '.join(map(str, tensor.consumers))}"
        console.print(f"{tensor.name}: {sides}, {units.size(tensor.bytes)}", markup=False, soft_wrap=True)
    _notes(split, console)


def restricted(records: Records, console: Console) -> None:
    """One line per scope of the graph that was checked, with the level of evidence, and whether it decides.

    Before these, what was repaired.
    """
    from rich.markup import escape

    if records.repair:
        console.print(f"repaired: {escape(records.repair.summary)}", soft_wrap=True)
    checked = records.check
    if checked is None:
        return
    for scope in checked.scopes:
        colour = {"allowed": "green", "denied": "red"}.get(scope.verdict, "yellow")
        console.print(
            f"{checked.of} graph in {scope.scope}: [{colour}]{escape(scope.said)}[/{colour}] (evidence: {scope.level}"
            f"{'' if scope.scope in checked.gate else ', for information'})",
            soft_wrap=True,
        )
    if errata := checked.errata:
        console.print(errata.summary, soft_wrap=True)
        for problem in errata.affected:
            console.print(f"  {escape(f'{problem.severity} {problem.id}: {problem.title}')}", soft_wrap=True)


def timings(data: ReportData, console: Console) -> None:
    """What was timed: percentiles with the median's interval, what to doubt, limits, energy."""
    from rich.markup import escape

    if data.records.profile is None or data.profiled is None:
        return
    contract, measured = data.records.profile.contract, data.profiled
    console.print(_latency_table(data.network, measured.latency))
    amount = f"{contract.seconds:g} s" if contract.seconds else units.counted(contract.iterations or 0, "inference")
    console.print(
        f"each {amount} after {contract.warmup} to warm up, batch {contract.batch}, in turns; interval of the "
        f"median 99 %; graphs in ONNX Runtime on this machine's CPU, {measured.host.cpu}",
        soft_wrap=True,
        markup=False,
    )
    for label, found in measured.latency.items():
        if found.drift.flagged:
            console.print(
                f"[yellow]drift[/yellow] {escape(label_of(label))}: {100 * found.drift.change:+.1f} % from the "
                "first quarter to the last: the machine was not steady",
                soft_wrap=True,
            )
    for gate in measured.gates:
        word = word_of(gate)
        console.print(f"[{_GATE_STYLE.get(word, 'yellow')}]{word}[/] {escape(_gate(gate))}", soft_wrap=True)
    for run in measured.loadgen:
        style = _GATE_STYLE.get(run.state, "yellow")
        said = f"{label_of(run.label)} in {run.statement}"
        console.print(f"[{style}]{run.state}[/] {escape(said)}", soft_wrap=True)
    if measured.loadgen:
        version, logs = measured.loadgen[0].loadgen, f"{data.workspace}/{LOADGEN_LOGS}"
        console.print(f"load generator {version}: {NO_SUBMISSION}; logs in {logs}", soft_wrap=True, markup=False)
    for label, rails in measured.energy_per_inference_j.items():
        for rail, joule in rails.items():
            console.print(f"energy {label_of(label)}: {1e3 * joule:.3g} mJ per inference, {rail}", markup=False)


def _gate(gate: Gate) -> str:
    """``fp32 graph p50 against baseline +10.9 % (99 % interval -1.0 to +20.0 %), allowed 2 %: both timed now``."""
    said = f"{label_of(gate.label)} {gate.quantity}"
    if "baseline" in gate.quantity:
        said += f" {against_baseline(gate)}"
    else:
        said += ("" if gate.value is None else f" is {gate.value:g}") + f", limit {gate.bound:g}"
    return said + (f": {gate.reason}" if gate.reason else "")


def _latency_table(network: str, latency: Mapping[str, LatencySummary]) -> Table:
    from rich.markup import escape

    percentiles = (f"p{p}" for p in BESIDE_MEDIAN)
    numbers = ("median", "interval", *percentiles, "max", "jitter", "per second", "outliers")
    shown = titled(f"latency of {escape(network)}", ("", *numbers), right=numbers)
    for label in sorted(latency, key=rank):
        found = latency[label]
        interval = [units.milliseconds(bound).removesuffix(" ms") for bound in found.intervals_ms["50"] or ()]
        shown.add_row(
            escape(label_of(label)),
            units.milliseconds(found.percentiles_ms["50"]),
            " - ".join(interval) or units.NONE,
            *(_percentile(found, p) for p in BESIDE_MEDIAN),
            units.milliseconds(found.max_ms),
            units.milliseconds(found.jitter_ms),
            f"{found.throughput:,.0f}",
            str(found.outliers.count or ""),
        )
    return shown


def _percentile(found: LatencySummary, percentile: str) -> str:
    need = found.too_few.get(percentile)
    return f"needs {need}" if need else units.milliseconds(found.percentiles_ms.get(percentile))
