"""Accuracy of one network on labelled data: the same numbers from a PyTorch module, an ONNX graph or an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.metrics.intervals import share
from csa_deploy.metrics.metric import Estimate, Interval, Pair
from csa_deploy.metrics.stream import WHOLE, SampleTable
from csa_deploy.metrics.table import METRICS
from csa_deploy.metrics.task import Task
from csa_deploy.runners.base import Runner, free_cores, run_padded, sampling

if TYPE_CHECKING:
    from csa_deploy.data.base import Batch, Dataset

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on labelled data.

    Attributes:
        samples: samples evaluated.
        classes: classes of the output.
        hits: per k, samples whose label is among the k strongest outputs; k = 5 only with more than five classes.
        not_finite: identities of samples with an output that is not finite; they count as wrong.
        metrics: of the task, by name.
    """

    samples: int
    classes: int
    hits: dict[int, int]
    not_finite: tuple[str, ...] = ()
    metrics: dict[str, Estimate] = field(default_factory=dict)

    def share(self, k: int) -> float:
        """Top-k accuracy in 0..1."""
        return self.hits[k] / self.samples

    def interval(self, k: int) -> Interval:
        """95 % Clopper-Pearson interval of :meth:`share`."""
        return share(self.hits[k], self.samples)

    def to_json(self) -> dict[str, Any]:
        """JSON form, with shares and intervals."""
        tops = {f"top{k}": {"value": self.share(k), "interval": self.interval(k)} for k in self.hits}
        found = {**asdict(self), "hits": {str(k): n for k, n in self.hits.items()}, **tops}
        return found if self.metrics else {k: v for k, v in found.items() if k != "metrics"}


def evaluate(
    runner: Runner, data: Dataset, batch: int, progress: Progress | None = None, tasks: Sequence[Task] = ()
) -> Accuracy:
    """Top-1 and top-5 accuracy, and the metrics of the task; ties between outputs are ranked by class.

    Args:
        runner: an entered runner whose only output of shape (N, classes) is the classification; with task metrics there
            need not be one.
        data: labelled.
        batch: samples per step.
        progress: called with (done, total).
        tasks: task metrics to measure.

    Raises:
        UsageError: no labels, labels that do not fit, no output that classifies, or a task metric is wrong.
    """
    if not data.labelled:
        raise UsageError(f"{data.name}: has no labels to evaluate against", fix="give a folder by class, a csv or .npz")
    shapes = sampling(runner).shapes
    output = _classification(runner, needed=not tasks)
    found, table = Accuracy(0, 0, {}), SampleTable(WHOLE)
    for part in data.batches(batch, free_cores([runner])):
        feeds = part.feed(shapes)
        typed = {s.name: _cast(feeds[s.name], s.dtype) for s in runner.input_specs}
        outputs = run_padded(runner, typed)
        if not found.samples and output:
            data.check_labels(outputs[output].shape[1])
        found = _add(found, outputs, output, part)
        _add_rows(table, outputs, part, tasks)
        if progress is not None:
            progress(found.samples, len(data))
    metrics = {task.name: METRICS[task.name].estimate(table.columns) for task in tasks if task.name in table.table}
    return replace(found, metrics=metrics)


def _add_rows(table: SampleTable, outputs: Mapping[str, np.ndarray], part: Batch, tasks: Sequence[Task]) -> None:
    truth = part.truth
    for index, identity in enumerate(part.ids if tasks and truth is not None else ()):
        one = {name: array[index].astype(np.float64) for name, array in outputs.items()}
        finite = all(bool(np.isfinite(array).all()) for array in one.values())
        assert truth is not None
        table.add(Pair(one, one, truth[index], finite, finite, identity), [task.keep for task in tasks])


def _cast(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(dtype) if array.dtype.kind == "f" else array


def _classification(runner: Runner, *, needed: bool) -> str:
    """The output that classifies; empty where there is none and none is needed."""
    found = [s.name for s in runner.output_specs if len(s.shape) == 2 and (s.shape[1] or 0) > 1]
    if len(found) != 1 and not needed:
        return ""
    if len(found) != 1:
        listed = ", ".join(f"{s.name} {[e or '?' for e in s.shape]}" for s in runner.output_specs)
        raise UsageError(
            f"{runner.name}: top-1 and top-5 need one output of shape (batch, classes); it has {listed}",
            fix="evaluate a classification network",
        )
    return found[0]


def _add(before: Accuracy, outputs: Mapping[str, np.ndarray], output: str, part: Batch) -> Accuracy:
    judged = [outputs[output]] if output else list(outputs.values())
    finite = np.all([np.isfinite(a.reshape(len(a), -1)).all(axis=1) for a in judged], axis=0)
    logits = judged[0] if output else np.zeros((len(part), 0))
    order = np.argsort(-logits, axis=1, kind="stable")
    hits = dict(before.hits)
    for k in (1, 5) if output and part.labels is not None else ():
        if k == 1 or logits.shape[1] > k:
            assert part.labels is not None
            right = (order[:, :k] == part.labels[:, None]).any(axis=1) & finite
            hits[k] = hits.get(k, 0) + int(right.sum())
    bad = tuple(identity for identity, good in zip(part.ids, finite, strict=True) if not good)
    return Accuracy(before.samples + len(part), logits.shape[1], hits, before.not_finite + bad)
