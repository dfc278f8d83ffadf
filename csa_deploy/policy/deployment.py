"""What is judged: a bundle or a workspace, read in the same form. Nothing is measured anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from csa_deploy.bundle.archive import Archive
from csa_deploy.bundle.verdict import Verdict, verdict_of
from csa_deploy.bundle.verify import BundleReport, stored_samples, verify_bundle
from csa_deploy.errors import UsageError
from csa_deploy.records.profile import Profiled
from csa_deploy.verify.results import SAMPLES, Results, read_results, stored_results
from csa_deploy.workspace import MANIFEST, R, Workspace


@dataclass(frozen=True)
class Deployment:
    """A deployment's evidence.

    Attributes:
        precision: of the bundle; empty of a workspace, which holds several.
        own_gates: state and reasons of the run's own gates; None where a bundle of an older csa-deploy does not say.
        profile: what the profile stage measured; None where it did not run, or the bundle does not hold it.
        results: metrics of every sample; None where nothing was compared, or the bundle does not hold them.
        intact: of a bundle, what proving it gave.
    """

    path: Path
    kind: Literal["bundle", "workspace"]
    network: str
    precision: str
    own_gates: Verdict | None
    records: Mapping[str, Any]
    profile: Profiled | None
    results: Results | None
    config: Mapping[str, Any] = field(default_factory=dict)
    intact: BundleReport | None = None

    def find(self, kind: type[R]) -> R | None:
        """The record of a stage; None where it did not run."""
        return kind.from_json(self.records[kind.stage]) if kind.stage in self.records else None

    def has(self, precision: str) -> bool:
        """Whether it is about a precision."""
        return self.precision in ("", precision)


def of_workspace(root: Path) -> Deployment:
    """The evidence of a workspace.

    Raises:
        UsageError: it is none, or a part of it is damaged.
    """
    if not (root / MANIFEST).is_file():
        raise UsageError(f"{root}: no workspace of a run", fix="give the folder that `csa-deploy run` worked in")
    workspace = Workspace(root)
    stages, config = workspace.stages, workspace.config
    results = stored_results(root)
    return Deployment(
        root,
        "workspace",
        str(config.get("network", root.name)),
        "",
        verdict_of(workspace),
        {name: workspace.record(name) for name in stages},
        Profiled.from_json(workspace.measured("profile")) if "profile" in stages else None,
        read_results(results) if "verify" in stages and results.is_file() else None,
        config,
    )


def of_bundle(path: Path) -> Deployment:
    """The evidence of a bundle; of a damaged one no more than that.

    Raises:
        UsageError: no bundle, or one whose form is hostile.
    """
    report = verify_bundle(path)
    index = report.index
    about = (path, "bundle", index.network, index.precision)
    if report.verdict == "damaged":
        return Deployment(*about, None, {}, None, None, intact=report)  # type: ignore[arg-type]
    with Archive(path) as archive:
        names = [name for name in archive.names if name.startswith("records/") and name.endswith(".json")]
        records = {name[8:-5]: json.loads(archive.read(name)) for name in names}
        measured = "measurements/profile.json"
        profile = Profiled.from_json(json.loads(archive.read(measured))) if measured in archive.names else None
        results = stored_samples(archive) if SAMPLES in archive.names else None
    return Deployment(*about, index.verdict, records, profile, results, index.config, report)  # type: ignore[arg-type]
