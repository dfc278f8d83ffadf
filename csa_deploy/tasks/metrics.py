"""Metrics of segmentation and detection, as :mod:`csa_deploy.metrics.task` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from csa_deploy.tasks import segmentation
from csa_deploy.tasks.detection import Precision, detection_agreement
from csa_deploy.tasks.rows import unpacked
from csa_deploy.tasks.task import Detection, Outputs, Segmentation

DROPS = {"fp32": 0.001, "fp16": 0.005, "int8": 0.01}
"""What a precision may lose by default; FP32 graphs differ by the order of their sums only."""


class MeanIoU:
    """Mean intersection over union of all classes that are in a mask or were found, over the pixels of all samples."""

    name, unit, heading, additive = "mean_iou", "share", "mean IoU", True
    default_bounds = DROPS

    def __init__(self, task: Segmentation | None = None) -> None:
        self.task = task or Segmentation()
        self.threshold = self.task.threshold

    def update(self, outputs: Outputs, target: Any) -> np.ndarray:
        """Pixels per class: right, true, found."""
        return self.task.counts(outputs, target).ravel()

    def reduce(self, rows: np.ndarray) -> float:
        """Of the sums; 0 where no pixel counts."""
        return float(np.nan_to_num(segmentation.mean_iou(rows.sum(axis=0).reshape(3, -1))))


class AveragePrecision:
    """COCO's average precision, the mean over classes and over overlaps of 0.5 to 0.95."""

    name, unit, heading = "map", "share", "mAP"
    default_bounds: Mapping[str, float] = DROPS
    ious = slice(None)

    def __init__(self, task: Detection | None = None) -> None:
        self.task = task or Detection()

    def update(self, outputs: Outputs, target: Any) -> np.ndarray:
        """What each box matches."""
        return self.task.row(outputs, target)

    def reduce(self, rows: np.ndarray) -> float:
        """Of all samples; 0 where there is no object."""
        return float(self.resample(rows, np.ones((1, len(rows))))[0])

    def resample(self, rows: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Of samples that are each taken so many times (resamples, samples): no box is matched anew."""
        found = Precision([unpacked(row) for row in rows])
        return np.nan_to_num(found.mean(times=times, ious=self.ious))


class AveragePrecision50(AveragePrecision):
    """Average precision at an overlap of 0.5 alone, as Pascal VOC counts."""

    name, heading = "map50", "mAP@0.5"
    default_bounds: Mapping[str, float] = {}
    ious = slice(0, 1)


class DetectionAgreement:
    """Share of all boxes, of reference and candidate, that the other side has with the same class and an IoU of 0.9.

    A box that is lost and one that is new count alike. A sample on which neither side has a box agrees fully, and
    weighs nothing in the share of all samples.
    """

    name, unit, heading, additive, against = "detection_agreement", "share", "same boxes as {}", True, "reference"

    def __init__(self, task: Detection | None = None) -> None:
        self.task = task or Detection()

    def update(self, outputs: Outputs, target: Outputs) -> np.ndarray:
        """Boxes in pairs, and all."""
        return self.task.agreeing(outputs, target)

    def reduce(self, rows: np.ndarray) -> float:
        """Of the sums."""
        return float(detection_agreement(rows.sum(axis=0)))
