"""What the report shows of a task: tables by class and size, precision-recall curves, and the worst samples drawn.

Masks are small PNG data URLs.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from csa_deploy.boxes import Detections
from csa_deploy.data.targets import Boxes, Mask
from csa_deploy.network import Preprocessing
from csa_deploy.records.task_views import (
    DrawnBox,
    DrawnSample,
    PrecisionCurves,
    State,
    TaskRow,
    TrueBox,
    Xyxy,
)
from csa_deploy.tasks import segmentation
from csa_deploy.tasks.detection import RECALLS, SIZES, Precision, agreeing, detection_agreement, pairs
from csa_deploy.tasks.rows import unpacked
from csa_deploy.tasks.task import Detection, Outputs, Segmentation, Task

LONGEST_SIDE = 192
"""Longest side in pixels of a drawn mask."""
INPUT_SIDE = 288
"""Longest side of the input's picture."""
MOVED = 0.5
"""Overlap from which on a box of the same class that is not the same box is a moved one."""
WEAK = 0.25
"""Boxes below this part of the sample's highest score are counted but not drawn: they would cover the picture."""
# Colours of classes, on light and dark pages alike; after the last they repeat.
COLOURS = (
    *("#5b6470", "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c"),
    *("#fabebe", "#008080", "#e6beff", "#9a6324", "#fffac8", "#800000", "#aaffc3", "#808000", "#ffd8b1", "#0000b0"),
)
SAME_PIXEL, LOST, GAINED, OTHER = "#dde2e8", "#d92d20", "#12925a", "#e0a100"
"""Pixels of a difference: both alike; right in the reference alone; in the candidate alone; unlike and both wrong."""
_IGNORED = "#000000"


def class_table(task: Task[Any], reference: np.ndarray | None, candidate: np.ndarray | None) -> tuple[TaskRow, ...]:
    """IoU of each class, or COCO's average precision.

    Args:
        reference: rows of the reference, (samples, numbers); None without labels.
    """
    if reference is None or candidate is None:
        return ()
    if isinstance(task, Segmentation):
        both = [segmentation.class_iou(rows.sum(axis=0).reshape(3, -1)) for rows in (reference, candidate)]
        kinds = list(range(len(both[0])))
    else:
        found = [_precision(rows) for rows in (reference, candidate)]
        kinds = list(found[0].classes)  # the objects are the same on both sides
        both = [one.by_class()[0].mean(axis=0) for one in found]
    return tuple(TaskRow(task.name_of(kind), _number(a), _number(b)) for kind, a, b in zip(kinds, *both, strict=True))


def size_table(reference: np.ndarray, candidate: np.ndarray) -> tuple[TaskRow, ...]:
    """COCO's average precision by the size of objects."""
    first, second = _precision(reference), _precision(candidate)
    return tuple(TaskRow(size, _number(first.mean(size)[0]), _number(second.mean(size)[0])) for size in SIZES)


def curves(reference: np.ndarray, candidate: np.ndarray) -> PrecisionCurves:
    """For an overlap of 0.5."""
    return PrecisionCurves(tuple(RECALLS.tolist()), *(_curve(_precision(rows)) for rows in (reference, candidate)))


def _curve(one: Precision) -> tuple[float, ...]:
    per_class = [one.curve(kind) for kind in one.classes]
    return tuple(np.mean(per_class, axis=0).tolist()) if per_class else ()


def _precision(rows: np.ndarray) -> Precision:
    return Precision([unpacked(row) for row in rows])


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def drawn(task: Task[Any], reference: Outputs, candidate: Outputs, target: Any) -> DrawnSample:
    """Masks as pictures, or boxes with what became of them."""
    if isinstance(task, Segmentation):
        return _masks(task, reference, candidate, target if isinstance(target, Mask) else None)
    assert isinstance(task, Detection)
    return _boxes(task, reference, candidate, target if isinstance(target, Boxes) else None)


def _masks(task: Segmentation, reference: Outputs, candidate: Outputs, target: Mask | None) -> DrawnSample:
    first, second = (_small(task.found(outputs)) for outputs in (reference, candidate))
    pictures = {"reference": _coloured(first), "candidate": _coloured(second)}
    if target is not None:
        wanted = _small(target.labels)
        pictures["truth"] = _coloured(np.where(wanted == target.ignore, -1, wanted))
        difference = _judged(first, second, wanted, target.ignore)
    else:
        difference = (first != second).astype(np.int64)
    pictures["difference"] = _png(difference, (SAME_PIXEL, LOST, GAINED, OTHER))
    seen = sorted(int(kind) for kind in np.union1d(first, second))
    return DrawnSample(pictures=pictures, seen=tuple(seen), alike=float((first == second).mean()))


