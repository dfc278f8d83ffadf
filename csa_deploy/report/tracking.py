"""A deployment in an experiment tracker: its numbers and files, by a small function per tracker.

``csa-deploy report NETWORK --track mlflow`` calls :func:`track`. Where it goes is the tracker's own matter
(``MLFLOW_TRACKING_URI``, ``WANDB_MODE``, ``WANDB_PROJECT``). A tracker of your own is a function that takes
:class:`Tracked`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csa_deploy.errors import CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.records.report import ReportData

_PAGES = ("report.html", "report.json")


@dataclass(frozen=True)
class Tracked:
    """What a tracker gets of one deployment.

    Attributes:
        settings: the configuration, as text.
        metrics: finite numbers by name: ``fp16/top1``, ``fp16/latency_p50_ms``.
        tags: verdict and version.
        files: the report, and the graphs and engines of its table, as far as they are there.
    """

    name: str
    settings: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    files: tuple[Path, ...]


Tracker = Callable[[Tracked], None]


def tracked(root: Path) -> Tracked:
    """Read a workspace that has a report."""
    data = ReportData.from_json(json.loads((root / "report.json").read_text(encoding="utf-8")))
    metrics: dict[str, float] = {}
    for row in data.rows:
        latency = {f"latency_p{percentile}_ms": value for percentile, value in (row.latency_ms or {}).items()}
        for name, value in {**row.metrics, **latency}.items():
            if value is not None and math.isfinite(value):
                metrics[re.sub(r"[^\w/.-]", "_", f"{row.label}/{name}")] = float(value)
    paths = (root / path for path in dict.fromkeys([*_PAGES, *(row.path for row in data.rows)]) if path)
    return Tracked(
        data.network,
        {key: json.dumps(value) for key, value in sorted(data.config.items())},
        metrics,
        {"csa_deploy.verdict": data.verdict.state, "csa_deploy.version": data.csa_deploy},
        tuple(path for path in paths if path.is_file()),
    )


def track(root: Path, tracker: str | Tracker) -> Tracked:
    """Hand a deployment to a tracker.

    Args:
        root: a workspace with a report.
        tracker: a name of :data:`TRACKERS`, or a function.

    Raises:
        UsageError: no tracker of that name.
        EnvironmentLacksError: the tracker's package is not installed, or did not take it.
    """
    if isinstance(tracker, str) and tracker not in TRACKERS:
        raise UsageError(f"no tracker {tracker!r}", fix=f"use one of {', '.join(TRACKERS)}")
    found = tracked(root)
    if not isinstance(tracker, str):
        tracker(found)
        return found
    try:
        TRACKERS[tracker](found)
    except CsaDeployError:
        raise
    except Exception as error:  # each package has its own, for a server that is not there or a key that is wrong
        said = " ".join(str(error).split()) or type(error).__name__
        raise EnvironmentLacksError(
            f"{tracker} did not take it: {said:.300}", fix=f"see {tracker}'s own settings, such as its server and key"
        ) from error
    return found


def _mlflow(found: Tracked) -> None:
    mlflow = _imported("mlflow", "mlflow-skinny")
    with mlflow.start_run(run_name=found.name, tags=found.tags):
        mlflow.log_params(found.settings)
        mlflow.log_metrics(found.metrics)
        for path in found.files:
            mlflow.log_artifact(str(path))


def _wandb(found: Tracked) -> None:
    wandb = _imported("wandb", "wandb")
    tags = [f"{key.partition('.')[2]}: {value}" for key, value in found.tags.items()]
    with wandb.init(name=found.name, config=found.settings, tags=tags, job_type="csa-deploy") as run:
        run.summary.update(found.metrics)
        artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", found.name), type="deployment", metadata=found.tags)
        for path in found.files:
            artifact.add_file(str(path), name=path.name)
        run.log_artifact(artifact)


def _imported(module: str, distribution: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise EnvironmentLacksError(f"{module} is not installed", fix=f"pip install {distribution}") from error


TRACKERS: dict[str, Tracker] = {"mlflow": _mlflow, "wandb": _wandb}
