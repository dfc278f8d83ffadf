"""What a training says about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Accuracy:
    """Counts over all held-out images, each once."""

    top1: int
    top5: int
    samples: int

    def share(self, name: str) -> float:
        """``top1`` or ``top5`` as a share of 1."""
        return getattr(self, name) / self.samples

    def to_json(self) -> dict[str, Any]:
        """JSON form, with the shares."""
        return {**asdict(self), "top1_share": self.share("top1"), "top5_share": self.share("top5")}


@dataclass(frozen=True)
class EpochSummary:
    """One line of a training's log.

    Attributes:
        epoch: epochs done.
        epochs: epochs in all.
        loss: mean training loss of the epoch, over all devices.
        lr: learning rate of its last update.
        images_per_second: over all devices, evaluation and checkpoints not counted.
        waiting: share of the time in which the device waited for images.
        accuracy: by weights (``model``, ``model_ema``); empty when this epoch was not evaluated.
    """

    epoch: int
    epochs: int
    loss: float
    lr: float
    images_per_second: float
    waiting: float
    accuracy: dict[str, Accuracy]


@dataclass(frozen=True)
class TrainResult:
    """The end of a training, whole or stopped.

    Attributes:
        network: registry name.
        data: as given.
        settings: all that decides about the outcome.
        updates: updates done.
        total: updates of the whole training.
        warmup: of them in the warm-up.
        accuracy: by weights (``model``, ``model_ema``).
        unreadable: reason by file, for the training images that could not be read.
        weights: safetensors files by weights; none of an evaluation alone.
        not_done: what was not done, and why.
        measured: seconds, images per second and share of waiting; differ from run to run.
    """

    network: str
    data: str
    settings: dict[str, Any]
    updates: int
    total: int
    warmup: int
    accuracy: dict[str, Accuracy]
    unreadable: dict[str, str]
    weights: dict[str, Path]
    not_done: tuple[str, ...]
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return self.updates == self.total

    def evaluation(self) -> dict[str, Any]:
        """JSON form of an evaluation alone: it knows nothing of the schedule that the weights were trained with."""
        kept = ("schema_version", "network", "data", "updates", "accuracy", "not_done")
        return {key: value for key, value in self.to_json().items() if key in kept}

    def to_json(self) -> dict[str, Any]:
        """JSON form without the measurements: the same for the same training."""
        return {
            "schema_version": 1,
            "network": self.network,
            "data": self.data,
            "settings": self.settings,
            "updates": self.updates,
            "total": self.total,
            "warmup": self.warmup,
            "finished": self.finished,
            "accuracy": {name: accuracy.to_json() for name, accuracy in self.accuracy.items()},
            "unreadable": self.unreadable,
            "weights": {name: path.name for name, path in self.weights.items()},
            "not_done": list(self.not_done),
        }
