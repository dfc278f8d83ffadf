"""What a training will do, from its recipe, its number of images and its devices: plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from csa_deploy.data.dataset import open_split
from csa_deploy.network import Preprocessing
from csa_deploy.train.devices import processes
from csa_deploy.train.options import TrainOptions
from csa_deploy.train.schedule import Schedule, batch_warning, make_schedule

MOST_PER_DEVICE = 128


@dataclass(frozen=True)
class TrainPlan:
    """The batches and updates of a training.

    Attributes:
        per_device: images per device and step.
        accumulate: steps per update.
        world: devices in all.
        epochs: passes over the images.
        schedule: of the learning rate.
        warning: what to say when the recipe's learning rate is meant for another global batch.
    """

    images: int
    per_device: int
    accumulate: int
    world: int
    epochs: int
    schedule: Schedule
    warning: str | None

    @property
    def global_batch(self) -> int:
        """Images per update."""
        return self.per_device * self.accumulate * self.world

    @property
    def text(self) -> str:
        """One line for people."""
        s = self.schedule
        return (
            f"{self.images:,} images, global batch {self.global_batch:,} ({self.per_device} per device x "
            f"{self.accumulate} steps x {self.world} devices): {s.per_epoch:,} updates per epoch, {s.total:,} in "
            f"{self.epochs} epochs, {s.warmup:,} of them warm-up; lr {s.lr:g}, then a cosine to {s.min_lr:g}"
        )


def plan_for(options: TrainOptions, images: int, world: int) -> TrainPlan:
    """The plan for a number of training images on a number of devices.

    Raises:
        UsageError: fewer images than one global batch.
    """
    per_device, accumulate = batches(options, world)
    size = per_device * accumulate * world
    schedule = make_schedule(options.recipe, images, size)
    warning = batch_warning(options.recipe, size)
    return TrainPlan(images, per_device, accumulate, world, options.recipe.epochs, schedule, warning)


def plan(options: TrainOptions, preprocessing: Preprocessing, images: int | None) -> TrainPlan:
    """The plan without starting anything; ``images`` None: as many as the data have."""
    devices, nodes = processes(options)
    if images is None:
        images = len(open_split(options.data, preprocessing, options.class_map).train)
    return plan_for(options, images, devices * nodes)


def batches(options: TrainOptions, world: int) -> tuple[int, int]:
    """Images per device and step, and steps per update."""
    share = options.recipe.global_batch // world
    if options.batch_size is None and options.accumulate is None and share * world == options.recipe.global_batch:
        steps = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= MOST_PER_DEVICE)
        return share // steps, steps
    accumulate = options.accumulate or max(1, round(share / (options.batch_size or MOST_PER_DEVICE)))
    return options.batch_size or max(1, share // accumulate), accumulate
