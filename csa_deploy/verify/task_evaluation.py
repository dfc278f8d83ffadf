"""Metrics of a task on labelled data: the same numbers from a PyTorch module, an ONNX graph or an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.metrics.metric import Estimate
from csa_deploy.metrics.stream import WHOLE, SampleTable, measure
from csa_deploy.metrics.table import METRICS
from csa_deploy.metrics.task import Measured
from csa_deploy.runners.base import Runner, cast_to_inputs, free_cores, run_padded, sampling
from csa_deploy.tasks.task import Task
from csa_deploy.tasks.views import class_table, size_table

if TYPE_CHECKING:
    from csa_deploy.data.base import Dataset


@dataclass(frozen=True)
class TaskAccuracy:
    """What a network reaches in its task.

    Attributes:
        task: segmentation, detection, or empty for metrics of a user alone.
        samples: samples evaluated.
        estimates: metrics with their intervals.
        classes: per class ``name`` and ``value``, IoU or average precision; None where it is nowhere.
        sizes: of a detector likewise by the size of objects.
        not_finite: identities of samples with an output that is not finite; they make every metric NaN.
    """

    task: str
    samples: int
    estimates: dict[str, Estimate]
    classes: list[dict[str, Any]]
    sizes: list[dict[str, Any]]
    not_finite: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        found = {name: estimate.to_json() for name, estimate in self.estimates.items()}
        return {**vars(self), "estimates": found, "not_finite": list(self.not_finite)}


def evaluate_task(
    runner: Runner,
    data: Dataset,
    task: Task[Any] | None,
    metrics: Sequence[Measured],
    batch: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TaskAccuracy:
    """Metrics of a task.

    Args:
        runner: entered.
        data: with targets.
        task: how outputs are read; None where the metrics do so themselves.
        metrics: of the task and of the user; those against a reference are left out.
        batch: samples per step.
        progress: called with (done, total).

    Raises:
        UsageError: no targets.
    """
    wanted = [metric for metric in metrics if metric.labelled]
    shapes, tables, done = sampling(runner).shapes, dict[str, SampleTable](), 0
    for part in data.batches(batch, free_cores([runner])):
        if part.truth is None:
            raise UsageError(
                f"{data.name}: has no {task.kind if task else 'task'} targets to evaluate against",
                fix="give data with masks or boxes, see docs/tasks.md",
            )
        outputs = run_padded(runner, cast_to_inputs(runner, part.feed(shapes)))
        measure(outputs, outputs, part.ids, part.truth, tables, wanted)
        done += len(part)
        progress(done, len(data))
    whole = tables[WHOLE]
    rows = whole.columns
    estimates = {m.name: METRICS[m.name].estimate(rows) for m in wanted}
    first = rows[wanted[0].name] if task and wanted else None
    not_finite = (
        tuple(whole.ids[i] for i in np.flatnonzero(~np.isfinite(first).all(axis=1))) if first is not None else ()
    )
    good = first if first is not None and not not_finite else None
    classes = class_table(task, good, good) if task else []
    sizes = size_table(good, good) if task and task.kind == "detection" and good is not None else []
    return TaskAccuracy(task.kind if task else "", done, estimates, _own(classes), _own(sizes), not_finite)


def _own(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a table of two sides, the one."""
    return [{"name": row["name"], "value": row["candidate"]} for row in table]
