"""Accuracy of one network on labelled data: the same numbers from a PyTorch module, an ONNX graph or an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.accuracy import Accuracy, ranks_of
from csa_deploy.cluster.parts import SharePart
from csa_deploy.errors import UsageError
from csa_deploy.metrics.metric import Estimate
from csa_deploy.metrics.stream import WHOLE, SampleTable, measure
from csa_deploy.metrics.table import METRICS
from csa_deploy.metrics.task import Measured
from csa_deploy.records.batch import BatchConsistency
from csa_deploy.records.task_views import TaskRow
from csa_deploy.results import jsonable
from csa_deploy.runners.base import Runner, cast_to_inputs, free_cores, run_padded, sampling
from csa_deploy.runners.stateful import begin
from csa_deploy.tasks.task import Task
from csa_deploy.tasks.views import class_table, size_table
from csa_deploy.verify.batch import Changed, FirstSteps, batch_consistency

if TYPE_CHECKING:
    from csa_deploy.data.base import Batch, Dataset


@dataclass(frozen=True)
class PartScore:
    """What a network reaches of a class or a size of objects; None where it is nowhere."""

    name: str
    value: float | None


@dataclass(frozen=True)
class Evaluation:
    """What a network reaches.

    Attributes:
        not_finite: identities of samples with an output that is not finite.
        accuracy: of a network that classifies.
        metrics: of the task, with their intervals; NaN where a sample is not finite.
        by_class: IoU or average precision.
        by_size: of a detector likewise by the size of objects.
        batch: whether a sample gives the same in every batch.
    """

    samples: int
    not_finite: tuple[str, ...]
    accuracy: Accuracy | None
    metrics: dict[str, Estimate]
    by_class: tuple[PartScore, ...]
    by_size: tuple[PartScore, ...]
    batch: BatchConsistency

    def to_json(self) -> dict[str, Any]:
        """JSON form; of a network that only classifies that of its accuracy."""
        found = {"samples": self.samples, "not_finite": list(self.not_finite), "batch": self.batch.to_json()}
        found |= self.accuracy.to_json() if self.accuracy else {}
        tables = {"metrics": self.metrics, "by_class": self.by_class, "by_size": self.by_size}
        return {**found, **(jsonable(tables) if self.metrics else {})}


@dataclass
class Count:
    """What is counted over the samples.

    Attributes:
        runner: entered; its output of shape (N, classes) is the classification.
        data: labelled.
        batch: samples per step.
        wanted: metrics of the task.
        output: the one that classifies; empty where none is needed.
        accuracy: so far; None where nothing classifies.
        spoilt: identities of samples with an output that is not finite.
        done: samples counted.
        tables: what the metrics keep of each.
        first: the first batches.
    """

    runner: Runner
    data: Dataset
    batch: int
    wanted: Sequence[Measured]
    output: str
    accuracy: Accuracy | None = None
    spoilt: list[str] = field(default_factory=list)
    done: int = 0
    tables: dict[str, SampleTable] = field(default_factory=dict)
    first: FirstSteps = field(default_factory=FirstSteps)

    def __post_init__(self) -> None:
        self.accuracy = Accuracy(0, 0, {}) if self.output else None

    @classmethod
    def of(
        cls, runner: Runner, data: Dataset, batch: int, task: Task[Any] | None, metrics: Sequence[Measured]
    ) -> Count:
        """What :func:`evaluate` counts, of which nothing is counted yet; see there."""
        if not data.labelled and data.task == "classification":
            raise UsageError(
                f"{data.name}: has no labels to evaluate against", fix="give labelled data, see docs/tasks.md"
            )
        wanted = [metric for metric in metrics if metric.labelled]
        output = _classification(runner, needed=not wanted) if data.labels is not None and task is None else ""
        return cls(runner, data, batch, wanted, output)

    def run(self, progress: Callable[[int, int], None], indices: Sequence[int] | None = None) -> None:
        """Count all samples, or those at these places."""
        shapes = sampling(self.runner).shapes
        for part in self.data.batches(self.batch, free_cores([self.runner]), indices):
            begin(part, [self.runner])
            feeds = cast_to_inputs(self.runner, part.feed(shapes))
            outputs = run_padded(self.runner, feeds)
            self.first.add(part.ids, feeds, outputs)
            if self.accuracy is not None:
                if not self.done:
                    self.data.check_labels(outputs[self.output].shape[1])
                self.accuracy = _add(self.accuracy, outputs[self.output], part)
            if self.wanted:
                measure(outputs, outputs, part.ids, part.truth, self.tables, self.wanted)
            finite = np.all([np.isfinite(a.reshape(len(a), -1)).all(axis=1) for a in outputs.values()], axis=0)
            self.spoilt += [identity for identity, good in zip(part.ids, finite, strict=True) if not good]
            self.done += len(part)
            progress(self.done, len(self.data))

    def share(self, indices: Sequence[int]) -> SharePart:
        """The same on some samples alone, which :meth:`add` puts behind those before them."""
        own = Count(self.runner, self.data, self.batch, self.wanted, self.output, first=self.first)
        own.run(lambda done, total: None, indices)
        kept = own.tables.get(WHOLE, SampleTable(WHOLE))
        accuracy = asdict(own.accuracy) if own.accuracy else None
        facts = {"accuracy": accuracy, "spoilt": own.spoilt, "done": own.done, "ids": kept.ids}
        return SharePart({name: np.array(column) for name, column in kept.table.items()}, facts)

    def add(self, part: SharePart) -> None:
        """Put what came of the next samples behind what there is, as if they had run here."""
        if self.accuracy is not None:
            found, before = part.facts["accuracy"], self.accuracy
            hits = {int(k): before.hits.get(int(k), 0) + n for k, n in found["hits"].items()}
            bad = (*before.not_finite, *found["not_finite"])
            self.accuracy = Accuracy(before.samples + found["samples"], found["classes"], hits, bad)
        if ids := part.facts["ids"]:
            self.tables.setdefault(WHOLE, SampleTable(WHOLE)).extend(ids, part.arrays)
        self.spoilt += part.facts["spoilt"]
        self.done += part.facts["done"]


def evaluate(
    runner: Runner,
    data: Dataset,
    batch: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    task: Task[Any] | None = None,
    metrics: Sequence[Measured] = (),
    changed: Changed | None = None,
    run: Callable[[Count], None] | None = None,
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
        run: counts all samples elsewhere.

    Raises:
        UsageError: no labels, labels that do not fit, no output that classifies, or a metric is wrong.
    """
    count = Count.of(runner, data, batch, task, metrics)
    if run is None:
        count.run(progress)
    else:
        run(count)
    rows = count.tables[WHOLE].columns if WHOLE in count.tables else {}
    own = rows[count.wanted[0].name] if task and rows and not count.spoilt else None
    return Evaluation(
        count.done,
        count.accuracy.not_finite if count.accuracy else tuple(count.spoilt),
        count.accuracy,
        {metric.name: METRICS[metric.name].estimate(rows) for metric in count.wanted},
        _one_sided(class_table(task, own, own) if task else ()),
        _one_sided(size_table(own, own) if task and task.kind == "detection" and own is not None else ()),
        batch_consistency(runner, count.first, changed),
    )


def _one_sided(table: Sequence[TaskRow]) -> tuple[PartScore, ...]:
    return tuple(PartScore(row.name, row.candidate) for row in table)


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
