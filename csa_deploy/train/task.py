"""What a training differs in by its task: the form of the targets, the loss, and the figures of an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from csa_deploy import boxes
from csa_deploy.accuracy import RANKS, Accuracy, ranks_of
from csa_deploy.data.base import ImageDataset
from csa_deploy.data.targets import BACKGROUND, Boxes, Mask, Target, Task
from csa_deploy.tasks import detection, segmentation
from csa_deploy.train.losses import detection_loss, segmentation_loss
from csa_deploy.train.result import Figures, Score

Outputs = Tensor | Mapping[str, Tensor]
"""What a network returns: one tensor, or several by name."""


class TrainTask(ABC):
    """A task that networks are trained for.

    Attributes:
        name: as a data set names it.
        fix: which outputs it takes, in words.
    """

    name: ClassVar[Task]
    fix: ClassVar[str]

    @abstractmethod
    def classes(self, outputs: Outputs) -> int | None:
        """Number of classes of a network with these outputs; None when it is no network of this task."""

    @abstractmethod
    def stacked(self, targets: Sequence[Any]) -> Tensor:
        """The targets of a batch as one tensor, see :class:`csa_deploy.train.loading.TrainBatch`."""

    @abstractmethod
    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The loss of a batch; of a classification the targets are soft, (n, classes)."""

    @abstractmethod
    def rows(self, outputs: Any, targets: Tensor) -> list[np.ndarray]:
        """What an evaluation keeps of a batch."""

    @abstractmethod
    def score(self, rows: Sequence[np.ndarray]) -> Score:
        """The figures over all rows of an evaluation."""


class Classification(TrainTask):
    """One class per image; logits (n, classes)."""

    name: ClassVar[Task] = "classification"
    fix = "train networks that return logits (n, classes)"

    def classes(self, outputs: Outputs) -> int | None:
        """See :class:`TrainTask`."""
        return outputs.shape[1] if isinstance(outputs, Tensor) and outputs.ndim == 2 else None

    def stacked(self, targets: Sequence[int]) -> Tensor:
        """int64 (n,)."""
        return torch.tensor(targets)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(outputs, targets)

    def rows(self, outputs: Tensor, targets: Tensor) -> list[np.ndarray]:
        """One: classes, images, and for each rank the images whose label is among so many strongest outputs."""
        classes = outputs.shape[1]
        right = outputs.topk(min(max(RANKS), classes)).indices == targets[:, None]
        return [np.asarray([classes, len(targets), *(int(right[:, :k].sum()) for k in ranks_of(classes))])]

    def score(self, rows: Sequence[np.ndarray]) -> Accuracy:
        """Top-1 and, of more than five classes, top-5."""
        classes = int(rows[0][0])
        _, samples, *hits = np.sum(rows, axis=0).tolist()
        return Accuracy(samples, classes, dict(zip(ranks_of(classes), hits, strict=True)))


