"""Where training images come from: named sets, folders by class, and tar shards, each with random access."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from csa_deploy.data.dataset import open_dataset
from csa_deploy.data.folder import training_classes
from csa_deploy.data.images import SUFFIXES, decode
from csa_deploy.data.named import NAMED
from csa_deploy.data.shards import read_shard, shards_in
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing


class Pictures(Protocol):
    """Labelled images by index.

    Attributes:
        labels: class index of each, int64.
        shards: index of the file that each image shares with its neighbours, int64; None: each has its own.
    """

    labels: np.ndarray
    shards: np.ndarray | None

    def name(self, index: int) -> str:
        """What to call an image in messages."""

    def image(self, index: int) -> Image.Image:
        """The decoded image; raises UsageError when it cannot be read."""


@dataclass(frozen=True)
class Split:
    """The images to train on and, if there are any, those to evaluate on."""

    train: Pictures
    held_out: Pictures | None


class NamedPictures:
    """A named data set, held in memory by its reader."""

    shards: np.ndarray | None = None

    def __init__(self, name: str, preprocessing: Preprocessing) -> None:
        dataset = open_dataset(name, preprocessing)
        assert dataset.labels is not None
        self.labels, self._samples = dataset.labels, dataset.samples  # type: ignore[attr-defined]

    def name(self, index: int) -> str:
        """See :class:`Pictures`."""
        return self._samples[index].id

    def image(self, index: int) -> Image.Image:
        """See :class:`Pictures`."""
        return self._samples[index].image()


class FolderPictures:
    """One sub-folder per class; opens no file before its turn, so that large sets start at once."""

    shards: np.ndarray | None = None

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        self.folder = folder
        labels: list[int] = []
        self._files: list[str] = []
        for label, name in enumerate(classes):
            found = sorted(
                p.relative_to(folder).as_posix() for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES
            )
            self._files += found
            labels += [label] * len(found)
        self.labels = np.asarray(labels, dtype=np.int64)

    def name(self, index: int) -> str:
        """See :class:`Pictures`."""
        return self._files[index]

    def image(self, index: int) -> Image.Image:
        """See :class:`Pictures`."""
        path = self.folder / self._files[index]
        return decode(path, path)


class ShardPictures:
    """WebDataset shards, see :mod:`csa_deploy.data.shards`.

    Each image can be read by itself: every rank sees exactly its share, and a training resumes in the middle of an
    epoch.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        rows = [(shard, *sample) for shard, file in enumerate(files) for sample in read_shard(file)]
        self.shards: np.ndarray | None = np.asarray([row[0] for row in rows], dtype=np.int64)
        self._members = [row[1] for row in rows]
        self.labels = np.asarray([row[2] for row in rows], dtype=np.int64)

    def name(self, index: int) -> str:
        """See :class:`Pictures`."""
        return str(self._members[index])

    def image(self, index: int) -> Image.Image:
        """See :class:`Pictures`."""
        member = self._members[index]
        return decode(io.BytesIO(member.read()), str(member))


def open_split(spec: str, preprocessing: Preprocessing, class_map: Path | None = None) -> Split:
    """Find the images of a training.

    Args:
        spec: a named set with a training part (``digits``), or a folder with ``train`` and, if there is one, ``val``,
            each with one sub-folder per class or with tar shards.
        preprocessing: the network's; its class names, where it has any, decide the labels.
        class_map: text file whose first word per line is a class's folder, in label order; ``class_map.txt`` in the
            folder when it is there. Without one and without class names: the sorted sub-folders of ``train``.

    Raises:
        UsageError: no such data, no images, or folders that are no classes.
        EnvironmentLacksError: the package that holds a named set is not installed.
    """
    if f"{spec}:train" in NAMED:
        return Split(NamedPictures(f"{spec}:train", preprocessing), NamedPictures(spec, preprocessing))
    root = Path(spec)
    if not (root / "train").is_dir():
        trainable = ", ".join(name.removesuffix(":train") for name in NAMED if name.endswith(":train"))
        raise UsageError(
            f"{spec}: neither a data set to train on nor a folder with a sub-folder 'train'",
            fix=f"give a folder with train/ and val/, or one of {trainable}",
        )
    classes = training_classes(root, preprocessing.classes, class_map)
    held_out = _open_folder(root / "val", classes) if (root / "val").is_dir() else None
    return Split(_open_folder(root / "train", classes), held_out)


def _open_folder(folder: Path, classes: tuple[str, ...]) -> Pictures:
    shards = shards_in(folder)
    foreign = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in classes)
    if not shards and foreign and not foreign[0].startswith("."):
        raise UsageError(f"{folder / foreign[0]}: none of the {len(classes)} classes", fix="correct the class map")
    pictures: Pictures = ShardPictures(shards) if shards else FolderPictures(folder, classes)
    if not len(pictures.labels):
        raise UsageError(f"{folder}: no labelled images", fix=f"images are files named *{', *'.join(SUFFIXES)}")
    return pictures
