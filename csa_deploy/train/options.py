"""What a user may ask of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from csa_deploy.train.recipe import Recipe


@dataclass(frozen=True)
class TrainOptions:
    """What a user may ask of a training.

    Attributes:
        data: see :func:`csa_deploy.data.dataset.open_split`.
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
        init: weights to start from, as far as they fit by name and shape; None: from the seed alone.
        resume: checkpoint to go on from; None: ``last.ckpt`` in the output folder, if there is one.
        class_map: see :func:`csa_deploy.data.dataset.open_split`.
        evaluate_only: no training: classify the held-out images with what was trained so far.
        tensorboard: write the epochs' figures for TensorBoard, too.
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
    init: Path | None = None
    resume: Path | None = None
    class_map: Path | None = None
    evaluate_only: bool = False
    tensorboard: bool = False
