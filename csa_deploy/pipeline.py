"""The driver that runs the stages which are not current.

A stage's key is a hash over the settings that decide what it writes, the outcome of the stages before it and the
versions of the tools it uses; equal key and intact files mean that it is kept. Where no more than what it compares with
changed, it compares again and keeps its files. Anything else means that it runs again.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from csa_deploy import __version__
from csa_deploy.errors import CsaDeployError
from csa_deploy.stages import CONTINUE_AFTER_FAILURE, STAGES, Stage, dependents, wants, with_needs
from csa_deploy.workspace import StageOutput, Workspace, key_of

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.data.base import Dataset
    from csa_deploy.source import Source
    from csa_deploy.spec import Sampling

logger = logging.getLogger(__name__)

Progress = Callable[..., None]
"""Called with (done, total), and with the part that is under way where a stage has several."""


class Observer(Protocol):
    """Whoever watches a run: the console, a JSON log, a test."""

    def started(self, stage: Stage) -> None:
        """A stage begins."""

    def progress(self, stage: Stage, done: int, total: int, part: str = "") -> None:
        """A stage advances, in a part of it where it has several."""

    def finished(self, stage: Stage, state: str, seconds: float, summary: str) -> None:
        """A stage ended as ``done``, ``kept`` or ``failed``; the summary is one line."""


class Silent:
    """An observer that shows nothing."""

    def started(self, stage: Stage) -> None:
        """Show nothing."""

    def progress(self, stage: Stage, done: int, total: int, part: str = "") -> None:
        """Show nothing."""

    def finished(self, stage: Stage, state: str, seconds: float, summary: str) -> None:
        """Show nothing."""


@dataclass
class Context:
    """What a stage may read: configuration, source, workspace, a scratch directory and a way to show progress."""

    config: Config
    source: Source
    workspace: Workspace
    scratch: Path = Path()
    progress: Progress = lambda done, total, part="": None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """File stem of the network's artifacts."""
        return self.source.name

    @property
    def checkpoint(self) -> Path | None:
        """Checkpoint file, if one was asked for."""
        return Path(self.config.checkpoint) if self.config.checkpoint else None

    @property
    def size(self) -> tuple[int, int] | None:
        """Input size asked for, (height, width)."""
        return self.config.size

    @property
    def batch(self) -> int:
        """Samples that one inference of the exported graph takes."""
        return self.sampling.batch or 1

    @property
    def sampling(self) -> Sampling:
        """How samples go through the exported graph."""
        from csa_deploy.spec import TensorSpec, sampling_of

        record = self.workspace.record("export")
        inputs, outputs = (
            [TensorSpec(v["name"], tuple(v["shape"]), v["dtype"]) for v in record[side]]
            for side in ("inputs", "outputs")
        )
        return sampling_of(inputs, outputs)

    def path(self, relative: str) -> Path:
        """A file of the workspace."""
        return self.workspace.root / relative

    def floating(self) -> dict[str, Any]:
        """The record of the FP32 graph that precisions and engines are made of: its ``graph``, and ``after`` its
        statistics. That is the optimized graph, or with ``fix`` the repaired one.
        """
        repaired = self.config.fix and self.workspace.stage("repair")
        return self.workspace.record("repair" if repaired else "optimize")

    def graphs(self) -> dict[str, str]:
        """Graphs that were made: label -> path inside the workspace. ``exported`` is the plain export."""
        found = {"exported": self.workspace.record("export")["graph"], "fp32": self.floating()["graph"]}
        if self.workspace.stage("precision"):
            found.update({p: g["graph"] for p, g in self.workspace.record("precision")["precisions"].items()})
        return found

    @cached_property
    def preprocessing(self) -> Any:
        """Preprocessing that travels in the exported graph's metadata, or None when the graph is no image network."""
        from csa_deploy.network import Preprocessing

        stored = self.workspace.record("export")["preprocessing"]
        return Preprocessing.from_json(stored) if stored else None

    @property
    def data_spec(self) -> str | None:
        """Data set asked for, or the one that belongs to the network."""
        return self.config.data or (self.source.entry.dataset if self.source.entry else None)

    def dataset(self, preprocessing: Any, limit: int | None = None) -> Dataset | None:
        """Open the data set with ``limit`` samples, or as many as are configured; None when there is no data set."""
        from csa_deploy.data.dataset import open_dataset

        if self.data_spec is None:
            return None
        return open_dataset(self.data_spec, preprocessing, limit=limit or self.config.samples, seed=self.config.seed)

    def data_fingerprint(self, limit: int | None = None) -> str | None:
        """Hash of the samples of :meth:`dataset`: files may change under the same name.

        None before the export, which says how they are read, and where they cannot be opened: whoever needs them says
        why.
        """
        if self.data_spec is None or not self.workspace.stage("export"):
            return None
        try:
            dataset = self.dataset(self.preprocessing, limit)
            return dataset.fingerprint() if dataset else None
        except (CsaDeployError, OSError):
            return None


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Installed versions of distributions; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def stage_key(stage: Stage, context: Context) -> str:
    """Hash of everything that decides what the stage writes."""
    config = context.config.model_dump(mode="json")
    inputs: dict[str, str] = {}
    for name in (*stage.needs, *stage.uses):
        entry = context.workspace.stage(name)
        if entry and wants(STAGES[name], context.config):
            inputs[name] = entry.get("outcome", "")
    module = importlib.import_module(stage.module)
    extra = module.key_parts(context) if hasattr(module, "key_parts") else {}
    return key_of(
        {
            "stage": stage.name,
            "csa_deploy": __version__,
            "settings": {key: config[key] for key in stage.settings},
            "inputs": inputs,
            "versions": versions(stage.packages),
            "extra": extra,
        }
    )


