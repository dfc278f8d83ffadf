"""The INT8 graph in the precision stage, with TensorRT's calibration cache: chosen, written, or taken over."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy import __version__
from csa_deploy.graph.load import save_model
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.precision.bounds import complete
from csa_deploy.precision.dla_placement import of_dla
from csa_deploy.precision.exact_limits import said_of_limits, with_exact_limits
from csa_deploy.precision.int8 import Int8Result, rest_of, to_int8
from csa_deploy.precision.selection import Selection, budget_of, choose_layers
from csa_deploy.precision.techniques import Plan
from csa_deploy.precision.thresholds import INT8_LEVELS
from csa_deploy.precision.trt_cache import cache_text
from csa_deploy.records.precision import Int8Graph, NotSearched, PrecisionRecord
from csa_deploy.workspace import key_of, sha256_of

if TYPE_CHECKING:
    import onnx

    from csa_deploy.context import Context
    from csa_deploy.precision.int8_stage import Calibrated
    from csa_deploy.precision.phases import Phases

SWITCHED_OFF = "switched off with --no-search"
EVERY_TENSOR = "DLA wants a scale at every tensor of a part (--target-dla)"

_LOG = logging.getLogger(__name__)


def write_int8(
    context: Context, model: onnx.ModelProto, calibration: Calibrated, phases: Phases, artifacts: dict[str, Path]
) -> Int8Graph:
    """Write the INT8 graph and TensorRT's calibration cache, or take over those of the same key."""
    key = _key(context, calibration)
    return _taken_over(context, key, artifacts) or _made(context, model, calibration, phases, artifacts, key)


def _key(context: Context, calibration: Calibrated) -> str:
    """Hash of what decides the INT8 graph; other precisions and the evaluation data are not among it."""
    config = context.config
    return key_of(
        {
            "csa_deploy": __version__,
            "statistics": asdict(calibration.statistics.key),
            "method": calibration.method,
            "search": config.search and budget_of(context),
            "techniques": config.techniques,
            "kept": asdict(calibration.kept),
            "seed": config.seed,
            **({"target_dla": config.fp16_io} if config.target_dla else {}),
        }
    )


def _taken_over(context: Context, key: str, artifacts: dict[str, Path]) -> Int8Graph | None:
    """What an earlier run of this workspace recorded under the key, its files copied; None where there is none."""
    stage = context.workspace.stages.get("precision")
    record = context.workspace.find(PrecisionRecord)
    entry = record.int8 if record else None
    if stage is None or entry is None or entry.key != key:
        return None
    graphs = [entry.graph, *filter(None, [entry.equalized])]
    files = [*graphs, entry.cache, *(f"{graph}.data" for graph in graphs if f"{graph}.data" in stage.artifacts)]
    for relative in files:
        stated, path = stage.artifacts.get(relative), context.path(relative)
        if stated is None or not path.is_file() or sha256_of(path) != stated.sha256:
            return None
    for relative in files:
        copy = context.scratch / Path(relative).name
        shutil.copyfile(context.path(relative), copy)
        artifacts[relative] = copy
    _LOG.info("the INT8 graph of the same graph, data and settings is kept")
    return entry


def _made(
    context: Context,
    model: onnx.ModelProto,
    calibration: Calibrated,
    phases: Phases,
    artifacts: dict[str, Path],
    key: str,
) -> Int8Graph:
    """Choose layers and write the files; the precision's part of the record."""
    statistics, dla = calibration.statistics, calibration.dla
    selected = choose_layers(context, model, calibration, rest_of(model), phases)
    plan, result, notes = _written(selected, calibration)
    path = context.scratch / f"{context.name}.int8.onnx"
    save_model(result.model, path)
    thresholds = statistics.thresholds(plan.method) if plan.method else calibration.thresholds
    sizes = complete(model, {**statistics.largest, **thresholds})
    cache = context.scratch / f"{context.name}.calibration.cache"
    cache.write_text(cache_text({name: size / INT8_LEVELS for name, size in sizes.items()}))
    artifacts.update({f"onnx/{path.name}": path, f"calibration/{cache.name}": cache})
    base = None
    if plan.model is not model:  # fine-tuning starts from the weights that the scales belong to
        base = context.scratch / f"{context.name}.equalized.onnx"
        save_model(plan.model, base)
        artifacts[f"onnx/{base.name}"] = base
    return Int8Graph(
        key=key,
        graph=f"onnx/{path.name}",
        equalized=f"onnx/{base.name}" if base else None,
        cache=f"calibration/{cache.name}",
        statistics=graph_statistics(result.model),
        notes=(
            *(*selected.notes(), *_kept_out(result), *notes),
            *((*of_dla(dla, calibration.method), *_off_by_type(result)) if dla else ()),
        ),
        search=selected.search or NotSearched(EVERY_TENSOR if dla else SWITCHED_OFF),
        techniques=selected.techniques,
        estimated_latency_ms=selected.latency_ms,
        cost_unknown=tuple(selected.cost_unknown),
        int8=result.layers,
        kept_floating=result.kept,
        kept=result.kept_fp32,
        rest=result.rest,
        scales=result.scales,
        dla=dla,
        method=plan.method,
    )


def _written(selected: Selection, calibration: Calibrated) -> tuple[Plan, Int8Result, list[str]]:
    """The INT8 graph of what was selected, the plan that it is of, and what is to be said of limits."""

    def written(plan: Plan) -> Int8Result:
        return to_int8(
            plan.model,
            plan.placement,
            plan.thresholds,
            kept=selected.kept,
            keep_fp32=calibration.kept.fp32,
            largest=plan.largest,
            adjustments=plan.adjustments,
            io=calibration.dla.io if calibration.dla else "fp32",
        )

    plan = selected.plan
    result = written(plan)
    model, exact = with_exact_limits(plan.model, plan.limits, result.layers)
    if exact:
        plan = replace(plan, model=model)
        result = written(plan)
    return plan, result, said_of_limits(plan.limits, exact)


def _off_by_type(result: Int8Result) -> list[str]:
    """Nodes that DLA would run if FP16 could hold them."""
    if not (kept := result.kept_fp32):
        return []
    return [f"{len(kept)} of the nodes stay in FP32, and so on the GPU; the first is {kept[0].name}: {kept[0].reason}"]


def _kept_out(result: Int8Result) -> list[str]:
    fp32 = {node.name for node in result.kept_fp32}
    return [
        f"{name} stays in {'FP32' if name in fp32 else result.rest.upper()}: {why}" for name, why in result.kept.items()
    ]
