"""Task metrics by name: those that are known, and those in files of the user."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from csa_deploy.errors import UsageError
from csa_deploy.metrics.table import METRICS
from csa_deploy.metrics.task import TASKS, Measured, register_task
from csa_deploy.naming import did_you_mean, split_commas
from csa_deploy.source import load_source

_LOADED: dict[str, tuple[str, Measured]] = {}


def load_metric(spec: Any) -> Measured:
    """The task metric that ``spec`` names, made known.

    Args:
        spec: the name of a known one, ``file.py:Name`` or ``package.module:Name``; or a task metric itself.

    Raises:
        UsageError: nothing there, or no task metric.
    """
    if not isinstance(spec, str):
        return register_task(spec)
    if spec in TASKS:
        return TASKS[spec]
    name = spec.rpartition(":")[2]
    if ":" not in spec or not name.isidentifier():
        meant = did_you_mean(spec, TASKS)
        said = f"metric {spec}: no such metric{f', {meant}' if meant else ''}"
        raise UsageError(said, fix="write file.py:NAME_OF_THE_CLASS")
    source = load_source(spec)
    content = source.fingerprint()
    known, task = _LOADED.get(spec, ("", None))
    if task is None or known != content or TASKS.get(task.name) is not task:
        with source.opened() as (given, _):
            task = register_task(given, name)
        _LOADED[spec] = content, task
    return task


def known_as(given: Any) -> list[str]:
    """Names of task metrics as a configuration holds them, each made known.

    Args:
        given: names with commas between them, task metrics, or a list of these.
    """
    parts = list(given) if isinstance(given, (list, tuple)) else [given]
    specs = [s for part in parts for s in (split_commas(part) if isinstance(part, str) else [part])]
    return [spec if load_metric(spec) and isinstance(spec, str) else load_metric(spec).name for spec in specs]


def tasks_of(specs: Iterable[str], bounds: Iterable[str] = ()) -> list[Measured]:
    """The task metrics of these names, and those that bounds of these keys are of."""
    found = {task.name: task for task in map(load_metric, specs)}
    for key in bounds:
        metric = METRICS[key.rpartition(".")[2]]
        if metric.of == "whole":
            found.setdefault(metric.columns[-1], TASKS[metric.columns[-1]])
    return list(found.values())


def fingerprints(specs: Iterable[str]) -> dict[str, str]:
    """By metric or function what it depends on: the code beside it; of one that came from Python its class's name."""
    return {s: load_source(s).fingerprint() if ":" in s else repr(type(TASKS[s].given)) for s in specs}
