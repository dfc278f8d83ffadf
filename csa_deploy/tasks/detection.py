"""Detection: COCO's average precision, matched by pycocotools, and the agreement of two sets of boxes.

A sample's row is a table of its boxes with what they matched at each threshold, some numbers per box: enough for the
average precision of the whole set and of every resampling of its images, so that no image is matched twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from csa_deploy.boxes import Detections, areas, overlaps
from csa_deploy.errors import EnvironmentLacksError

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
SIZES = ("all", "small", "medium", "large")
"""Of objects, by area in pixels: below 32 x 32, below 96 x 96, and above."""
RANGES = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
SAME = 0.9
"""Overlap from which on two boxes of one class are the same box."""
_MOST = 100  # boxes per image and class, as in COCO
_SCORE, _CLASS, _BITS = 0, 1, 2  # columns of a row's table; then one column per size
_COLUMNS = _BITS + len(SIZES)


@dataclass(frozen=True, eq=False)
class Objects:
    """What is true of an image, for matching.

    Attributes:
        xyxy: float64 of shape (n, 4).
        classes: int64 of shape (n,).
        crowd: bool of shape (n,), one box around many.
        ignored: bool of shape (n,), neither to be found nor wrong when found; crowds are too.
        areas: in square pixels, by which COCO sorts objects into sizes.
    """

    xyxy: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray


def match(objects: Objects, found: Detections) -> np.ndarray:
    """A sample's row: float64 of shape (rows, 6).

    A box is (score, class, then per size a number whose bits 0..9 say at which thresholds it is right, and bits 10..19
    at which it does not count); of each class one more row holds (NaN, class, number of objects by size).

    Raises:
        EnvironmentLacksError: pycocotools is not installed.
    """
    rows: list[np.ndarray] = []
    for kind in np.union1d(objects.classes, found.classes).tolist():
        evaluation = _evaluation(objects, found, kind)
        sizes = [evaluation.evaluateImg(0, kind, list(bounds), _MOST) for bounds in RANGES]
        boxes = np.zeros((len(sizes[0]["dtScores"]) + 1, _COLUMNS))
        boxes[:, _SCORE], boxes[:, _CLASS] = [*sizes[0]["dtScores"], np.nan], kind
        for size, one in enumerate(sizes):
            out = np.asarray(one["dtIgnore"], bool).reshape(len(IOUS), -1)
            right = (np.asarray(one["dtMatches"]).reshape(len(IOUS), -1) > 0) & ~out
            bits = 2.0 ** np.arange(2 * len(IOUS))
            boxes[:-1, _BITS + size] = bits @ np.concatenate([right, out])
            boxes[-1, _BITS + size] = np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)
        rows.append(boxes)
    return np.concatenate(rows) if rows else np.zeros((0, _COLUMNS))


def _evaluation(objects: Objects, found: Detections, kind: int) -> Any:
    """pycocotools' evaluation of one class of one image, with its overlaps."""
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise EnvironmentLacksError(
            "average precision needs pycocotools, which is not installed",
            fix="pip install 'csa-deploy[detection]', or drop the metrics of labelled boxes",
        ) from error
    evaluation = COCOeval(iouType="bbox")
    evaluation._gts, evaluation._dts = defaultdict(list), defaultdict(list)  # without the index of a whole data set
    for i in np.flatnonzero(objects.classes == kind).tolist():
        crowd = bool(objects.crowd[i])
        evaluation._gts[0, kind].append(
            {
                "id": i + 1,
                "bbox": _xywh(objects.xyxy[i]),
                "area": float(objects.areas[i]),
                "iscrowd": int(crowd),
                "ignore": int(crowd or objects.ignored[i]),
            }
        )
    for i in np.flatnonzero(found.classes == kind).tolist():
        box = found.xyxy[i : i + 1]
        evaluation._dts[0, kind].append(
            {"id": i + 1, "bbox": _xywh(box[0]), "area": float(areas(box)[0]), "score": float(found.scores[i])}
        )
    evaluation.ious = {(0, kind): evaluation.computeIoU(0, kind)}
    return evaluation


def _xywh(box: np.ndarray) -> list[float]:
    left, top, right, bottom = box.tolist()
    return [left, top, max(right - left, 0.0), max(bottom - top, 0.0)]  # an inverted box matches nothing


@dataclass(frozen=True, eq=False)
class _Class:
    """All boxes of a class, the strongest first; arrays of (boxes,), of (thresholds, boxes) and of (images,)."""

    kind: int
    scores: np.ndarray
    image: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    objects: np.ndarray


