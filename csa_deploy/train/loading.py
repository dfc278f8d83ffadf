"""From pictures to batches: which image when, random crops, and what happens with unreadable files.

Nothing here keeps a random state: the order follows from the seed and the epoch, an image's crop from the seed, the
epoch and the image. So every rank and every resumed run knows its images without being told.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.geometry import geometry_of
from csa_deploy.data.images import FILTERS, fitted, to_array
from csa_deploy.data.samples import Endless, Sample
from csa_deploy.data.targets import Target
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing
from csa_deploy.train.task import task_of

Loaded = tuple[np.ndarray, Target, str, dict[str, str]]
"""Pixels (C, H, W), what is true of them, name, and why files before it could not be read."""
_WINDOW = 16  # shards whose images are mixed: reading stays nearly sequential, the order random


@dataclass(frozen=True)
class TrainBatch:
    """Images uint8 (n, C, H, W) or float32 (evaluation), labels, names, and the unreadable files met.

    Labels are class indices int64 (n,), classes of pixels int64 (n, H, W), or boxes float32 (n, most, 5) as left, top,
    right, bottom and class, where a class of -1 fills up.

    An ``error`` travels with its batch, from a worker to whoever takes it.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    unreadable: dict[str, str]
    error: str = ""

    def checked(self) -> TrainBatch:
        """The batch; raises UsageError when an image could not be read."""
        if self.error:
            raise UsageError(self.error, fix="replace or remove the file")
        return self

    def pin_memory(self) -> TrainBatch:
        """The batch in memory that a GPU copies from without waiting; the loader calls this."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


class TrainImages(Dataset):
    """Training images as uint8, cropped at random or whole, in the network's size.

    An unreadable image is replaced by the next readable one, and reported in the batch. Where images are made, each
    epoch has new ones, up to epoch ``crowded_epochs`` crowded ones.
    """

    def __init__(
        self,
        pictures: ImageDataset,
        preprocessing: Preprocessing,
        crop: tuple[float, float] | None,
        seed: int,
        crowded_epochs: float = 0,
    ) -> None:
        self.pictures, self.preprocessing, self.crop, self.seed = pictures, preprocessing, crop, seed
        self.crowded_epochs = crowded_epochs

    def __getitem__(self, key: tuple[int, int]) -> Loaded | UsageError:
        """(pixels (C, H, W), target, name, unreadable) for an (epoch, index); an error is returned, see ``collate``."""
        epoch, first = key
        unreadable: dict[str, str] = {}
        count, samples = len(self.pictures), self.pictures.samples
        if isinstance(samples, Endless):
            samples = samples.of_epoch(epoch, crowded=epoch < self.crowded_epochs)
        for index in ((first + step) % count for step in range(min(count, 100))):
            sample = samples[index]
            try:
                image, target = _opened(sample)
            except UsageError as error:
                unreadable[sample.id] = error.message
                continue
            image = image.convert(self.preprocessing.decoded)
            height, width = self.preprocessing.size
            if isinstance(target, int):
                box = self._box(image.width, image.height, (self.seed, epoch, index))
                image = image.resize((width, height), FILTERS[self.preprocessing.interpolation], box=box)
            else:
                target = geometry_of(self.preprocessing, (image.height, image.width)).target(target)
                image = fitted(image, self.preprocessing)
            pixels = np.asarray(image).reshape(height, width, self.preprocessing.channels)
            return pixels.transpose(2, 0, 1), target, sample.id, unreadable
        return UsageError(f"100 images in a row cannot be read, the first: {next(iter(unreadable.values()))}")

    def _box(self, width: int, height: int, seed: tuple[int, int, int]) -> tuple[float, float, float, float]:
        """The part of an image to use: drawn by area and aspect ratio as Inception does, else the largest centre."""
        target = self.preprocessing.size[1] / self.preprocessing.size[0]
        if self.crop is not None:
            random = np.random.default_rng(seed)
            for _ in range(10):
                area = width * height * random.uniform(*self.crop)
                ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
                w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
                if w <= width and h <= height:
                    left, top = random.uniform(0, width - w), random.uniform(0, height - h)
                    return left, top, left + w, top + h
        # Without random crops training sees what deployment sees.
        share = self.preprocessing.crop if self.crop is None else 1.0
        w, h = share * min(width, height * target), share * min(height, width / target)
        return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


class EvaluationImages(Dataset):
    """Held-out images, preprocessed as in deployment; an unreadable one ends the evaluation with its name."""

    def __init__(self, pictures: ImageDataset, preprocessing: Preprocessing) -> None:
        self.pictures, self.preprocessing = pictures, preprocessing

    def __getitem__(self, index: int) -> Loaded | UsageError:
        """(float32 (C, H, W), target, name, nothing unreadable); an error is returned, see ``collate``."""
        sample = self.pictures.samples[index]
        try:
            image, target = _opened(sample)
            target = geometry_of(self.preprocessing, (image.height, image.width)).target(target)
            return to_array(image, self.preprocessing), target, sample.id, {}
        except UsageError as error:
            return error


def _opened(sample: Sample) -> tuple[Image.Image, Target]:
    """Image of a sample, and what is true of it."""
    image = sample.image()
    target = sample.read_target((image.height, image.width))
    assert target is not None  # a split is labelled
    return image, target


class UpdateOrder:
    """Batches of one rank: of every global batch in the epoch's order, each rank takes its share.

    Args:
        per_device: images per device and step.
        accumulate: steps per update.
        rank: this process.
        world: number of processes.
    """

    def __init__(
        self, pictures: ImageDataset, per_device: int, accumulate: int, rank: int, world: int, seed: int
    ) -> None:
        self.pictures, self.seed = pictures, seed
        self.per_device, self.accumulate, self.rank, self.world = per_device, accumulate, rank, world
        self.first_update = 0
        self.last_update = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Steps from ``first_update`` up to ``last_update``, as lists of (epoch, index)."""
        size = self.per_device * self.accumulate * self.world
        per_epoch = len(self.pictures) // size
        order, ordered = np.empty(0, dtype=np.int64), -1
        for update in range(self.first_update, self.last_update):
            epoch, position = divmod(update, per_epoch)
            if epoch != ordered:
                order, ordered = self.order(epoch), epoch
            part = order[position * size : (position + 1) * size]
            for step in part.reshape(self.accumulate, self.world, self.per_device)[:, self.rank]:
                yield [(epoch, int(index)) for index in step]

    def order(self, epoch: int) -> np.ndarray:
        """All indices in the order of an epoch; images in shards are mixed within windows of shards."""
        random = np.random.default_rng((self.seed, epoch))
        count, shards = len(self.pictures), self.pictures.shards
        if shards is None:
            return random.permutation(count)
        window = random.permutation(int(shards.max()) + 1)[shards] // _WINDOW
        return np.lexsort((random.random(count), window))


