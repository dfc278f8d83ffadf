"""What a user may ask of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from csa_deploy.train.recipe import Recipe

MOST_PER_DEVICE = 128


@dataclass(frozen=True)
class TrainOptions:
    """What a user may ask of a training.

    Attributes:
        data: see :func:`csa_deploy.train.pictures.open_split`.
        output: folder for checkpoints, weights and results.
        recipe: all that decides about the outcome, with the seed.
        seed: of initialisation, order and augmentation.
        size: (height, width) of the input in pixels; None: the network's.
        batch_size: images per device and step; None: as fits the recipe's global batch, at most 128.
        accumulate: steps per update; None: as fits the recipe's global batch.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        devices: per node; None: all GPUs, or one process on a CPU (under torchrun and SLURM: what they started).
        nodes: machines; None: 1, or what torchrun and SLURM started.
        amp: bfloat16 mixed precision.
        sync_bn: BatchNorm over the batches of all devices.
        workers: processes that decode; None: none for small images, else the cores' share, at most 8.
        threads: CPU threads of torch; None: its default.
        evaluate_every: epochs between evaluations.
        resume: checkpoint to go on from; None: ``last.ckpt`` in the output folder, if there is one.
        class_map: see :func:`csa_deploy.train.pictures.open_split`.
        evaluate_only: no training: classify the held-out images with what was trained so far.
    """

    data: str
    output: Path
    recipe: Recipe
    seed: int = 0
    size: tuple[int, int] | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    accelerator: str = "auto"
    devices: int | None = None
    nodes: int | None = None
    amp: bool = False
    sync_bn: bool = True
    workers: int | None = None
    threads: int | None = None
    evaluate_every: int = 5
    resume: Path | None = None
    class_map: Path | None = None
    evaluate_only: bool = False


def batches(options: TrainOptions, world: int) -> tuple[int, int]:
    """Images per device and step, and steps per update."""
    share = options.recipe.global_batch // world
    if options.batch_size is None and options.accumulate is None and share * world == options.recipe.global_batch:
        steps = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= MOST_PER_DEVICE)
        return share // steps, steps
    accumulate = options.accumulate or max(1, round(share / (options.batch_size or MOST_PER_DEVICE)))
    return options.batch_size or max(1, share // accumulate), accumulate
