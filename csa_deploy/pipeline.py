"""The driver that runs the stages which are not current.

A stage's key is a hash over the settings that decide what it writes, the outcome of the stages before it and the
versions of the tools it uses; equal key and intact files mean that it is kept. Where no more than what it compares with
changed, it compares again and keeps its files. Anything else means that it runs again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from csa_deploy import __version__
from csa_deploy.errors import CsaDeployError
from csa_deploy.installing import versions
from csa_deploy.stages import CONTINUE_AFTER_FAILURE, Activity, Stage, dependents, wants, with_needs
from csa_deploy.workspace import key_of

if TYPE_CHECKING:
    from csa_deploy.context import Context


class Observer(Protocol):
    """Whoever watches a run: the console, a JSON log, a test."""

    def started(self, stage: Activity) -> None:
        """A stage begins."""

    def progress(self, stage: Activity, done: int, total: int, part: str = "") -> None:
        """A stage advances, in a part of it where it has several."""

    def finished(self, stage: Activity, state: str, seconds: float, summary: str) -> None:
        """A stage ended as ``done``, ``kept`` or ``failed``; the summary is one line."""


class Silent:
    """An observer that shows nothing."""

    def started(self, stage: Activity) -> None:
        """Show nothing."""

    def progress(self, stage: Activity, done: int, total: int, part: str = "") -> None:
        """Show nothing."""

    def finished(self, stage: Activity, state: str, seconds: float, summary: str) -> None:
        """Show nothing."""


def stage_key(stage: Stage, context: Context) -> str:
    """Hash of everything that decides what the stage writes."""
    config = context.config.model_dump(mode="json")
    inputs: dict[str, str] = {}
    for read in stage.inputs:
        entry = context.workspace.stages.get(read.name)
        if entry and wants(read, context.config):
            inputs[read.name] = entry.outcome
    return key_of(
        {
            "stage": stage.name,
            "csa_deploy": __version__,
            "settings": {key: config[key] for key in stage.settings},
            "inputs": inputs,
            "versions": versions(stage.packages),
            "extra": stage.functions().key_parts(context),
        }
    )


def comparison_key(stage: Stage, context: Context) -> str:
    """Hash of what decides the stage's measurements and checks alone; empty for a stage that has none of these."""
    comparison = stage.functions().comparison
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
    before = dict(workspace.config)
    stages = with_needs(names, context.config)
    for stage in stages:
        stage.functions().preflight(context)
    failure: CsaDeployError | None = None
    for stage in stages:
        failed = _run_stage(stage, context, observer)
        if failed is not None and stage.name not in CONTINUE_AFTER_FAILURE:
            raise failed
        failure = failure or failed
    if workspace.config != before:
        workspace.save()
    return failure


def _keep_settings(stage: Stage, context: Context) -> None:
    """Store the settings of a stage that ended: later verbs inherit them, but none with which a stage cannot work."""
    kept, resolved = context.workspace.config, context.config.to_json()
    if kept.get("network") != resolved["network"]:
        kept.clear()
    kept.update({key: resolved[key] for key in ("network", *stage.settings, *stage.also)})


def _run_stage(stage: Stage, context: Context, observer: Observer) -> CsaDeployError | None:
    workspace = context.workspace
    observer.started(stage)
    key, compared = stage_key(stage, context), comparison_key(stage, context)
    functions = stage.functions()
    current = workspace.is_current(stage.name, key) and not functions.stale(context)
    if current and workspace.stages[stage.name].compared == compared:
        _keep_settings(stage, context)
        observer.finished(stage, "kept", 0.0, workspace.summary(stage.name))
        return None
    start, started_at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    with workspace.scratch(stage.name) as scratch:
        context.scratch = scratch
        context.progress = lambda *given: observer.progress(stage, *given)
        try:
            again = functions.compare_again if current else None
            output = (again or functions.run)(context)
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
        workspace.forget(gone | {read.name for read in stage.inputs if not wants(read, context.config)})
    observer.finished(stage, "failed" if output.failure else "done", seconds, output.stated["summary"])
    return output.failure
