"""How often the intervals hold what they state; the figures stand in docs/tasks.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from csa_deploy.boxes import Detections
from csa_deploy.metrics.task import task_of
from csa_deploy.tasks.detection import Objects, match
from csa_deploy.tasks.metrics import AveragePrecision, MeanIoU
from csa_deploy.tasks.rows import packed

pytestmark = pytest.mark.slow
Pair = tuple[np.ndarray, np.ndarray]


def masks(count: int, classes: int = 11) -> Pair:
    """Rows of mean IoU for reference and candidate: large backgrounds, rare classes, errors that lie in any class."""
    rng, rows = np.random.default_rng(0), np.zeros((2, count, 3, classes))
    for image in range(count):
        present = [0, *(1 + rng.choice(classes - 1, rng.integers(1, 6), replace=False))]
        for kind, size in zip(present, [16000, *rng.lognormal(5, 0.8, len(present) - 1)], strict=True):
            right = rng.beta(8, 1.2)
            for side, share in enumerate((right, max(0.0, right - abs(rng.normal(0, 0.02))))):
                rows[side, image, :, kind] += size * np.asarray([share, 1.0, share])
                rows[side, image, 2, rng.integers(0, classes)] += size * (1 - share)
    return rows[0].reshape(count, -1), rows[1].reshape(count, -1)


def boxes(count: int, classes: int = 4) -> Pair:
    """Rows of mAP: nine of ten objects found, some boxes wrong, a candidate with boxes and scores moved."""
    rng, sides = np.random.default_rng(0), ([], [])
    for _ in range(count):
        number = int(rng.integers(0, 5))
        corner = rng.random((number, 2)) * 100
        truth, kinds = (
            np.concatenate([corner, corner + rng.uniform(12, 40, (number, 2))], 1),
            rng.integers(0, classes, number),
        )
        flags = np.zeros(number, bool)
        objects = Objects(truth, kinds, flags, flags, (truth[:, 2:] - truth[:, :2]).prod(1))
        seen, more = rng.random(number) < 0.9, rng.random((int(rng.integers(0, 3)), 2)) * 100
        found = np.concatenate(
            [truth[seen] + rng.normal(0, 1.2, (seen.sum(), 4)), np.concatenate([more, more + 20], 1)]
        )
        scores = np.concatenate([rng.beta(4, 2, seen.sum()), rng.beta(2, 4, len(more))])
        labels = np.concatenate([kinds[seen], rng.integers(0, classes, len(more))])
        kept = rng.random(len(scores)) > 0.02
        moved = found + rng.normal(0, 0.4, found.shape), scores + rng.normal(0, 0.03, len(scores))
        sides[0].append(packed(match(objects, Detections(found, scores, labels))))
        sides[1].append(packed(match(objects, Detections(moved[0][kept], moved[1][kept], labels[kept]))))
    return np.stack(sides[0]), np.stack(sides[1])


@pytest.mark.parametrize(
    ("metric", "population", "samples", "runs", "value", "drop"),
    [
        (MeanIoU, masks, 100, 200, 0.92, 0.94),
        (MeanIoU, masks, 300, 200, 0.92, 0.94),
        (AveragePrecision, boxes, 100, 60, 0.83, 0.88),
    ],
)
def test_how_often_the_truth_lies_in_the_interval(
    metric: type, population: Callable[[int], Pair], samples: int, runs: int, value: float, drop: float
) -> None:
    pytest.importorskip("pycocotools")
    task, (reference, candidate) = task_of(metric), population(2000)
    truth, lost = task.reduce(candidate), task.lost(reference, candidate)
    held, rng = [0, 0], np.random.default_rng(1)
    for _ in range(runs):
        drawn = rng.integers(0, len(reference), samples)
        first, second = reference[drawn], candidate[drawn]
        for place, (wanted, sure) in enumerate(
            (
                (truth, task.sure(task.reduce(second), second)),
                (lost, task.sure_of_lost(task.lost(first, second), first, second)),
            )
        ):
            assert sure.interval is not None
            held[place] += sure.interval[0] <= wanted <= sure.interval[1]
    print(metric.__name__, samples, [h / runs for h in held])
    assert held[0] / runs >= value and held[1] / runs >= drop
