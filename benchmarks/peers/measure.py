"""What an INT8 graph gives on images that nobody calibrated on, held against the FP32 graph that it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import csa_deploy
from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.graph.load import load_model
from csa_deploy.metrics.table import worst_values
from csa_deploy.precision.judging import compare
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def accuracy(graph: Path, int8: Path, held_out: Path) -> dict[str, object]:
    """Signal-to-noise ratio of the worst output, agreement of the first class, layers in INT8, scopes kept."""
    with np.load(held_out) as arrays:
        images = arrays["images"]
    model = load_model(int8, full_check=False)
    try:
        exact, got = (_outputs(OnnxRuntimeRunner(g, optimize=o, spin=False), images) for g, o in _sides(graph, model))
    except Exception as error:  # a graph that does not run is a result
        return {"not_measured": f"its graph does not run in ONNX Runtime: {str(error)[:200]}"}
    # Outputs keep their order; some tools rename them.
    renamed = [dict(zip(want, have.values(), strict=True)) for want, have in zip(exact, got, strict=True)]
    worst = worst_values(compare(exact, renamed).values())
    before, after = (_scopes(path) for path in (graph, int8))
    return {
        "held_out": len(images),
        "snr_db": round(worst["snr_db"], 2),
        "agreement": round(worst["top1_agreement"], 4) if "top1_agreement" in worst else None,
        "int8_layers": _int8_layers(model),
        "layers": sum(node.op_type in _WEIGHTED for node in load_model(graph, full_check=False).graph.node),
        "scopes": sorted(before),
        "scopes_kept": sorted(before & after),
    }


def _sides(graph: Path, int8: onnx.ModelProto) -> tuple[tuple[Path | bytes, bool], tuple[Path | bytes, bool]]:
    return (graph, True), (keep_rounding(int8).SerializeToString(), False)


def _outputs(runner: OnnxRuntimeRunner, images: np.ndarray) -> list[dict[str, np.ndarray]]:
    name = runner.input_specs[0].name
    with runner:
        return [dict(runner.run({name: image[None]})) for image in images]


def _int8_layers(model: onnx.ModelProto) -> int:
    """Layers whose data and weights both come out of a DequantizeLinear."""
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return sum(node.op_type in _WEIGHTED and {*node.input[:2]} <= made for node in model.graph.node)


def _scopes(path: Path) -> set[str]:
    return {scope.scope for scope in csa_deploy.check(str(path)).scopes if scope.verdict != "denied"}
