"""What a training says about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from csa_deploy.accuracy import RANKS, Accuracy


@dataclass(frozen=True)
class Figures:
    """Figures of segmentation or detection over all held-out images, each once.

    Attributes:
        shares: by name, as shares of 1 (``mean_iou``; ``map`` and ``map50``); the first one decides.
    """

    shares: dict[str, float]
    samples: int

    @property
    def right(self) -> str:
        """What decides which weights are better, in words."""
        name, share = next(iter(self.shares.items()))
        return f"{name} {100 * share:.2f} %"


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
            "accuracy": {name: _to_json(score) for name, score in self.accuracy.items()},
            "average": asdict(self.average) if self.average else None,
            "deploy": self.best,
            "unreadable": self.unreadable,
            "weights": {name: path.name for name, path in self.weights.items()},
            "not_done": list(self.not_done),
        }


def _to_json(accuracy: Score) -> dict[str, Any]:
    """JSON form of figures, or of counts over the held-out images with the shares; None is not counted."""
    if isinstance(accuracy, Figures):
        return {**accuracy.shares, "samples": accuracy.samples}
    tops = {f"top{k}": accuracy.hits.get(k) for k in RANKS}
    return {**tops, "samples": accuracy.samples, **{f"{name}_share": share for name, share in accuracy.shares.items()}}
