"""Folders of images: one sub-folder per class, a flat folder without labels, or tar shards."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.images import SUFFIXES
from csa_deploy.data.samples import LabelledFiles
from csa_deploy.data.shards import read_shard, shards_in
from csa_deploy.errors import UsageError
from csa_deploy.naming import nearest
from csa_deploy.network import Preprocessing

CLASS_MAP = "class_map.txt"
logger = logging.getLogger(__name__)


def split_of(folder: Path, classes: Sequence[str]) -> Path | None:
    """The folder of a training (``train`` beside ``val``) that a folder is or that it is the ``val`` of; else None."""
    if {"train", "val"} & set(classes):
        return None
    root = folder.resolve().parent if folder.resolve().name == "val" else folder
    return root if all((root / name).is_dir() for name in ("train", "val")) else None


def training_classes(root: Path, named: Sequence[str], class_map: Path | None = None) -> tuple[str, ...]:
    """The classes of a folder for training in label order, as the training and every evaluation count them.

    Args:
        root: has a sub-folder ``train``.
        named: the network's class names.
        class_map: a file; None: ``class_map.txt`` in the folder, if it is there.

    Raises:
        UsageError: the map cannot be read, or a folder is none of the network's classes while others are.
    """
    if class_map is None and (root / CLASS_MAP).is_file():
        class_map = root / CLASS_MAP
    if class_map is not None:
        return read_class_map(class_map)
    found = tuple(sorted(p.name for p in (root / "train").iterdir() if p.is_dir() and not p.name.startswith(".")))
    foreign = [name for name in found if name not in named]
    if not foreign:
        return tuple(named)
    if len(foreign) < len(found):  # some are the network's classes, so this one is misspelt or too many
        near = nearest(foreign[0], named)
        raise UsageError(
            f"{root / 'train' / foreign[0]}: none of the network's {len(named)} classes",
            fix=f"rename it; nearest: {near[0]}" if near else f"give a {CLASS_MAP}",
        )
    if named:
        logger.warning("%s: its folders are other classes than the network's; labels follow their sorted names", root)
    return found


def read_class_map(path: Path) -> tuple[str, ...]:
    """The first word of each line, which is a class's folder.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a readable class map: {error}", fix="one class folder per line") from error
    return tuple(line.split()[0] for line in lines if line.strip())


def open_images(
    folder: Path, name: str, preprocessing: Preprocessing, classes: Sequence[str] = (), lenient: bool = False
) -> ImageDataset:
    """The images of a folder: of its tar shards where it holds nothing else, else its files.

    Hidden files and files that are no images by suffix are passed over. Sub-folders are classes. The given ``classes``
    decide label and order, else a ``class_map.txt`` in the folder, else the names of the network's classes decide the
    label; else the labels count the sub-folders in sorted order (also those without images). Images straight in the
    folder have no label. Leniently, a folder may mix levels, and only folders named as a class of the network are one.

    Raises:
        UsageError: a shard that cannot be read, no image, images both in the folder and in sub-folders, or a sub-folder
            that is no class.
    """
    shards = shards_in(folder) or (shards_in(folder / "train") if lenient and (folder / "train").is_dir() else ())
    if shards:
        return _of_shards(folder, shards, name, preprocessing)
    if lenient:
        files = images_below(folder)
        known = {name: label for label, name in enumerate(preprocessing.classes)}
        labels = [known.get(PurePosixPath(file).parts[0]) for file in files]
    else:
        files, labels, classes = _by_class(folder, classes, preprocessing.classes)
    if not files:
        raise UsageError(f"{folder}: no images in this folder", fix=f"images are files named *{', *'.join(SUFFIXES)}")
    return ImageDataset(name, LabelledFiles(files, labels, folder), classes or preprocessing.classes, preprocessing)


def images_below(folder: Path) -> list[str]:
    """Paths of all images below a folder, folder by folder; asks the system about no file by itself."""
    found: list[tuple[str, ...]] = []
    for place, _, files in os.walk(folder):
        inside = Path(place).relative_to(folder).parts
        found += [(*inside, file) for file in files if _is_image(file)]
    return ["/".join(parts) for parts in sorted(found)]


def _is_image(file: str) -> bool:
    return file.lower().endswith(SUFFIXES) and not file.startswith(".")


def _of_shards(folder: Path, shards: Sequence[Path], name: str, preprocessing: Preprocessing) -> ImageDataset:
    found = [(number, *sample) for number, shard in enumerate(shards) for sample in read_shard(shard)]
    if not found:
        raise UsageError(f"{folder}: no labelled images in its shards", fix="a sample is key.jpg and key.cls")
    numbers, images, labels = zip(*found, strict=True)
    files = LabelledFiles(images, labels)
    return ImageDataset(name, files, preprocessing.classes, preprocessing, shards=np.asarray(numbers, dtype=np.int64))


def _by_class(
    folder: Path, classes: Sequence[str], named: Sequence[str]
) -> tuple[list[str], list[int | None], Sequence[str]]:
    """Files, labels and classes of a folder with one sub-folder per class, or without any."""
    subfolders = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = {name: images_below(folder / name) for name in subfolders}
    flat = sorted(p.name for p in folder.iterdir() if _is_image(p.name) and p.is_file())
    if flat and any(files.values()):
        raise UsageError(
            f"{folder}: holds images itself ({flat[0]}) and in sub-folders ({subfolders[0]}), "
            "so it is unclear whether the sub-folders are classes",
            fix="move the images into the sub-folders of their classes, or all into one folder",
        )
    if flat:
        return flat, [None] * len(flat), named
    mapped = read_class_map(folder / CLASS_MAP) if (folder / CLASS_MAP).is_file() else ()
    known = classes or mapped or named
    if not known and sum(map(bool, files.values())) == 1:
        raise UsageError(
            f"{folder}: one sub-folder with images ({next(n for n, below in files.items() if below)}): as a class it "
            "would make every label 0",
            fix="give a sub-folder per class, or name the sub-folder itself for images without labels",
        )
    known = known or tuple(subfolders)
    labels = {name: _label(name, known, folder) for name, below in files.items() if below}
    order = sorted(labels, key=labels.__getitem__) if classes else list(labels)
    pairs = [(f"{name}/{file}", labels[name]) for name in order for file in files[name]]
    return [file for file, _ in pairs], [label for _, label in pairs], known


def _label(folder_name: str, classes: Sequence[str], folder: Path) -> int:
    if folder_name in classes:
        return list(classes).index(folder_name)
    near = nearest(folder_name, classes)
    raise UsageError(
        f"{folder / folder_name}: none of the {len(classes)} classes",
        fix=f"name the sub-folders as the classes, or correct the class map; nearest: {near[0]}"
        if near
        else f"classes: {', '.join(classes[:12])}",
    )
