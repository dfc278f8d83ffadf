"""The one data object that every form of the report shows, collected from a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from csa_deploy import __version__
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.graphs import GraphStatistics
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.records.profile import Profiled, ProfileRecord
from csa_deploy.records.repair import RepairRecord
from csa_deploy.records.report import Lacking, Records, ReportData, Row, StageState, profiled_of
from csa_deploy.records.split import SplitRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.report.labels import rank
from csa_deploy.report.not_measured import not_measured
from csa_deploy.report.side_files import calibration, error_histograms, history, passports, sweep
from csa_deploy.report.tasks import task_views
from csa_deploy.report.verdict import verdict
from csa_deploy.report.worst import worst_samples
from csa_deploy.runners.chained_runner import CHAINED, SPLIT_FILE
from csa_deploy.workspace import Workspace

ORDER = ("export", "optimize", "repair", "check", "precision", "split", "build", "verify", "profile")
_ON_DEMAND = ("repair", "split")


def collect(workspace: Workspace) -> ReportData:
    """Everything the workspace knows about the deployment; numbers as stored, nothing computed anew."""
    records = Records(
        export=workspace.find(ExportRecord),
        optimize=workspace.find(OptimizeRecord),
        repair=workspace.find(RepairRecord),
        check=workspace.find(CheckRecord),
        precision=workspace.find(PrecisionRecord),
        split=workspace.find(SplitRecord),
        build=workspace.find(BuildRecord),
        verify=workspace.find(VerifyRecord),
        profile=workspace.find(ProfileRecord),
    )
    order = [name for name in ORDER if name not in _ON_DEMAND or name in records.done]
    measurements = {name: workspace.measured(name) for name in records.done}
    profiled = profiled_of(measurements)
    network = workspace.config.get("network", workspace.root.name)
    missing = not_measured(records, network, str(workspace.root))
    passed = {name: workspace.stages[name].passed for name in records.done}
    built = measurements.get("build", {}).get("engines", {})
    return ReportData(
        csa_deploy=__version__,
        network=network,
        workspace=str(workspace.root),
        config=workspace.config,
        batch=records.export.batch if records.export else 1,
        verdict=verdict(passed, order, records, profiled),
        stages=tuple(_stage(workspace, name, records) for name in order),
        rows=rows(records, profiled, missing, {name: stated.get("engine_bytes") for name, stated in built.items()}),
        records=records,
        measurements=measurements,
        not_measured=missing,
        worst=worst_samples(workspace, records.verify),
        task=task_views(workspace)[0] if records.verify else None,
        errors=error_histograms(workspace),
        calibration=calibration(workspace),
        passports=passports(workspace),
        sweep=sweep(workspace),
        history=history(workspace),
    )


def _stage(workspace: Workspace, name: str, records: Records) -> StageState:
    entry = workspace.stages.get(name)
    if entry is None:
        return StageState(name=name, state="not run")
    measured = workspace.measured(name)
    return StageState(
        name=name,
        state="done" if entry.passed else "failed",
        seconds=measured["seconds"],
        started_at=measured["started_at"],
        summary=measured.get("summary", records.done[name].summary),
        artifacts=entry.made,
    )


def rows(
    records: Records,
    profiled: Profiled | None,
    missing: Sequence[Lacking],
    engine_bytes: Mapping[str, int | None],
) -> tuple[Row, ...]:
    """One row per graph and engine: file, size, operations, accuracy, latency.

    Args:
        engine_bytes: by precision, of engines that differ from build to build, so that their size is a measurement.
    """
    found: dict[str, Row] = {}
    if records.export:
        found["exported"] = _graph_row("exported", "fp32", records.export.graph, records.export.statistics)
    if floating := records.repair or records.optimize:
        found["fp32"] = _graph_row("fp32", "fp32", floating.graph, floating.after)
    for precision, graph in records.precision.precisions.items() if records.precision else ():
        found.setdefault(precision, _graph_row(precision, precision, graph.graph, graph.statistics))
    found |= {CHAINED: Row(label=CHAINED, precision=s.precision, path=SPLIT_FILE)} if (s := records.split) else {}
    for precision, engine in records.build.engines.items() if records.build else ():
        label, size = f"engine {precision}", engine.engine_bytes or engine_bytes.get(precision)
        found[label] = Row(label=label, precision=precision, path=engine.path, bytes=size)
    for candidate in records.verify.candidates if records.verify else ():
        row = found.setdefault(  # a graph that the user named beside those of the workspace
            candidate.label, Row(label=candidate.label, precision=candidate.precision, path=candidate.path)
        )
        found[candidate.label] = replace(
            row,
            metrics=candidate.metrics,
            intervals=candidate.deciding_intervals(),
            verify=candidate.verdict,
            decided_by=candidate.decided_by,
        )
    for label, latency in profiled.latency.items() if profiled else ():
        if label in found:
            found[label] = replace(found[label], latency_ms=latency.percentiles_ms)
    for item in missing:
        if item.what in found and item.stage != "build":
            found[item.what] = replace(found[item.what], not_measured=item.reason)
    return tuple(sorted(found.values(), key=lambda row: rank(row.label)))


def _graph_row(label: str, precision: str, path: str, stated: GraphStatistics) -> Row:
    shown = Row(label=label, precision=precision, path=path)
    return replace(shown, bytes=stated.weight_bytes, nodes=stated.nodes, macs=stated.macs)