def picture(tensor: np.ndarray, preprocessing: Preprocessing | None) -> tuple[tuple[int, int], str | None]:
    """What the network saw of a sample: (height, width), and a small JPEG as data URL where it is an image.

    Args:
        tensor: without the axis of samples.
        preprocessing: how it was made of an image; None where nobody says.
    """
    if tensor.ndim != 3:
        return (1, 1), None
    pixels = tensor.astype(np.float64)
    if preprocessing is None or preprocessing.layout == "NCHW":
        pixels = pixels.transpose(1, 2, 0)
    size = (pixels.shape[0], pixels.shape[1])
    if preprocessing is not None:
        scale = 1 / 255 if preprocessing.scale is None else preprocessing.scale
        pixels = (pixels * np.asarray(preprocessing.std) + np.asarray(preprocessing.mean)) / scale
        pixels = pixels[..., ::-1] if preprocessing.mode == "BGR" else pixels
    elif pixels.shape[2] in (1, 3) and np.ptp(pixels):
        pixels = 255 * (pixels - pixels.min()) / np.ptp(pixels)
    if pixels.shape[2] not in (1, 3):
        return size, None
    image = Image.fromarray(np.repeat(pixels.clip(0, 255), 3 // pixels.shape[2], axis=2).round().astype(np.uint8))
    image.thumbnail((INPUT_SIDE, INPUT_SIDE))
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=82)
    return size, f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _judged(first: np.ndarray, second: np.ndarray, wanted: np.ndarray, ignore: int) -> np.ndarray:
    """0 alike or not judged, 1 lost, 2 gained, 3 unlike and both wrong."""
    counted = (first != second) & (wanted != ignore)
    return np.select([counted & (first == wanted), counted & (second == wanted), counted], [1, 2, 3], 0)


def _small(mask: np.ndarray) -> np.ndarray:
    """At most :data:`LONGEST_SIDE` pixels a side, by nearest neighbour."""
    step = max(1.0, max(mask.shape) / LONGEST_SIDE)
    rows, columns = ((np.arange(max(1, int(side / step))) * step).astype(int) for side in mask.shape)
    return mask[np.ix_(rows, columns)]


def _coloured(mask: np.ndarray) -> str:
    """Classes in their colours; -1 is what does not count."""
    return _png(np.where(mask < 0, len(COLOURS), mask % len(COLOURS)), (*COLOURS, _IGNORED))


def _png(indices: np.ndarray, colours: Sequence[str]) -> str:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([channel for colour in colours for channel in bytes.fromhex(colour[1:])])
    stream = io.BytesIO()
    image.save(stream, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _boxes(task: Detection, reference: Outputs, candidate: Outputs, target: Boxes | None) -> DrawnSample:
    first, second = task.found(reference), task.found(candidate)
    same = pairs(first, second)
    free = [np.setdiff1d(np.arange(len(side)), same[:, i]) for i, side in enumerate((first, second))]
    shifted = pairs(first.of(free[0]), second.of(free[1]), MOVED)
    boxes = [_box(task, second, int(j), "same") for _, j in same]
    for i, j in shifted.tolist():
        moved = _box(task, second, int(free[1][j]), "moved")
        boxes.append(replace(moved, moved_from=_rounded(first.xyxy[free[0][i]])))
    lost, new = (np.delete(rows, shifted[:, i]) for i, rows in enumerate(free))
    boxes += [_box(task, first, int(i), "lost") for i in lost] + [_box(task, second, int(j), "new") for j in new]
    strongest = max((box.score for box in boxes), default=0.0)
    clear = tuple(box for box in boxes if box.score >= WEAK * strongest)
    named = zip(target.xyxy, target.labels.tolist(), strict=True) if target is not None else ()
    return DrawnSample(
        boxes=clear,
        weak=len(boxes) - len(clear),
        alike=float(detection_agreement(agreeing(first, second))),
        truth=tuple(TrueBox(_rounded(box), task.name_of(kind)) for box, kind in named),
    )


def _box(task: Detection, found: Detections, index: int, state: State) -> DrawnBox:
    kind, score = task.name_of(int(found.classes[index])), round(float(found.scores[index]), 4)
    return DrawnBox(_rounded(found.xyxy[index]), kind, score, state)


def _rounded(box: np.ndarray) -> Xyxy:
    left, top, right, bottom = (round(float(value), 1) for value in box)
    return left, top, right, bottom
