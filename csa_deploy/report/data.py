"""The one data object that every form of the report shows, collected from a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from csa_deploy import __version__
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.graphs import GraphStatistics
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.records.profile import ProfileRecord
from csa_deploy.records.repair import RepairRecord
from csa_deploy.records.split import SplitRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.report.labels import rank
from csa_deploy.report.not_measured import not_measured
from csa_deploy.report.side_files import calibration, error_histograms, history, passports, sweep
from csa_deploy.report.tasks import task_views
from csa_deploy.report.verdict import verdict
from csa_deploy.report.worst import worst_samples
from csa_deploy.runners.chained_runner import CHAINED, SPLIT_FILE
from csa_deploy.workspace import R, Workspace

SCHEMA_VERSION = 1
ORDER = ("export", "optimize", "repair", "check", "precision", "split", "build", "verify", "profile")
_ON_DEMAND = ("repair", "split")


def collect(workspace: Workspace) -> dict[str, Any]:
    """Everything the workspace knows about the deployment; numbers as stored, nothing computed anew.

    Returns:
        ``schema_version``, ``network``, ``verdict`` (see :mod:`csa_deploy.report.verdict`), ``stages`` (state,
        seconds and artifacts of each), ``rows`` (one per graph or engine), ``records`` and ``measurements`` by stage,
        ``not_measured``; ``worst`` of :mod:`csa_deploy.report.worst`; ``task`` of
        :mod:`csa_deploy.report.tasks`; ``errors``, ``calibration``, ``passports``,
        ``sweep`` and ``history`` of :mod:`csa_deploy.report.side_files`.
    """
    order = [name for name in ORDER if name not in _ON_DEMAND or workspace.stage(name)]
    done = [name for name in order if workspace.stage(name)]
    records = {name: workspace.record(name) for name in done}
    measurements = {name: workspace.measured(name) for name in done}
    missing = not_measured(records)
    passed = {name: bool(workspace.manifest["stages"][name]["passed"]) for name in done}
    return {
        "schema_version": SCHEMA_VERSION,
        "csa_deploy": __version__,
        "network": workspace.manifest["config"].get("network", workspace.root.name),
        "workspace": str(workspace.root),
        "config": workspace.manifest["config"],
        "batch": records.get("export", {}).get("batch", 1),
        "verdict": verdict(passed, order, records, measurements),
        "stages": [_stage(workspace, name, records, measurements) for name in order],
        "rows": rows(records_of(records), measurements, missing),
        "records": records,
        "measurements": measurements,
        "not_measured": missing,
        "worst": worst_samples(workspace, records.get("verify")),
        "task": task_views(workspace)[0] if "verify" in done else None,
        "errors": error_histograms(workspace),
        "calibration": calibration(workspace),
        "passports": passports(workspace),
        "sweep": sweep(workspace),
        "history": history(workspace),
    }


@dataclass(frozen=True)
class Records:
    """What the stages state, as types; None for one that did not run."""

    export: ExportRecord | None
    optimize: OptimizeRecord | None
    repair: RepairRecord | None
    check: CheckRecord | None
    precision: PrecisionRecord | None
    split: SplitRecord | None
    build: BuildRecord | None
    verify: VerifyRecord | None
    profile: ProfileRecord | None


def records_of(records: Mapping[str, Any]) -> Records:
    """The same of plain data by stage."""

    def read(kind: type[R]) -> R | None:
        return kind.from_json(records[kind.stage]) if kind.stage in records else None

    return Records(
        *(read(ExportRecord), read(OptimizeRecord), read(RepairRecord), read(CheckRecord), read(PrecisionRecord)),
        *(read(SplitRecord), read(BuildRecord), read(VerifyRecord), read(ProfileRecord)),
    )


def outcome(workspace: Workspace, names: Sequence[str]) -> dict[str, Any]:
    """What a verb that ran the named stages has to say to a machine: :func:`collect` without what is for the page, and
    of the records and measurements those of the named stages.
    """
    data = collect(workspace)
    kept = ("csa_deploy", "network", "workspace", "config", "verdict", "stages", "rows", "not_measured")
    found = {key: data[key] for key in ("schema_version", *kept)}
    for part in ("records", "measurements"):
        found[part] = {name: value for name, value in data[part].items() if name in names}
    return found


def _stage(workspace: Workspace, name: str, records: dict[str, Any], measurements: dict[str, Any]) -> dict[str, Any]:
    entry = workspace.stage(name)
    if entry is None:
        return {"name": name, "state": "not run", "seconds": None, "summary": "", "artifacts": {}}
    return {
        "name": name,
        "state": "done" if entry["passed"] else "failed",
        "seconds": measurements[name]["seconds"],
        "started_at": measurements[name]["started_at"],
        "summary": measurements[name].get("summary", records[name]["summary"]),
        "artifacts": {path: stated for path, stated in entry["artifacts"].items() if not path.startswith("records/")},
    }


def rows(records: Records, measurements: dict[str, Any], missing: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """One row per graph and engine: file, size, operations, accuracy, latency; None where there is no number."""
    found: dict[str, dict[str, Any]] = {}
    if records.export:
        found["exported"] = _graph_row("exported", "fp32", records.export.graph, records.export.statistics)
    if floating := records.repair or records.optimize:
        found["fp32"] = _graph_row("fp32", "fp32", floating.graph, floating.after)
    for precision, graph in records.precision.precisions.items() if records.precision else ():
        found.setdefault(precision, _graph_row(precision, precision, graph.graph, graph.statistics))
    found |= {CHAINED: _empty(CHAINED, split.precision, SPLIT_FILE)} if (split := records.split) else {}
    for precision, engine in records.build.engines.items() if records.build else ():
        label = f"engine {precision}"
        # TensorRT's engines differ from build to build, so their size is a measurement.
        measured = measurements["build"].get("engines", {}).get(precision, {}).get("engine_bytes")
        found[label] = {**_empty(label, precision, engine.path), "bytes": engine.engine_bytes or measured}
    for candidate in records.verify.candidates if records.verify else ():
        row = found.setdefault(  # a graph that the user named beside those of the workspace
            candidate.label, _empty(candidate.label, candidate.precision, candidate.path)
        )
        row.update(
            metrics=candidate.metrics,
            intervals=candidate.deciding_intervals(),
            verify=candidate.verdict,
            decided_by=candidate.decided_by,
        )
    for label, latency in measurements.get("profile", {}).get("latency", {}).items():
        if label in found:
            found[label]["latency_ms"] = latency["percentiles_ms"]
    for item in missing:
        if item["what"] in found and item["stage"] != "build":
            found[item["what"]]["not_measured"] = item["reason"]
    return sorted(found.values(), key=lambda row: rank(row["label"]))


def _empty(label: str, precision: str, path: str) -> dict[str, Any]:
    keys = ("bytes", "nodes", "macs", "latency_ms", "verify", "not_measured")
    return {
        "label": label,
        "precision": precision,
        "path": path,
        "metrics": {},
        "intervals": {},
        "decided_by": "",
        **dict.fromkeys(keys),
    }


def _graph_row(label: str, precision: str, path: str, statistics: GraphStatistics) -> dict[str, Any]:
    shown = {"bytes": statistics.weight_bytes, "nodes": statistics.nodes, "macs": statistics.macs}
    return {**_empty(label, precision, path), **shown}