@dataclass(frozen=True)
class SegmentationTraining(TrainTask):
    """A class per pixel; logits (n, classes, H, W).

    Attributes:
        background: index of the class that is no object; None: there is none.
    """

    background: int | None = None
    name: ClassVar[Task] = "segmentation"
    fix: ClassVar[str] = "train networks that return logits (n, classes, height, width)"

    def classes(self, outputs: Outputs) -> int | None:
        """See :class:`TrainTask`."""
        return outputs.shape[1] if isinstance(outputs, Tensor) and outputs.ndim == 4 else None

    def stacked(self, targets: Sequence[Mask]) -> Tensor:
        """int64 (n, H, W); -1 where a pixel does not count."""
        return torch.from_numpy(
            np.stack([np.where(mask.labels == mask.ignore, -1, mask.labels.astype(np.int64)) for mask in targets])
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy and Dice."""
        return segmentation_loss(outputs, targets, self.background)

    def rows(self, outputs: Tensor, targets: Tensor) -> list[np.ndarray]:
        """Counts of each image."""
        found = segmentation.classes_of(outputs.cpu().numpy())
        pairs = zip(targets.cpu().numpy(), found, strict=True)
        return [segmentation.counts(wanted, mask, outputs.shape[1], ignore=-1) for wanted, mask in pairs]

    def score(self, rows: Sequence[np.ndarray]) -> Figures:
        """Mean IoU over the classes, from the pixels of all images."""
        return Figures({"mean_iou": float(segmentation.mean_iou(np.sum(rows, axis=0)))}, len(rows))


class DetectionTraining(TrainTask):
    """Boxes; per level ``logits_S`` and ``distances_S``, see :func:`csa_deploy.train.losses.detection_loss`."""

    name: ClassVar[Task] = "detection"
    fix = "train networks that return per stride S logits_S (n, classes, h, w) and distances_S (n, 4, h, w)"

    def classes(self, outputs: Outputs) -> int | None:
        """See :class:`TrainTask`."""
        if not isinstance(outputs, Mapping):
            return None
        strides = [name.removeprefix("logits_") for name in outputs if name.startswith("logits_")]
        whole = {f"{kind}_{stride}" for kind in ("logits", "distances") for stride in strides} == set(outputs)
        return outputs[f"logits_{strides[0]}"].shape[1] if strides and whole else None

    def stacked(self, targets: Sequence[Boxes]) -> Tensor:
        """float32 (n, most, 5): left, top, right, bottom, class; a class of -1 fills up."""
        rows = torch.full((len(targets), max(map(len, targets)), 5), -1.0)
        for row, found in zip(rows, targets, strict=True):
            row[: len(found)] = torch.from_numpy(np.column_stack([found.xyxy, found.labels]))
        return rows

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """Quality focal loss and GIoU."""
        return detection_loss(outputs, targets[..., :4], targets[..., 4].long())

    def rows(self, outputs: Mapping[str, Tensor], targets: Tensor) -> list[np.ndarray]:
        """What each image's boxes matched."""
        return [
            detection.match(_objects(wanted), found)
            for wanted, found in zip(targets.cpu().numpy(), decoded(outputs), strict=True)
        ]

    def score(self, rows: Sequence[np.ndarray]) -> Figures:
        """COCO's AP, and AP at an IoU of 0.5."""
        precision = detection.Precision(list(rows))
        mean, half = precision.mean(), precision.mean(ious=slice(0, 1))
        return Figures({"map": float(mean[0]), "map50": float(half[0])}, len(rows))


def decoded(outputs: Mapping[str, Tensor]) -> list[boxes.Detections]:
    """The boxes of a batch, for COCO's average precision: of low scores too."""
    strides = tuple(int(name.removeprefix("logits_")) for name in outputs if name.startswith("logits_"))
    scores, distances = (tuple(f"{kind}_{stride}" for stride in strides) for kind in ("logits", "distances"))
    read = boxes.Postprocessing(scores, distances, strides, score_threshold=0.01)
    return read({name: values.cpu().numpy() for name, values in outputs.items()})


def _objects(rows: np.ndarray) -> detection.Objects:
    rows = rows[rows[:, 4] >= 0].astype(np.float64)
    no = np.zeros(len(rows), dtype=bool)
    return detection.Objects(rows[:, :4], rows[:, 4].astype(np.int64), no, no, boxes.areas(rows[:, :4]))


TRAINED_TASKS: dict[Task, TrainTask] = {
    task.name: task for task in (Classification(), SegmentationTraining(), DetectionTraining())
}


def task_for(data: ImageDataset) -> TrainTask:
    """The task of a data set, which knows its background where a class is named so."""
    task = TRAINED_TASKS[data.task]
    known = BACKGROUND in data.classes and isinstance(task, SegmentationTraining)
    return SegmentationTraining(data.classes.index(BACKGROUND)) if known else task


def task_of(target: Target) -> TrainTask:
    """The task that has such targets."""
    dense: Task = "segmentation" if isinstance(target, Mask) else "detection"
    return TRAINED_TASKS["classification" if isinstance(target, int) else dense]


def leaves(outputs: Outputs) -> Iterator[Tensor]:
    """The tensors of a network's outputs."""
    yield from [outputs] if isinstance(outputs, Tensor) else outputs.values()
