"""How often the interval of a task metric misses the truth, by simulation: the figures of docs/verify.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from csa_deploy.metrics.intervals import percentiles, resampled

Draw = Callable[[np.random.Generator, int], np.ndarray]
Value = Callable[[np.ndarray], float]


def _objects(draw: np.random.Generator, count: int) -> np.ndarray:
    """Per image: objects that are found, found in all, and there; then the same of a candidate that loses some."""
    there = draw.poisson(4, count)
    right, wrong = draw.binomial(there, 0.85), draw.poisson(0.5, count)
    moved = draw.binomial(there - right, 0.1) - draw.binomial(right, 0.06)
    return np.stack([right, right + wrong, there, right + moved, right + wrong + moved, there], 1).astype(float)


def _areas(draw: np.random.Generator, count: int) -> np.ndarray:
    """Per image intersections and unions of five classes that it may lack; then the same of a worse candidate."""
    size = draw.lognormal(0, 1, (count, 5)) * (draw.random((count, 5)) < 0.6)
    quality, kept = draw.beta(8, 2, (count, 1)), 1 - draw.gamma(0.5, 0.02, (count, 1))
    hits, union = size * quality, size * (2 - quality)
    return np.concatenate([hits, union, hits * kept, union + hits * (1 - kept)], 1)


def _f1(rows: np.ndarray) -> float:
    right, found, there = rows.sum(axis=0)[:3]
    return float(2 * right / (found + there))


def _iou(rows: np.ndarray) -> float:
    hits, union = rows.sum(axis=0)[:10].reshape(2, 5)
    return float(np.mean(hits[union > 0] / union[union > 0]))


KINDS: dict[str, tuple[Draw, Value, int]] = {"F1 of objects": (_objects, _f1, 3), "mean IoU": (_areas, _iou, 10)}


def missed(kind: str, drop: bool, count: int, runs: int) -> tuple[float, float, float]:
    """Share of the runs in which the truth is below the interval, above it, and in which there is none."""
    draw_of, one, width = KINDS[kind]

    def value(rows: np.ndarray) -> float:
        return one(rows) - one(rows[:, width:]) if drop else one(rows)

    truth, found = value(draw_of(np.random.default_rng(10**6), 400_000)), np.zeros(3)
    for seed in range(runs):
        rows = draw_of(np.random.default_rng(seed), count)
        moved = int((rows[:, :width] != rows[:, width:]).any(axis=1).sum()) if drop else count
        interval = percentiles(resampled(rows, value, additive=True), count, moved, value(rows))
        found += (False, False, True) if interval is None else (truth < interval[0], truth > interval[1], False)
    below, above, none = (found / runs).tolist()
    return below, above, none


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "drop", "count", "below", "above"),
    [
        ("F1 of objects", False, 50, 0.065, 0.06),
        ("F1 of objects", True, 200, 0.05, 0.05),
        ("mean IoU", False, 50, 0.09, 0.05),
        ("mean IoU", True, 50, 0.05, 0.13),
        ("mean IoU", True, 200, 0.06, 0.07),
    ],
)
def test_the_interval_misses_as_often_as_is_told(kind: str, drop: bool, count: int, below: float, above: float) -> None:
    found = missed(kind, drop, count, 300)
    assert found[0] <= below and found[1] <= above and found[2] == 0
    assert found[0] + found[1] > 0.005  # it is no interval that covers everything
