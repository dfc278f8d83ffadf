"""The report of results that no workspace holds: their records, put where the report looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from csa_deploy.api.measured import Comparison, Timing
from csa_deploy.api.results import Built, CheckReport, Exported, GraphResult, Half, Optimized, Quantized, Repaired
from csa_deploy.api.staging import GIVEN
from csa_deploy.errors import UsageError
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.check import CheckRecord, Inspected
from csa_deploy.records.precision import HalfGraph, PrecisionRecord, TypedGraph
from csa_deploy.records.repair import RepairRecord, ScopeChange
from csa_deploy.records.report import ReportData
from csa_deploy.results import Result, StageRecord
from csa_deploy.verify.results import SAMPLES
from csa_deploy.workspace import StageOutput, Workspace

STAGE_OF: dict[type[Result], str] = {
    Exported: "export",
    CheckReport: "check",
    Optimized: "optimize",
    Repaired: "repair",
    Half: "precision",
    Quantized: "precision",
    Built: "build",
    Comparison: "verify",
    Timing: "profile",
}


def page_of_results(results: Sequence[Result], workspace: Workspace) -> tuple[ReportData, str]:
    """The data object and the page of results.

    Args:
        results: at most one of a kind; engines and typed graphs at most one per precision.
        workspace: an empty one.

    Raises:
        UsageError: two of a kind, none, or one that has no place in a report.
    """
    from csa_deploy.report.data import collect
    from csa_deploy.report.page import page_of

    outputs: dict[str, StageOutput] = {}
    for result in results:
        if type(result) not in STAGE_OF:
            known = ", ".join(kind.__name__ for kind in STAGE_OF)
            raise UsageError(f"a {type(result).__name__} has no place in a report", fix=f"give {known}")
        _add(result, outputs, workspace)
    if not outputs:
        raise UsageError("a report of nothing", fix="give at least one result")
    for repaired in results:  # without a check of its own, the page shows that of the repaired graph
        if isinstance(repaired, Repaired) and "check" not in outputs:
            outputs["check"] = StageOutput(replace(_checked(repaired.report), of="repaired"))
    names = [result.name for result in results if isinstance(result, GraphResult)]
    workspace.config = {"network": names[0] if names else "graphs"}
    for stage, output in outputs.items():
        output.measured.update({"seconds": 0.0, "started_at": "", **output.measured})
        workspace.commit(stage, GIVEN, output)
    data = replace(collect(workspace), workspace="results in memory")
    return data, page_of(data, {})


def _add(result: Result, outputs: dict[str, StageOutput], workspace: Workspace) -> None:
    stage = STAGE_OF[type(result)]
    if isinstance(result, (Half, Quantized)):
        known = outputs.setdefault(stage, StageOutput(PrecisionRecord(summary="", precisions={})))
        precision, entry = _typed(result)
        _once(precision, known.record.precisions, "typed graphs")
        record = PrecisionRecord(
            summary="; ".join(filter(None, [known.record.summary, result.summary])),
            precisions={**known.record.precisions, precision: entry},
            notes=(*known.record.notes, *(result.notes if isinstance(result, Quantized) else ())),
        )
        outputs[stage] = StageOutput(record)
    elif isinstance(result, Built):
        known = outputs.setdefault(stage, StageOutput(BuildRecord(summary="", engines={})))
        _once(result.precision, known.record.engines, "engines")
        summary = "; ".join(filter(None, [known.record.summary, result.summary]))
        engines = {**known.record.engines, result.precision: result.report}
        outputs[stage] = StageOutput(BuildRecord(summary=summary, engines=engines))
    else:
        _once(stage, outputs, "results")
        outputs[stage] = StageOutput(_record(result))
        _measured(result, outputs[stage], workspace)


def _checked(report: CheckReport) -> CheckRecord:
    """No scope decides here."""
    said = {item.name: getattr(report, item.name) for item in fields(Inspected)}
    return CheckRecord(summary=report.summary, judged=report.model, **said)


def _record(result: Result) -> StageRecord:
    """What a stage would state of it."""
    if isinstance(result, CheckReport):
        return _checked(result)
    if isinstance(result, Repaired):
        return RepairRecord(
            summary=result.summary,
            graph=f"{result.name}.repaired.onnx",
            after=graph_statistics(result.graph),
            scopes=result.scopes,
            steps=result.steps,
            left=result.left,
            declined=result.declined,
            verdicts=ScopeChange.between(result.before.scopes, result.report.scopes),
        )
    if not isinstance(result, (Exported, Optimized, Comparison, Timing)) or result.report is None:
        # such as a graph that was given as one, as its own export
        raise UsageError(f"a {type(result).__name__} without a record: nothing is stated of it", fix="leave it out")
    return result.report


def _measured(result: Result, output: StageOutput, workspace: Workspace) -> None:
    """What is no part of a record: the metrics of the samples, and latencies."""
    if isinstance(result, Comparison) and result.stored is not None:
        output.artifacts[SAMPLES] = workspace.root / "samples"
        output.artifacts[SAMPLES].write_bytes(result.stored)
    if isinstance(result, Timing):
        output.measured.update(result.measured)


def _typed(result: Half | Quantized) -> tuple[str, TypedGraph]:
    if isinstance(result, Quantized):
        return "int8", result.report.precisions["int8"]
    return "fp16", HalfGraph.from_json(
        {**result.report, "graph": "onnx/fp16.onnx", "statistics": graph_statistics(result.graph)}
    )


def _once(name: str, known: dict[str, Any], what: str) -> None:
    if name in known:
        raise UsageError(f"two {what} of the kind {name} in one report", fix="write a report of each")
