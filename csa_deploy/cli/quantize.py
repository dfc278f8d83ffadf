"""``csa-deploy quantize``: reduced precisions that keep their accuracy, with what that rests on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.cli.session import existing_workspace, run_verb
from csa_deploy.cli.stages import Network
from csa_deploy.errors import AccuracyGateError
from csa_deploy.tables import titled

if TYPE_CHECKING:
    from onnx import ModelProto

    from csa_deploy.records.precision import Int8Graph, Search, SearchPoint, TechniqueFinding
    from csa_deploy.workspace import Workspace


@flags("quantize")
def quantize(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    why: Annotated[
        Path | None,
        typer.Option(
            "--why", metavar="FILE.onnx", help="Instead, why this INT8 graph is not faster, or if INT8 is worth making."
        ),
    ] = None,
) -> None:
    """Make FP16 and INT8 graphs and measure them.

    INT8 is calibrated on --calib in one pass and constant memory, and verified in ONNX Runtime on --data (exit 6 when
    a budget is broken).
    """
    if why is not None:
        _why(why, settings, console)
        return
    try:
        run_verb(["precision", "verify"], network, settings, console)
    except AccuracyGateError:
        _show(existing_workspace(network, settings), console)
        raise
    _show(existing_workspace(network, settings), console)


def _show(workspace: Workspace, console: Console) -> None:
    """What stayed in higher precision and why, what the search weighed, and the files."""
    from rich.markup import escape

    from csa_deploy.records.export import ExportRecord
    from csa_deploy.records.precision import PrecisionRecord, Search

    record = workspace.find(PrecisionRecord)
    if record is None:
        return
    for note in (*workspace.read(ExportRecord).notes, *record.notes):
        console.show(f"[yellow]note[/yellow] {escape(note)}")
    for precision, graph in record.precisions.items():
        console.show(f"{precision}: {escape(str(workspace.root / graph.graph))}")
    int8 = record.int8
    if int8 is None:
        return
    console.show(f"calibration cache of TensorRT 8.6: {escape(str(workspace.root / int8.cache))}")
    search = int8.search if isinstance(int8.search, Search) else None
    console.show(f"latency, estimated by a cost model of {search.device if search else 'the GPU'}: {_estimates(int8)}")
    for name, found in int8.techniques.items():
        console.show(f"{name.replace('_', ' ')}: {escape(_evidence(found))}")
    if search:
        console.show(_pareto(search))
        for metric, reason in search.not_judged.items():
            console.show(f"[yellow]not judged in the search[/yellow] {metric}: {escape(reason)}")


def _estimates(int8: Int8Graph) -> str:
    from csa_deploy.units import counted

    known = [f"{name} {ms:.3f} ms" for name, ms in int8.estimated_latency_ms.items() if ms is not None]
    return ", ".join(known) or f"unknown for {counted(len(int8.cost_unknown), 'node')}"


def _evidence(found: TechniqueFinding) -> str:
    """What a technique brought on the calibration images that it was not fitted to."""
    if found.snr_db_with is None:
        return f"off: {found.reason}"
    error = f" ± {found.gain_error_db:.1f}" if found.gain_error_db is not None else ""
    told = f"{found.gain_db:+.1f}{error} dB per image in the mean over {found.images} calibration images"
    return f"{'on' if found.used else 'off'}, {told}; {found.reason}"


def _why(path: Path, settings: dict[str, Any], console: Console) -> None:
    from csa_deploy.graph.load import load_model
    from csa_deploy.graph.operators import QUANTIZED

    model = load_model(path, full_check=False)
    if any(node.op_type in QUANTIZED for node in model.graph.node):
        _diagnose(model, path, console)
    else:
        _prospect(path, settings, console)


def _prospect(path: Path, settings: dict[str, Any], console: Console) -> None:
    """Whether INT8 is worth making of a graph, and what it would cost."""
    from rich.markup import escape

    from csa_deploy.config import make_config
    from csa_deploy.precision.prospect import prospect_of_file
    from csa_deploy.restricted.errata.asking import question_of
    from csa_deploy.units import counted, percent, size

    found = prospect_of_file(path, question_of(make_config(settings)).tensorrt)
    console.answer.add({"file": str(path), **found.to_json()})
    title = escape(f"{path.name}: {found.statement}")
    table = titled(title, ("what INT8 meets", "nodes", "moved besides", "sources"))
    for (kind, what), alike in found.by_obstacle().items():
        sizes = [item.bytes for item in alike]
        moved = "unknown" if None in sizes else size(sum(filter(None, sizes))) if any(sizes) else ""
        table.add_row(escape(f"{kind}: {what}"), str(len(alike)), moved, escape("\n".join(alike[0].sources)))
    for name, reason in found.refused.items():
        table.add_row(escape(f"{name}: {reason}"), "1", "", "")
    moved = "unknown" if found.reformat_bytes is None else size(found.reformat_bytes)
    share = f"{percent(found.share)} of the multiply-accumulates can run in INT8, reformats move {moved}"
    console.show(table, f"{share}; errata of TensorRT {found.tensorrt}")
    console.show(f"estimated by a cost model of {found.device}: operations and bytes, without fusions")
    if found.unknown:
        console.show(f"cost unknown for {counted(len(found.unknown), 'node')}")
    if not found.measured:
        console.show(f"[yellow]not measured[/yellow] INT8 against FP16: {escape(found.reason)}")


def _diagnose(model: ModelProto, path: Path, console: Console) -> None:
    """What keeps a quantized graph from being faster, the most expensive cause first."""

    from csa_deploy.precision.why_slow import diagnose

    found = diagnose(model)
    hazards = [{"hazard": hazard, **asdict(total)} for hazard, total in found.by_hazard().items()]
    layers = {"layers": found.layers, "int8_layers": found.int8_layers}
    console.answer.add({"file": str(path), "device": found.device, **layers, "hazards": hazards})
    title = f"{path.name}: {found.int8_layers} of {found.layers} layers with weights compute in INT8"
    table = titled(title, ("what keeps it from being faster", "nodes", "estimated cost", "what to do"))
    for hazard, total in found.by_hazard().items():
        table.add_row(hazard, str(total.nodes), total.cost, total.mitigation)
    console.show(table, f"estimated by a cost model of {found.device}: operations and bytes, without fusions")


def _pareto(search: Search) -> Any:

    from csa_deploy.units import metric

    worst = f", the worst of {search.outputs} outputs" if search.outputs > 1 else ""
    title = f"accuracy against latency, on {search.images} calibration images{worst}"
    more = dict.fromkeys(["snr_db", "top1_agreement", *(key.rpartition(".")[2] for key in search.budget)])
    headings = ("layers back in floating point", "estimated latency", *more, "budget")
    table = titled(title, headings, right=headings)
    for point in search.pareto:
        mark = " (chosen)" if point is search.chosen else ""
        table.add_row(
            f"{point.returned}{mark}",
            "-" if point.latency_ms is None else f"{point.latency_ms:.3f} ms",
            *(metric(point.metrics.get(name), name) for name in more),
            held(point, search),
        )
    return table


def held(point: SearchPoint, search: Search) -> str:
    """Whether the budget holds; where it takes the one image that shares may miss, how many differ."""
    from csa_deploy.metrics.table import named

    if not point.holds:
        first, *others = point.broken
        return f"broken: {first}{f' (and {len(others)} more)' if others else ''}"
    found, images = point.metrics, search.images
    for key, bound in search.budget.items():
        metric = named(key.rpartition(".")[2])
        if metric.counted and metric.name in found and metric.worse(found[metric.name], bound):
            missed = found[metric.name] if metric.drop else 1 - found[metric.name]
            return f"holds ({round(missed * images)} of {images} {'go wrong' if metric.labels else 'differ'})"
    return "holds"
