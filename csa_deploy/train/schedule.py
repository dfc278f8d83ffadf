"""Counts of updates and the learning rate of each; plain arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from csa_deploy.errors import UsageError
from csa_deploy.train.recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """The updates of a training, numbered from 0.

    Attributes:
        per_epoch: updates per epoch.
        warmup: updates of linear warm-up.
        total: all updates.
        lr: peak learning rate, reached at update ``warmup``.
        min_lr: learning rate that the last update approaches.
    """

    per_epoch: int
    warmup: int
    total: int
    lr: float
    min_lr: float

    def rate(self, update: int) -> float:
        """Learning rate of an update: linear from 0, then half a cosine from ``lr`` to ``min_lr`` at the last one."""
        if update < self.warmup:
            return self.lr * update / self.warmup
        progress = (update - self.warmup) / max(self.total - 1 - self.warmup, 1)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def make_schedule(recipe: Recipe, images: int, global_batch: int) -> Schedule:
    """The schedule for a number of training images; what fills no global batch is left out of each epoch.

    1,281,167 images, global batch 4096 and 300 epochs give 312 updates per epoch, 93,600 in all and 6,240 of warm-up.

    Raises:
        UsageError: fewer images than one global batch.
    """
    per_epoch = images // global_batch
    if per_epoch == 0:
        raise UsageError(
            f"{images} training images do not fill one global batch of {global_batch}",
            fix="give --batch-size and --accumulate, whose product on all devices fits, or train on fewer devices",
        )
    return Schedule(
        per_epoch, round(recipe.warmup_epochs * per_epoch), recipe.epochs * per_epoch, recipe.lr, recipe.min_lr
    )


def batch_warning(recipe: Recipe, global_batch: int) -> str | None:
    """What to say when the learning rate is meant for another global batch, with the value scaled to this one."""
    if global_batch == recipe.global_batch:
        return None
    scaled = recipe.lr * global_batch / recipe.global_batch
    return (
        f"global batch {global_batch}, but lr {recipe.lr:g} is meant for {recipe.global_batch}; scaled linearly it "
        f"would be --lr {scaled:.3g}"
    )
