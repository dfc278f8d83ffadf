"""What a training says about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Accuracy:
    """Counts over all held-out images, each once.

    Attributes:
        top1: images whose label is the strongest class.
        top5: images whose label is among the five strongest; None with five classes or fewer, where that says nothing.
        samples: all of them.
    """

    top1: int
    top5: int | None
    samples: int

    @property
    def shares(self) -> dict[str, float]:
        """``top1``, and ``top5`` where it is counted, as shares of 1."""
        counts = {"top1": self.top1, "top5": self.top5}
        return {name: count / self.samples for name, count in counts.items() if count is not None}

    @property
    def right(self) -> str:
        """What decides which weights are better, in words."""
        return f"{self.top1} of the held-out images right"

    def to_json(self) -> dict[str, Any]:
        """JSON form, with the shares."""
        return {**asdict(self), **{f"{name}_share": share for name, share in self.shares.items()}}


@dataclass(frozen=True)
class Figures:
    """Figures of segmentation or detection over all held-out images, each once.

    Attributes:
        shares: by name, as shares of 1 (``mean_iou``; ``map`` and ``map50``); the first one decides.
        samples: images.
    """

    shares: dict[str, float]
    samples: int

    @property
    def right(self) -> str:
        """What decides which weights are better, in words."""
        name, share = next(iter(self.shares.items()))
        return f"{name} {100 * share:.2f} %"

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {**self.shares, "samples": self.samples}


Score = Accuracy | Figures
"""What an evaluation found; the first of its ``shares`` decides."""


@dataclass(frozen=True)
class Average:
    """The average of the weights, as it is.

    Attributes:
        decay: per update.
        warmup: whether the decay grew up to that.
        first_share: share that the weights after the first update have in it.
    """

    decay: float
    warmup: bool
    first_share: float


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
    accuracy: dict[str, Score]


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
        average: of the weights; None where none is kept.
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
    accuracy: dict[str, Score]
    average: Average | None
    unreadable: dict[str, str]
    weights: dict[str, Path]
    not_done: tuple[str, ...]
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return self.updates == self.total

    @property
    def best(self) -> str:
        """The weights to deploy: those that did better on the held-out images, of equal ones the average.

        Without an evaluation the average, where there is one.
        """
        names = ["model_ema", "model"] if self.average else ["model"]
        return max(
            names, key=lambda name: next(iter(self.accuracy[name].shares.values())) if name in self.accuracy else 0
        )

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
            "average": asdict(self.average) if self.average else None,
            "deploy": self.best,
            "unreadable": self.unreadable,
            "weights": {name: path.name for name, path in self.weights.items()},
            "not_done": list(self.not_done),
        }
