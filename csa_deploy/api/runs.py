"""Runs that are stored in workspaces: judged again, and compared with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from csa_deploy.config import make_config
from csa_deploy.errors import UsageError
from csa_deploy.profile.comparison import MINIMUM_EFFECT
from csa_deploy.profile.runs import RunComparison, compare_interleaved, compare_runs
from csa_deploy.profile.stored import load_run
from csa_deploy.results import NotMeasured
from csa_deploy.tasks.plugins import load_metric
from csa_deploy.verify.judging import Judgement, judge_results
from csa_deploy.verify.results import read_results, stored_results
from csa_deploy.verify.run_comparison import compare_results
from csa_deploy.workspace import MANIFEST, Workspace


def judge_stored(
    samples: Path, *, budget: Sequence[str] | Mapping[str, Any] = (), metric: Sequence[str] = ()
) -> Judgement:
    """Hold stored metrics against the budgets of their run, without running anything.

    Args:
        samples: the file with the metrics of every sample, in its workspace.
        budget: bounds that replace the run's, as the setting of that name takes them.
        metric: task metrics, as the setting takes them; the run's where none is given.
    """
    stored = Workspace(samples.parent.parent).config
    metrics, before = list(metric) or stored.get("metric", []), stored.get("budget", {})
    given = make_config({"metric": metrics, "budget": budget or []}).budget
    bounds = {p: {**before.get(p, {}), **given.get(p, {})} for p in (*before, *given)}
    config = make_config({"metric": metrics, "budget": bounds})
    return judge_results(read_results(samples), config.bounds, config.asked)


def compare_stored(
    run_a: Path,
    run_b: Path,
    *,
    measure: bool = False,
    metric: Sequence[str] = (),
    iterations: int = 100,
    threads: int | None = None,
    minimum_effect: float = MINIMUM_EFFECT,
) -> RunComparison:
    """Compare latency and accuracy of two runs, each as far as both runs hold it.

    Args:
        run_a: workspace of the first run.
        run_b: workspace of the second run.
        measure: time both runs' graphs anew on this machine, interleaved.
        metric: task metrics to make known, as the setting takes them; the runs' where none is given.
        iterations: timed inferences of each graph, with ``measure``.
        threads: of ONNX Runtime, with ``measure``.
        minimum_effect: change of the latency, as a share, below which it does not count.

    Raises:
        UsageError: one is no workspace of a run, or nothing can be compared.
    """
    for run in (run_a, run_b):
        if not (run / MANIFEST).is_file():
            raise UsageError(f"{run}: no workspace of a run", fix="give the folder that `csa-deploy run` worked in")
    samples = [stored_results(run) for run in (run_a, run_b)]
    without = [str(run) for run, path in zip((run_a, run_b), samples, strict=True) if not path.is_file()]
    lacking = f"no stored comparison in {' and '.join(without)}"
    try:
        a, b = load_run(run_a), load_run(run_b)
        found = (
            compare_interleaved(a, b, iterations=iterations, threads=threads, minimum_effect=minimum_effect)
            if measure
            else compare_runs(a, b, minimum_effect=minimum_effect)
        )
    except UsageError as error:
        if measure or without:
            raise UsageError(error.message + (f"; {lacking} either" if without else ""), fix=error.fix) from error
        latency = NotMeasured("latency", error.message)
        found = RunComparison(a=str(run_a), b=str(run_b), not_compared=(latency,))
    if without:
        return replace(found, not_compared=(*found.not_compared, NotMeasured("accuracy", lacking)))
    unknown = _known_metrics([run_a, run_b], metric)
    accuracy = compare_results(*map(read_results, samples))
    return replace(found, accuracy=replace(accuracy, not_compared=(*accuracy.not_compared, *unknown)))


def _known_metrics(runs: Sequence[Path], metric: Sequence[str]) -> list[NotMeasured]:
    """Make the task metrics of the runs known, or those that are named instead; those that are not to be found."""
    stored = [spec for run in runs for spec in Workspace(run).config.get("metric", [])]
    unknown = []
    for spec in dict.fromkeys(metric or stored):
        try:
            load_metric(spec)
        except UsageError as error:
            unknown.append(NotMeasured(f"metric {spec}", error.message))
    return unknown