class Precision:
    """Average precision of a set of images, and of every resampling of them.

    Args:
        rows: of :func:`match`, one per image.
    """

    def __init__(self, rows: list[np.ndarray]) -> None:
        self.images = len(rows)
        self._table = np.concatenate([np.zeros((0, _COLUMNS)), *rows])
        self._image = np.repeat(np.arange(len(rows)), [len(row) for row in rows])

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Classes that objects of any size have."""
        return tuple(one.kind for one in self._classes(0))

    def _classes(self, size: int) -> Iterator[_Class]:
        is_box = ~np.isnan(self._table[:, _SCORE])
        for kind in np.unique(self._table[:, _CLASS]).astype(int).tolist():
            of_kind = self._table[:, _CLASS] == kind
            counted = of_kind & ~is_box
            objects = np.bincount(
                self._image[counted], weights=self._table[counted, _BITS + size], minlength=self.images
            )
            if not objects.sum():
                continue
            boxes, image = self._table[of_kind & is_box], self._image[of_kind & is_box]
            order = np.argsort(-boxes[:, _SCORE], kind="mergesort")  # as pycocotools sorts
            bits = boxes[order, _BITS + size].astype(np.int64)
            right, out = (((bits >> (shift + np.arange(len(IOUS))[:, None])) & 1) > 0 for shift in (0, len(IOUS)))
            yield _Class(kind, boxes[order, _SCORE], image[order], right, ~right & ~out, objects)

    def by_class(self, size: str = "all", *, times: np.ndarray | None = None, ious: slice = slice(None)) -> np.ndarray:
        """Average precision (resamples, thresholds, classes with objects of the size); NaN where a draw has no object.

        Args:
            size: of :data:`SIZES`.
            times: how often each image is drawn, (resamples, images); None for once each.
            ious: which of the thresholds :data:`IOUS`.
        """
        drawn = np.ones((1, self.images)) if times is None else times
        found = [_average(one, drawn, ious) for one in self._classes(SIZES.index(size))]
        return np.stack(found, axis=2) if found else np.zeros((len(drawn), len(IOUS[ious]), 0))

    def mean(self, size: str = "all", *, times: np.ndarray | None = None, ious: slice = slice(None)) -> np.ndarray:
        """COCO's AP, the mean over thresholds and classes, of shape (resamples,); NaN where there are no objects."""
        found = self.by_class(size, times=times, ious=ious).reshape(1 if times is None else len(times), -1)
        there = ~np.isnan(found)
        total = np.where(there, found, 0.0).sum(axis=1)
        return np.asarray(np.where(there.any(axis=1), total / np.maximum(there.sum(axis=1), 1), np.nan))

    def curve(self, kind: int, iou: int = 0) -> np.ndarray:
        """Precision of a class at :data:`RECALLS` for threshold ``IOUS[iou]``; zeros where it has no object."""
        once = np.ones((1, self.images))
        one = next((one for one in self._classes(0) if one.kind == kind), None)
        return _interpolated(one, once, iou)[0] if one else np.zeros(len(RECALLS))


def _average(one: _Class, times: np.ndarray, ious: slice) -> np.ndarray:
    """Average precision of a class, (resamples, thresholds)."""
    there = times @ one.objects > 0
    found = np.stack([_interpolated(one, times, i).mean(axis=1) for i in range(len(IOUS))[ious]], axis=1)
    return np.where(there[:, None], found, np.nan)


def _interpolated(one: _Class, times: np.ndarray, iou: int) -> np.ndarray:
    """Highest precision at each recall or a larger one, (resamples, recalls)."""
    if not len(one.scores):
        return np.zeros((len(times), len(RECALLS)))
    weight = times[:, one.image]
    right, wrong = ((weight * which[iou]).cumsum(axis=1) for which in (one.right, one.wrong))
    recall = right / np.maximum(times @ one.objects, 1.0)[:, None]
    precision = right / (right + wrong + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    boxes = len(one.scores)
    # One search for all resamples: their recalls, each shifted above those before it, are one ascending row.
    shift = 2.0 * np.arange(len(times))[:, None]
    place = np.searchsorted((recall + shift).ravel(), (RECALLS + shift).ravel()).reshape(len(times), -1)
    place = place - boxes * np.arange(len(times))[:, None]
    reached = place < boxes
    return np.where(reached, np.take_along_axis(best, np.minimum(place, boxes - 1), axis=1), 0.0)


def pairs(first: Detections, second: Detections, least: float = SAME) -> np.ndarray:
    """Boxes of one class that overlap by at least ``least``, each in one pair, the closest pairs first: (pairs, 2)."""
    close = overlaps(first.xyxy, second.xyxy) * (first.classes[:, None] == second.classes[None, :])
    rows, columns = np.nonzero(close >= least)
    order = np.argsort(-close[rows, columns], kind="stable")
    free = [np.ones(len(first), bool), np.ones(len(second), bool)]
    taken = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if free[0][row] and free[1][column]:
            free[0][row] = free[1][column] = False
            taken.append((row, column))
    return np.asarray(taken, np.int64).reshape(-1, 2)


def agreeing(reference: Detections, candidate: Detections) -> np.ndarray:
    """A sample's row, float64 of shape (2,): boxes of both sides that are in a pair, and all boxes of both sides."""
    return np.asarray([2.0 * len(pairs(reference, candidate)), float(len(reference) + len(candidate))])


def detection_agreement(rows: np.ndarray) -> np.ndarray:
    """Share of boxes that the other side has as well, from rows (..., 2); 1 where neither has any."""
    same, total = rows[..., 0], rows[..., 1]
    return np.asarray(np.where(total > 0, same / np.maximum(total, 1.0), 1.0))
