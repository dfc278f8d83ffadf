"""Boxes: overlap, non-maximum suppression, and the raw maps of an anchor-free detector as boxes.

Boxes are (left, top, right, bottom) in pixels of the network's input, counted from the outer edge of the first pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

Activation = Literal["sigmoid", "none"]
Reach = Literal["none", "exp", "softplus"]
Unit = Literal["pixel", "stride"]
CANDIDATES = 1000
"""Boxes of a sample, the strongest first, that non-maximum suppression looks at."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found on one sample, the strongest first.

    Attributes:
        xyxy: float64 of shape (n, 4).
        scores: float64 of shape (n,).
        classes: int64 of shape (n,).
    """

    xyxy: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def of(self, rows: np.ndarray) -> Detections:
        """Those of the rows, in their order."""
        return Detections(self.xyxy[rows], self.scores[rows], self.classes[rows])

    def strongest(self, count: int) -> Detections:
        """So many at most."""
        return self.of(np.arange(min(count, len(self))))


NO_BOXES = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4), as (n, m); 0 where both are without area."""
    inner = np.minimum(first[:, None, 2:], second[None, :, 2:]) - np.maximum(first[:, None, :2], second[None, :, :2])
    shared = np.maximum(inner, 0.0).prod(axis=2)
    union = areas(first)[:, None] + areas(second)[None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def areas(xyxy: np.ndarray) -> np.ndarray:
    """Areas of boxes (n, 4); an inverted box has none."""
    return np.asarray(np.maximum(xyxy[:, 2:] - xyxy[:, :2], 0.0).prod(axis=1))


def suppress(found: Detections, iou: float, *, class_agnostic: bool = False, most: int | None = None) -> Detections:
    """Non-maximum suppression: the strongest box removes those that overlap it by more than ``iou``, and so on.

    Of equal scores the earlier box is the stronger, as in ONNX's NonMaxSuppression.

    Args:
        found: in any order.
        iou: overlap from which on, exclusively, a box is removed.
        class_agnostic: whether boxes of other classes are removed as well.
        most: keep so many at most.
    """
    order = np.argsort(-found.scores, kind="stable")
    kept: list[int] = []
    while len(order) and (most is None or len(kept) < most):
        best, order = order[0], order[1:]
        kept.append(int(best))
        gone = overlaps(found.xyxy[best : best + 1], found.xyxy[order])[0] > iou
        if not class_agnostic:
            gone &= found.classes[order] == found.classes[best]
        order = order[~gone]
    return found.of(np.asarray(kept, np.int64))


@dataclass(frozen=True)
class Postprocessing:
    """How an anchor-free detector's raw maps become boxes; travels in the ONNX metadata, the passport and the bundle.

    Every level has a map of class scores (N, classes, H, W) and one of distances (N, 4, H, W) from the centre of a cell
    to the left, top, right and bottom side of its box. The centre of cell (row, column) lies at
    ``((column + 0.5) * stride, (row + 0.5) * stride)``.

    Attributes:
        scores: output with the class scores, by level.
        distances: output with the distances, by level.
        strides: pixels of the input per cell, by level.
        activation: ``"sigmoid"`` where the scores are logits, ``"none"`` where the graph has applied it.
        reach: what the raw distances still need: ``"softplus"``, ``"exp"`` or ``"none"``.
        unit: of the distances then: ``"stride"`` or ``"pixel"``.
        score_threshold: boxes with a lower score are dropped.
        nms_iou: overlap above which the weaker box is dropped.
        class_agnostic: suppress across classes; each cell then gives its strongest class only.
        most: boxes per sample.

    Raises:
        ValueError: a field has another value; the message names it and what is possible.
    """

    scores: tuple[str, ...]
    distances: tuple[str, ...]
    strides: tuple[int, ...]
    activation: Activation = "sigmoid"
    reach: Reach = "none"
    unit: Unit = "stride"
    score_threshold: float = 0.05
    nms_iou: float = 0.6
    class_agnostic: bool = False
    most: int = 100

    def __post_init__(self) -> None:
        if not self.strides or not len(self.scores) == len(self.distances) == len(self.strides):
            raise ValueError(
                f"{len(self.scores)} outputs of scores and {len(self.distances)} of distances do not fit "
                f"{len(self.strides)} strides: one of each per level"
            )
        for name, kind in (("activation", Activation), ("reach", Reach), ("unit", Unit)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} '{getattr(self, name)}' is not one of {', '.join(get_args(kind))}")
        for name in ("score_threshold", "nms_iou"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} {getattr(self, name):g} is not from 0 to 1")
        if min(self.strides) < 1 or self.most < 1:
            raise ValueError("strides and the number of boxes are at least 1")

    def with_thresholds(self, **given: float | bool | None) -> Postprocessing:
        """The same with other thresholds; None leaves one as it is."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    def __call__(self, outputs: Mapping[str, np.ndarray]) -> list[Detections]:
        """Boxes of every sample.

        Args:
            outputs: raw maps by name, (N, ...).

        Raises:
            ValueError: an output is missing or no such map.
        """
        levels = [self._level(outputs, *names) for names in zip(self.scores, self.distances, self.strides, strict=True)]
        scores, xyxy = (np.concatenate([level[side] for level in levels], axis=1) for side in (0, 1))
        return [self._sample(*sample) for sample in zip(scores, xyxy, strict=True)]

    def _level(
        self, outputs: Mapping[str, np.ndarray], scored: str, distant: str, stride: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (N, cells, classes) and boxes (N, cells, 4) of one level."""
        for name in (scored, distant):
            if name not in outputs:
                raise ValueError(f"there is no output '{name}'; there are {', '.join(outputs)}")
        scores, distances = (np.asarray(outputs[name], np.float64) for name in (scored, distant))
        if scores.ndim != 4 or distances.shape != (len(scores), 4, *scores.shape[2:]):
            raise ValueError(
                f"'{scored}' {scores.shape} and '{distant}' {distances.shape} are not (N, classes, H, W) and "
                "(N, 4, H, W) of one level"
            )
        scores, distances = (a.reshape(*a.shape[:2], -1).transpose(0, 2, 1) for a in (scores, distances))
        height, width = outputs[scored].shape[2:]
        rows, columns = np.divmod(np.arange(height * width), width)
        centres = (np.stack([columns, rows], axis=1) + 0.5) * stride
        sides = _REACHES[self.reach](distances) * (stride if self.unit == "stride" else 1)
        boxes = np.concatenate([centres - sides[..., :2], centres + sides[..., 2:]], axis=2)
        return (sigmoid(scores) if self.activation == "sigmoid" else scores), boxes

    def _sample(self, scores: np.ndarray, xyxy: np.ndarray) -> Detections:
        if self.class_agnostic:
            cells, classes = np.arange(len(scores)), scores.argmax(axis=1)
            above = scores[cells, classes] >= self.score_threshold
            cells, classes = cells[above], classes[above]
        else:
            cells, classes = np.nonzero(scores >= self.score_threshold)
        strongest = np.argsort(-scores[cells, classes], kind="stable")[:CANDIDATES]
        cells, classes = cells[strongest], classes[strongest]
        found = Detections(xyxy[cells], scores[cells, classes], classes.astype(np.int64))
        return suppress(found, self.nms_iou, class_agnostic=self.class_agnostic, most=self.most)

    def to_json(self) -> dict[str, Any]:
        """JSON form, as in the ONNX metadata."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Postprocessing:
        """Inverse of :meth:`to_json`; raises KeyError, TypeError or ValueError on foreign data."""
        lists = ("scores", "distances", "strides")
        return cls(**{**data, **{name: tuple(data[name]) for name in lists}})


_REACHES: dict[Reach, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda raw: raw,
    "exp": lambda raw: np.exp(np.minimum(raw, 50.0)),  # e50 strides are as far off as infinitely many
    "softplus": lambda raw: np.logaddexp(0.0, raw),
}


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))