def comparison_key(stage: Stage, context: Context) -> str:
    """Hash of what decides the stage's measurements and checks alone; empty for a stage that has none of these."""
    comparison = getattr(importlib.import_module(stage.module), "comparison", None)
    return key_of(comparison(context)) if comparison else ""


def run_stages(names: Sequence[str], context: Context, observer: Observer | None = None) -> CsaDeployError | None:
    """Run the named stages and what they need; the workspace must be locked.

    Returns:
        The first failure of a stage after which the run continues, or None.

    Raises:
        CsaDeployError: a stage failed and the run cannot continue.
    """
    observer = observer or Silent()
    workspace = context.workspace
    before = dict(workspace.manifest["config"])
    stages = with_needs(names, context.config)
    for stage in stages:
        getattr(importlib.import_module(stage.module), "preflight", lambda context: None)(context)
    failure: CsaDeployError | None = None
    for stage in stages:
        failed = _run_stage(stage, context, observer)
        if failed is not None and stage.name not in CONTINUE_AFTER_FAILURE:
            raise failed
        failure = failure or failed
    if workspace.manifest["config"] != before:
        workspace.save()
    return failure


def _keep_settings(stage: Stage, context: Context) -> None:
    """Store the settings of a stage that ended: later verbs inherit them, but none with which a stage cannot work."""
    kept, resolved = context.workspace.manifest["config"], context.config.to_json()
    if kept.get("network") != resolved["network"]:
        kept.clear()
    kept.update({key: resolved[key] for key in ("network", *stage.settings, *stage.also)})


def _run_stage(stage: Stage, context: Context, observer: Observer) -> CsaDeployError | None:
    workspace = context.workspace
    observer.started(stage)
    key, compared = stage_key(stage, context), comparison_key(stage, context)
    module = importlib.import_module(stage.module)
    current = workspace.is_current(stage.name, key) and not getattr(module, "stale", lambda context: False)(context)
    if current and (workspace.stage(stage.name) or {})["compared"] == compared:
        _keep_settings(stage, context)
        observer.finished(stage, "kept", 0.0, workspace.record(stage.name)["summary"])
        return None
    start, started_at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    with workspace.scratch(stage.name) as scratch:
        context.scratch = scratch
        context.progress = lambda *given: observer.progress(stage, *given)
        try:
            output: StageOutput = (module.compare_again if current else module.run)(context)
        except BaseException:
            observer.finished(stage, "failed", time.perf_counter() - start, "")
            raise
        seconds = time.perf_counter() - start
        output.measured.update(seconds=round(seconds, 3), started_at=started_at)
        _keep_settings(stage, context)
        changed = False
        if current:
            workspace.amend(stage.name, output, compared)
        else:
            # Once it is there: the export says how the data are read that it is compared on.
            changed = workspace.commit(stage.name, key, output, lambda: comparison_key(stage, context))
        # The same artifacts come with new measurements, which the report shows.
        gone = dependents(stage.name) if changed else {"report"} - {stage.name}
        workspace.forget(gone | {name for name in stage.uses if not wants(STAGES[name], context.config)})
    observer.finished(stage, "failed" if output.failure else "done", seconds, output.record["summary"])
    return output.failure
