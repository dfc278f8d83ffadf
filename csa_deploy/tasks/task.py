"""A task: how one sample's outputs and its target are read, and the metrics that follow.

Outputs come by name, without the axis of samples; see :class:`csa_deploy.metrics.task.TaskMetric`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from csa_deploy.boxes import Detections, Postprocessing, suppress
from csa_deploy.data.targets import Boxes, Mask
from csa_deploy.errors import UsageError
from csa_deploy.tasks import segmentation
from csa_deploy.tasks.decoding import Decode
from csa_deploy.tasks.detection import Objects, agreeing, match
from csa_deploy.tasks.rows import MOST_BOXES, packed

Outputs = Mapping[str, np.ndarray]
Found = TypeVar("Found")
Kind = Literal["segmentation", "detection"]
_REMEMBERED = 4  # both sides of the sample in hand, for every metric, and those of the one before


@dataclass
class Task(Generic[Found]):
    """What the outputs of a network mean.

    Attributes:
        classes: names in the order of the network's classes; empty where nobody states them.
    """

    kind: ClassVar[Kind]
    classes: tuple[str, ...] = ()
    _found: dict[int, tuple[Outputs, Found]] = field(default_factory=dict, init=False, repr=False)

    def found(self, outputs: Outputs) -> Found:
        """What the network says about a sample; several metrics ask of the same outputs."""
        key = id(outputs)
        if key not in self._found or self._found[key][0] is not outputs:
            for old in list(self._found)[: len(self._found) - _REMEMBERED + 1]:
                del self._found[old]
            self._found[key] = outputs, self._read(outputs)
        return self._found[key][1]

    def _read(self, outputs: Outputs) -> Found:
        raise NotImplementedError

    def name_of(self, index: int) -> str:
        """Of a class."""
        return self.classes[index] if index < len(self.classes) else f"class {index}"


@dataclass
class Segmentation(Task[np.ndarray]):
    """The class of every pixel; a single probability gives class 1 from :attr:`threshold` on.

    Attributes:
        threshold: of a single probability.
        output: whose map it is; empty where the network has a single map.
    """

    kind = "segmentation"
    threshold: float = 0.5
    output: str = ""

    def scores(self, outputs: Outputs) -> np.ndarray:
        """The map, with an axis of one sample."""
        maps = [name for name, array in outputs.items() if array.ndim == 3 or (array.ndim == 2 and name == self.output)]
        name = self.output or (maps[0] if len(maps) == 1 else "")
        if name not in outputs:
            listed = ", ".join(f"{n} {a.shape}" for n, a in outputs.items())
            raise UsageError(
                f"segmentation needs one map (classes, H, W) of a sample; there are {listed}",
                fix="compare a network with one map",
            )
        return outputs[name][None]

    def count(self, outputs: Outputs) -> int:
        """Number of classes."""
        return segmentation.class_count(self.scores(outputs)) or len(self.classes)

    def _read(self, outputs: Outputs) -> np.ndarray:
        try:
            return segmentation.classes_of(self.scores(outputs), self.threshold)[0]
        except ValueError as error:
            raise UsageError(f"segmentation: {error}", fix="compare a network with one map") from error

    def counts(self, outputs: Outputs, target: Any) -> np.ndarray:
        """Pixels per class of what is true and of what was found, (3, classes)."""
        if not isinstance(target, Mask):
            raise UsageError(
                f"a {type(target).__name__} is no mask", fix="give data with masks, and --task segmentation"
            )
        try:
            return segmentation.counts(target.labels, self.found(outputs), self.count(outputs), target.ignore)
        except ValueError as error:
            raise UsageError(f"segmentation: {error}", fix="check the masks and the network's classes") from error


@dataclass
class Detection(Task[Detections]):
    """Boxes with classes, by a network's own post-processing or by a user's function.

    Attributes:
        decode: makes boxes of the outputs.
        score_threshold: boxes with a lower score are dropped; None: as ``decode`` has it.
        nms_iou: overlap above which the weaker box of a class is dropped; None: as ``decode`` has it.
    """

    kind = "detection"
    decode: Postprocessing | Decode | None = None
    score_threshold: float | None = None
    nms_iou: float | None = None

    def _read(self, outputs: Outputs) -> Detections:
        if self.decode is None:
            raise UsageError(
                "detection needs to know how outputs become boxes",
                fix="name a function with --decode heads.py:decode, or let the network state its postprocessing",
            )
        if not isinstance(self.decode, Postprocessing):
            found = self.decode(outputs)
            if self.score_threshold is not None:
                found = found.of(np.flatnonzero(found.scores >= self.score_threshold))
            return (found if self.nms_iou is None else suppress(found, self.nms_iou)).strongest(MOST_BOXES)
        try:
            how = self.decode.with_thresholds(score_threshold=self.score_threshold, nms_iou=self.nms_iou)
            (found,) = how({name: array[None] for name, array in outputs.items()})
        except ValueError as error:
            raise UsageError(f"post-processing: {error}", fix="state the network's postprocessing anew") from error
        return found.strongest(MOST_BOXES)

    def row(self, outputs: Outputs, target: Any) -> np.ndarray:
        """What of the boxes found is right, see :func:`csa_deploy.tasks.detection.match`; of a fixed length."""
        return packed(match(objects(target), self.found(outputs)))

    def agreeing(self, candidate: Outputs, reference: Outputs) -> np.ndarray:
        """Boxes that both sides have, and all boxes."""
        return agreeing(self.found(reference), self.found(candidate))


def objects(target: Any) -> Objects:
    """The boxes of a target, for matching."""
    if not isinstance(target, Boxes):
        raise UsageError(
            f"a {type(target).__name__} is no set of boxes", fix="give data with boxes, and --task detection"
        )
    return Objects(target.xyxy, target.labels, target.crowd, target.crowd | target.difficult, target.areas)