def collate(read: list[Loaded | UsageError]) -> TrainBatch:
    """Stack samples; of a batch with an error only that is kept. Raised in a worker, it would come with a traceback."""
    samples = [sample for sample in read if not isinstance(sample, UsageError)]
    if len(samples) < len(read):
        error = next(sample for sample in read if isinstance(sample, UsageError))
        return TrainBatch(torch.empty(0), torch.empty(0), (), {}, error.message)
    unreadable: dict[str, str] = {}
    for sample in samples:
        unreadable.update(sample[3])
    return TrainBatch(
        torch.from_numpy(np.stack([s[0] for s in samples])),
        task_of(samples[0][1]).stacked([s[1] for s in samples]),
        tuple(s[2] for s in samples),
        unreadable,
    )


def train_loader(images: TrainImages, order: UpdateOrder, workers: int) -> DataLoader:
    """Training batches; ``workers`` processes decode ahead (0: in this process)."""
    return DataLoader(images, batch_sampler=order, collate_fn=collate, num_workers=workers, **_ahead(workers))


def evaluation_loader(images: EvaluationImages, batch: int, rank: int, world: int, workers: int) -> DataLoader:
    """Every ``world``-th held-out image: all ranks together see each exactly once."""
    return DataLoader(
        images,
        batch_size=batch,
        sampler=range(rank, len(images.pictures), world),
        collate_fn=collate,
        num_workers=workers,
        **_ahead(workers),
    )


def _ahead(workers: int) -> dict[str, Any]:
    ahead: dict[str, Any] = {}
    if workers:
        # Not forked from here: this process runs threads, and a fork copies their locks.
        _start_server_deaf_to_sigterm()
        ahead = {"multiprocessing_context": "forkserver", "prefetch_factor": 4, "worker_init_fn": _outlive_one_sigterm}
    return {**ahead, "pin_memory": torch.cuda.is_available()}


def _start_server_deaf_to_sigterm() -> None:
    """Start the process that workers are forked from; it and they inherit that SIGTERM waits.

    A scheduler may send SIGTERM to all processes of a job, at any moment of a worker's start. The server ends with this
    process.
    """
    resource_tracker.ensure_running()  # the server needs it, and its start would let SIGTERM through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outlive_one_sigterm(_: int) -> None:
    """Images are needed until the training has stopped; a second SIGTERM is the loader's, which ends its workers."""
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
