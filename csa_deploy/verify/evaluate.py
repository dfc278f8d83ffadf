"""Accuracy of one network on labelled data: the same numbers from a PyTorch module, an ONNX graph or an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.accuracy import Accuracy, ranks_of
from csa_deploy.errors import UsageError
from csa_deploy.metrics.metric import Estimate
from csa_deploy.metrics.stream import WHOLE, SampleTable, measure
from csa_deploy.metrics.table import METRICS
from csa_deploy.metrics.task import Measured
from csa_deploy.records.batch import BatchConsistency
from csa_deploy.runners.base import Runner, cast_to_inputs, free_cores, run_padded, sampling
from csa_deploy.runners.stateful import begin
from csa_deploy.tasks.task import Task
from csa_deploy.tasks.views import class_table, size_table
from csa_deploy.verify.batch import Changed, FirstSteps, batch_consistency

if TYPE_CHECKING:
    from csa_deploy.data.base import Batch, Dataset


@dataclass(frozen=True)
class Evaluation:
    """What a network reaches.

    Attributes:
        samples: samples evaluated.
        not_finite: identities of samples with an output that is not finite.
        accuracy: of a network that classifies.
        metrics: of the task, with their intervals; NaN where a sample is not finite.
        by_class: per class ``name`` and ``value``, IoU or average precision; None where it is nowhere.
        by_size: of a detector likewise by the size of objects.
        batch: whether a sample gives the same in every batch.
    """

    samples: int
    not_finite: tuple[str, ...]
    accuracy: Accuracy | None
    metrics: dict[str, Estimate]
    by_class: list[dict[str, Any]]
    by_size: list[dict[str, Any]]
    batch: BatchConsistency

    def to_json(self) -> dict[str, Any]:
        """JSON form; of a network that only classifies that of its accuracy."""
        found = {"samples": self.samples, "not_finite": list(self.not_finite), "batch": self.batch.to_json()}
        found |= self.accuracy.to_json() if self.accuracy else {}
        tables = {"by_class": self.by_class, "by_size": self.by_size}
        metrics = {name: estimate.to_json() for name, estimate in self.metrics.items()}
        return {**found, **({"metrics": metrics, **tables} if self.metrics else {})}


def evaluate(
    runner: Runner,
    data: Dataset,
    batch: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    task: Task[Any] | None = None,
    metrics: Sequence[Measured] = (),
    changed: Changed | None = None,
) -> Evaluation:
    """Top-1 and top-5 accuracy, and the metrics of the task; ties between outputs are ranked by class.

    Args:
        runner: an entered runner whose only output of shape (N, classes) is the classification; with metrics there
            need not be one.
        data: labelled.
        batch: samples per step.
        progress: called with (done, total).
        task: how outputs are read; None where it classifies, or the metrics read them themselves.
        metrics: to measure; those against a reference are left out.
        changed: the network's graph, to be run in other batches.

    Raises:
        UsageError: no labels, labels that do not fit, no output that classifies, or a metric is wrong.
    """
    if not data.labelled and data.task == "classification":
        raise UsageError(f"{data.name}: has no labels to evaluate against", fix="give labelled data, see docs/tasks.md")
    wanted = [metric for metric in metrics if metric.labelled]
    output = _classification(runner, needed=not wanted) if data.labels is not None and task is None else ""
    shapes, tables = sampling(runner).shapes, dict[str, SampleTable]()
    accuracy = Accuracy(0, 0, {}) if output else None
    done, spoilt, first = 0, list[str](), FirstSteps()
    for part in data.batches(batch, free_cores([runner])):
        begin(part, [runner])
        feeds = cast_to_inputs(runner, part.feed(shapes))
        outputs = run_padded(runner, feeds)
        first.add(part.ids, feeds, outputs)
        if accuracy is not None:
            if not done:
                data.check_labels(outputs[output].shape[1])
            accuracy = _add(accuracy, outputs[output], part)
        if wanted:
            measure(outputs, outputs, part.ids, part.truth, tables, wanted)
        finite = np.all([np.isfinite(a.reshape(len(a), -1)).all(axis=1) for a in outputs.values()], axis=0)
        spoilt += [identity for identity, good in zip(part.ids, finite, strict=True) if not good]
        done += len(part)
        progress(done, len(data))
    rows = tables[WHOLE].columns if WHOLE in tables else {}
    own = rows[wanted[0].name] if task and rows and not spoilt else None
    return Evaluation(
        done,
        accuracy.not_finite if accuracy else tuple(spoilt),
        accuracy,
        {metric.name: METRICS[metric.name].estimate(rows) for metric in wanted},
        _one_sided(class_table(task, own, own) if task else []),
        _one_sided(size_table(own, own) if task and task.kind == "detection" and own is not None else []),
        batch_consistency(runner, first, changed),
    )


def _one_sided(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": row["name"], "value": row["candidate"]} for row in table]


def _classification(runner: Runner, *, needed: bool) -> str:
    """The output that classifies; empty where there is none and none is needed."""
    found = [s.name for s in runner.output_specs if len(s.shape) == 2 and (s.shape[1] or 0) > 1]
    if len(found) != 1 and not needed:
        return ""
    if len(found) != 1:
        listed = ", ".join(f"{s.name} {[e or '?' for e in s.shape]}" for s in runner.output_specs)
        raise UsageError(
            f"{runner.name}: top-1 and top-5 need one output of shape (batch, classes); it has {listed}",
            fix="evaluate a classification network, or name what it does with --task",
        )
    return found[0]


def _add(before: Accuracy, logits: np.ndarray, part: Batch) -> Accuracy:
    assert part.labels is not None
    finite = np.isfinite(logits).all(axis=1)
    order = np.argsort(-logits, axis=1, kind="stable")
    hits = dict(before.hits)
    for k in ranks_of(logits.shape[1]):
        right = (order[:, :k] == part.labels[:, None]).any(axis=1) & finite
        hits[k] = hits.get(k, 0) + int(right.sum())
    bad = tuple(identity for identity, good in zip(part.ids, finite, strict=True) if not good)
    return Accuracy(before.samples + len(part), logits.shape[1], hits, before.not_finite + bad)
