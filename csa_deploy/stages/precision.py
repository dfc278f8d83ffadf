"""The precision stage: one typed graph per precision, from the optimized graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.cluster.connection import require_cluster
from csa_deploy.graph.load import load_model, save_model
from csa_deploy.graph.names import named
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.precision.fp16 import to_fp16
from csa_deploy.precision.int8_graph import write_int8
from csa_deploy.precision.int8_stage import (
    Calibrated,
    calibrated,
    check_overlap,
    forget_unfinished,
    int8_key,
    needs_calibration,
    require_calibration,
)
from csa_deploy.precision.kept import kept_by
from csa_deploy.precision.phases import Phases
from csa_deploy.records.precision import HalfGraph, Int8Graph, PrecisionRecord, TypedGraph
from csa_deploy.results import NotMeasured
from csa_deploy.workspace import StageOutput

if TYPE_CHECKING:
    import onnx

    from csa_deploy.context import Context

NOT_MEASURED = "ranges of the activations in FP16"


def preflight(context: Context) -> None:
    """Refuse INT8 without calibration data, or with data that are not there."""
    if needs_calibration(context.config):
        require_calibration(context)
        require_cluster(context.config.cluster)


def key_parts(context: Context) -> dict[str, Any]:
    """What decides the graphs besides settings: calibration data, where there are any, and what parts are kept in."""
    config = context.config
    wanted = {name: said.partition("@")[0] for name, said in config.part.items()}
    parts = {"split": config.split, "part": wanted} if {*wanted.values()} - {"fp16"} else {}
    return {**(int8_key(context) if needs_calibration(config) else {}), **parts}


def comparison(context: Context) -> dict[str, Any]:
    """What calibration images are held against."""
    config = context.config
    if not needs_calibration(config):
        return {}
    return {
        "evaluation": context.data_spec,
        "content": context.data_fingerprint(),
        "samples": config.samples,
        "seed": config.seed,
    }


def compare_again(context: Context) -> StageOutput[PrecisionRecord]:
    """Hold the calibration images against other data; the graphs do not change by it."""
    record, leaks = context.workspace.read(PrecisionRecord), tuple(check_overlap(context))
    stated = record.calibration
    assert stated is not None  # see comparison
    notes = [note for note in record.notes if note not in stated.leaks]
    return StageOutput(replace(record, calibration=replace(stated, leaks=leaks), notes=(*notes, *leaks)))


def run(context: Context) -> StageOutput[PrecisionRecord]:
    """Write the graphs; FP32 is the optimized (or repaired) graph itself."""
    config = context.config
    optimized = context.floating()
    model = named(load_model(context.path(optimized.graph), full_check=False))
    phases = Phases(context.progress)
    calibration = calibrated(context, model, phases) if needs_calibration(config) else None
    made: dict[str, Int8Graph | HalfGraph | TypedGraph] = {}
    artifacts: dict[str, Path] = {}
    notes: list[str] = []
    not_measured: list[NotMeasured] = []
    for precision in config.precision:
        if precision == "fp32":
            made[precision] = TypedGraph(graph=optimized.graph, statistics=optimized.after)
        elif precision == "fp16":
            half = made[precision] = _write_fp16(context, model, calibration, artifacts)
            notes += [f"{node.name} ({node.op}) stays in FP32: {node.reason}" for node in half.kept]
            if calibration is None:
                not_measured.append(NotMeasured(NOT_MEASURED, "no calibration data"))
        else:
            assert calibration is not None
            int8 = made[precision] = write_int8(context, model, calibration, phases, artifacts)
            notes += int8.notes
            calibration = replace(calibration, method=int8.method or calibration.method)
    stated = None
    if calibration is not None:
        stated, said, missing = calibration.describe(context, artifacts)
        notes += said
        not_measured += missing
        forget_unfinished(context)
    record = PrecisionRecord(
        summary=_summary(made),
        precisions=made,
        calibration=stated,
        notes=tuple(notes),
        not_measured=tuple(not_measured),
    )
    return StageOutput(record, artifacts=artifacts)


def _write_fp16(
    context: Context, model: onnx.ModelProto, calibration: Calibrated | None, artifacts: dict[str, Path]
) -> HalfGraph:
    config = context.config
    largest = calibration.statistics.largest if calibration else None
    kept = kept_by(config, model).fp32
    result = to_fp16(model, io="fp16" if config.fp16_io else "fp32", keep_fp32=kept, largest=largest)
    path = context.scratch / f"{context.name}.fp16.onnx"
    save_model(result.model, path)
    artifacts[f"onnx/{path.name}"] = path
    return HalfGraph(graph=f"onnx/{path.name}", statistics=graph_statistics(result.model), **result.said())


def _summary(graphs: dict[str, Int8Graph | HalfGraph | TypedGraph]) -> str:
    parts = []
    for precision, graph in graphs.items():
        if isinstance(graph, HalfGraph):
            parts.append(f"fp16: {graph.nodes} nodes in FP16, {len(graph.kept)} in FP32, {graph.casts} casts")
        elif isinstance(graph, Int8Graph):
            left = f", {len(graph.kept_floating)} of these kinds in {graph.rest.upper()}"
            device = " for DLA" if graph.dla else ""
            parts.append(f"int8: {len(graph.int8)} layers in INT8{device}{left if graph.kept_floating else ''}")
        else:
            parts.append(
                f"{precision}: the {'repaired' if graph.graph.endswith('.repaired.onnx') else 'optimized'} graph"
            )
    return "; ".join(parts)
