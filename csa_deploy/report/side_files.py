"""What the report takes from files beside the records: errors of samples, calibration, sweeps and the history."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

from csa_deploy.records.build import BuildRecord
from csa_deploy.records.profile import Profiled, ProfileRecord
from csa_deploy.records.report import ErrorHistogram, PastProfile
from csa_deploy.records.sweep import Sweep
from csa_deploy.results import jsonable
from csa_deploy.verify.results import SAMPLES
from csa_deploy.workspace import Workspace, dump_json, write_atomic

CALIBRATION = "calibration/audit.json"
SWEEP = "profile_sweep.json"
HISTORY = "history.json"
_BINS = 60
MOST_TENSORS = 12
MOST_RUNS = 200


def error_histograms(workspace: Workspace) -> tuple[ErrorHistogram, ...]:
    """Per candidate a histogram of each sample's largest error, bins shared and logarithmic; zeros as ``exact``."""
    path = workspace.root / SAMPLES
    if "verify" not in workspace.stages or not path.is_file():
        return ()
    columns: dict[str, np.ndarray] = {}
    with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
            if key.endswith("/max_abs_error"):
                columns.setdefault(key.split("/")[0], stored[key])
    finite = [c[np.isfinite(c) & (c > 0)] for c in columns.values()]
    positive = np.concatenate(finite) if finite else np.empty(0)
    if not len(positive):
        return ()
    edges = np.logspace(np.log10(positive.min() * 0.9), np.log10(positive.max() * 1.1), _BINS + 1)
    shown = tuple(float(f"{edge:.6g}") for edge in edges)
    return tuple(
        ErrorHistogram(label, shown, tuple(np.histogram(column, edges)[0].tolist()), int((column == 0).sum()))
        for label, column in columns.items()
    )


def calibration(workspace: Workspace) -> dict[str, Any] | None:
    """What calibration saw: data, method, and the tensors whose threshold clips most."""
    path = workspace.root / CALIBRATION
    if "precision" not in workspace.stages or not path.is_file():
        return None
    audit = json.loads(path.read_text(encoding="utf-8"))
    method = audit["method"]
    tensors = [{"name": name, **found} for name, found in audit["tensors"].items() if found.get("histogram")]
    tensors.sort(key=lambda t: -t["clipped"].get(method, 0.0))
    shown = {key: audit[key] for key in ("data", "method", "images", "random", "classes_missing") if key in audit}
    return {**shown, "count": len(audit["tensors"]), "tensors": tensors[:MOST_TENSORS]}


def passports(workspace: Workspace) -> dict[str, Any]:
    """Of each engine; types as obtained are counted instead of listed layer by layer."""
    found = {}
    record = workspace.find(BuildRecord)
    for precision, engine in record.engines.items() if record else ():
        path = workspace.root / engine.passport
        if not path.is_file():
            continue
        passport = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(passport.get("precision", {}).get("obtained"), dict):
            passport["precision"]["obtained"] = Counter(passport["precision"]["obtained"].values())
        found[precision] = passport
    return found


def sweep(workspace: Workspace) -> Sweep | None:
    """Stored batch and size sweep."""
    path = workspace.root / SWEEP
    return Sweep.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def history(workspace: Workspace) -> tuple[PastProfile, ...]:
    """Earlier profiles of this workspace, oldest first."""
    path = workspace.root / HISTORY
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return tuple(PastProfile(**entry) for entry in stored)


def remember(workspace: Workspace, verdict: str) -> tuple[PastProfile, ...]:
    """Add the current profile to the history, once; returns the history."""
    entries = history(workspace)
    if ProfileRecord.stage not in workspace.stages:
        return entries
    stored = workspace.measured(ProfileRecord.stage)
    measured, at = Profiled.from_json(stored), stored["started_at"]
    medians = {label: found.median_ms for label, found in measured.latency.items()}
    entry = PastProfile(at, verdict, measured.host.cpu, medians)
    entries = (*(e for e in entries if e.at != at), entry)[-MOST_RUNS:]
    write_atomic(workspace.root / HISTORY, dump_json(jsonable(entries)))
    return entries
