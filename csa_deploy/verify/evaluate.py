"""Accuracy of one network on labelled data: the same numbers from a PyTorch module, an ONNX graph or an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from csa_deploy.accuracy import Accuracy, ranks_of
from csa_deploy.errors import UsageError
from csa_deploy.runners.base import Runner, cast_to_inputs, free_cores, run_padded, sampling

if TYPE_CHECKING:
    from csa_deploy.data.base import Batch, Dataset

Progress = Callable[[int, int], None]


def evaluate(runner: Runner, data: Dataset, batch: int, progress: Progress | None = None) -> Accuracy:
    """Top-1 and top-5 accuracy; ties between outputs are ranked by class.

    Args:
        runner: an entered runner whose only output of shape (N, classes) is the classification.
        data: labelled.
        batch: samples per step.
        progress: called with (done, total).

    Raises:
        UsageError: no labels, labels that do not fit, or no output that classifies.
    """
    if data.labels is None:
        raise UsageError(f"{data.name}: has no labels to evaluate against", fix="give a folder by class, a csv or .npz")
    shapes = sampling(runner).shapes
    output = _classification(runner)
    found = Accuracy(0, 0, {})
    for part in data.batches(batch, free_cores([runner])):
        logits = run_padded(runner, cast_to_inputs(runner, part.feed(shapes)))[output]
        if not found.samples:
            data.check_labels(logits.shape[1])
        found = _add(found, logits, part)
        if progress is not None:
            progress(found.samples, len(data))
    return found


def _classification(runner: Runner) -> str:
    found = [s.name for s in runner.output_specs if len(s.shape) == 2 and (s.shape[1] or 0) > 1]
    if len(found) != 1:
        listed = ", ".join(f"{s.name} {[e or '?' for e in s.shape]}" for s in runner.output_specs)
        raise UsageError(
            f"{runner.name}: top-1 and top-5 need one output of shape (batch, classes); it has {listed}",
            fix="evaluate a classification network",
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
