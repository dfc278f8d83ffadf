"""The optimize stage: exact rewrites of the exported graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csa_deploy.graph.load import load_model, save_model
from csa_deploy.graph.optimize import OptimizeResult, optimize
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.units import giga
from csa_deploy.workspace import StageOutput

if TYPE_CHECKING:
    from csa_deploy.context import Context


def run(context: Context) -> StageOutput[OptimizeRecord]:
    """Rewrite the exported graph; see :func:`csa_deploy.graph.optimize.optimize`."""
    model = load_model(context.path(context.export.graph), full_check=False)
    result = optimize(model, progress=context.progress)
    path = context.scratch / f"{context.name}.optimized.onnx"
    save_model(result.model, path)
    relative = f"onnx/{path.name}"
    return StageOutput(record_of(result, relative), artifacts={relative: path})


def record_of(result: OptimizeResult, graph: str) -> OptimizeRecord:
    """What is stated of a result whose graph has this path inside the workspace."""
    return OptimizeRecord(
        summary=summary(result),
        graph=graph,
        before=result.before,
        after=result.after,
        steps=result.steps,
        declined=result.declined,
        proofs=result.proofs,
        tolerance=result.tolerance,
        error=result.error,
        not_proved=result.not_proved,
        reference=result.reference,
    )


def summary(result: OptimizeResult) -> str:
    """One line: what became smaller, and what it cost in accuracy."""
    if result.not_proved:
        return result.not_proved
    before, after = result.before, result.after
    error = "not measured" if result.error is None else f"{result.error:.1e} of the range"
    return f"{before.nodes} -> {after.nodes} nodes, {giga(before.macs)} -> {after.work}, largest change {error}"
