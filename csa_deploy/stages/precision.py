"""The precision stage: one typed graph per precision, from the optimized graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csa_deploy.graph.load import load_model, save_model
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
from csa_deploy.precision.phases import Phases
from csa_deploy.workspace import StageOutput

if TYPE_CHECKING:
    import onnx

    from csa_deploy.context import Context

NOT_MEASURED = "ranges of the activations in FP16"


def preflight(context: Context) -> None:
    """Refuse INT8 without calibration data, or with data that are not there."""
    if needs_calibration(context.config):
        require_calibration(context)


def key_parts(context: Context) -> dict[str, Any]:
    """What decides the graphs besides settings: calibration data, where there are any."""
    return int8_key(context) if needs_calibration(context.config) else {}


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


def compare_again(context: Context) -> StageOutput:
    """Hold the calibration images against other data; the graphs do not change by it."""
    record = context.workspace.record("precision")
    leaks = check_overlap(context)
    stated = record["calibration"]
    notes = [note for note in record["notes"] if note not in stated["leaks"]]
    return StageOutput({**record, "calibration": {**stated, "leaks": leaks}, "notes": [*notes, *leaks]})


def run(context: Context) -> StageOutput:
    """Write the graphs; FP32 is the optimized (or repaired) graph itself."""
    config = context.config
    optimized = context.floating()
    model = load_model(context.path(optimized.graph), full_check=False)
    phases = Phases(context.progress)
    calibration = calibrated(context, model, phases) if needs_calibration(config) else None
    output = StageOutput({"summary": "", "precisions": {}, "notes": [], "not_measured": []})
    for precision in config.precision:
        if precision == "fp32":
            output.record["precisions"][precision] = {"graph": optimized.graph, "statistics": optimized.after.to_json()}
        elif precision == "fp16":
            _write_fp16(context, model, calibration, output)
        else:
            assert calibration is not None
            write_int8(context, model, calibration, phases, output)
    if calibration is not None:
        calibration.describe(context, output)
        forget_unfinished(context)
    output.record["summary"] = _summary(output.record["precisions"])
    return output


def _write_fp16(context: Context, model: onnx.ModelProto, calibration: Calibrated | None, output: StageOutput) -> None:
    config = context.config
    largest = calibration.statistics.largest if calibration else None
    result = to_fp16(model, io="fp16" if config.fp16_io else "fp32", keep_fp32=config.keep_fp32, largest=largest)
    path = context.scratch / f"{context.name}.fp16.onnx"
    save_model(result.model, path)
    output.artifacts[f"onnx/{path.name}"] = path
    output.record["precisions"]["fp16"] = {
        "graph": f"onnx/{path.name}",
        "statistics": graph_statistics(result.model).to_json(),
        **result.to_json(),
    }
    output.record["notes"] += [f"{node.name} ({node.op}) stays in FP32: {node.reason}" for node in result.kept]
    if calibration is None:
        output.record["not_measured"].append({"what": NOT_MEASURED, "reason": "no calibration data; give --calib"})


def _summary(graphs: dict[str, Any]) -> str:
    parts = []
    for precision, graph in graphs.items():
        if precision == "fp32":
            parts.append(f"fp32: the {'repaired' if graph['graph'].endswith('.repaired.onnx') else 'optimized'} graph")
        elif precision == "fp16":
            parts.append(f"fp16: {graph['nodes']} nodes in FP16, {len(graph['kept'])} in FP32, {graph['casts']} casts")
        else:
            left = f", {len(graph['kept_floating'])} of these kinds in {graph['rest'].upper()}"
            parts.append(f"int8: {len(graph['int8'])} layers in INT8{left if graph['kept_floating'] else ''}")
    return "; ".join(parts)
