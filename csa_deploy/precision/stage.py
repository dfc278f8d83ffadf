"""The precision stage: one typed graph per precision, from the optimized graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csa_deploy.graph.load import load_model, save_model
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.precision.fp16 import to_fp16
from csa_deploy.workspace import StageOutput

if TYPE_CHECKING:
    from csa_deploy.pipeline import Context


def run(context: Context) -> StageOutput:
    """Write the graphs; FP32 is the optimized graph itself."""
    config = context.config
    optimized = context.workspace.record("optimize")
    graphs: dict[str, Any] = {}
    artifacts = {}
    notes: list[str] = []
    for done, precision in enumerate(config.precision):
        context.progress(done, len(config.precision))
        if precision == "fp32":
            graphs[precision] = {"graph": optimized["graph"], "statistics": optimized["after"]}
            continue
        model = load_model(context.path(optimized["graph"]), full_check=False)
        result = to_fp16(model, io="fp16" if config.fp16_io else "fp32", keep_fp32=config.keep_fp32)
        path = context.scratch / f"{context.name}.fp16.onnx"
        save_model(result.model, path)
        artifacts[f"onnx/{path.name}"] = path
        graphs[precision] = {
            "graph": f"onnx/{path.name}",
            "statistics": graph_statistics(result.model).to_json(),
            **result.to_json(),
        }
        notes += [f"{node.name} ({node.op}) stays in FP32: {node.reason}" for node in result.kept]
    record = {"summary": _summary(graphs), "precisions": graphs, "notes": notes}
    return StageOutput(record, artifacts=artifacts)


def _summary(graphs: dict[str, Any]) -> str:
    parts = []
    for precision, graph in graphs.items():
        if precision == "fp32":
            parts.append("fp32: the optimized graph")
        else:
            parts.append(
                f"{precision}: {graph['nodes']} nodes in FP16, {len(graph['kept'])} in FP32, {graph['casts']} casts"
            )
    return "; ".join(parts)
