"""Folders of images: one sub-folder per class, or a flat folder without labels."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from csa_deploy.data.base import Chooser, ImageDataset, Sample
from csa_deploy.data.images import SUFFIXES, check_image
from csa_deploy.data.shards import read_shard
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


def open_shards(
    folder: Path, shards: Sequence[Path], name: str, preprocessing: Preprocessing, choose: Chooser
) -> ImageDataset:
    """A data set over tar shards.

    Raises:
        UsageError: a shard that cannot be read, no sample, or a chosen image that is none.
    """
    found = [sample for shard in shards for sample in read_shard(shard)]
    if not found:
        raise UsageError(f"{folder}: no labelled images in its shards", fix="a sample is key.jpg and key.cls")
    chosen = [found[i] for i in choose(len(found))]
    for image, _ in chosen:
        check_image(io.BytesIO(image.read()), f"{image.file}:{image.name}")
    samples = [Sample(str(image), label, image) for image, label in chosen]
    return ImageDataset(name, samples, preprocessing.classes, preprocessing)


def open_folder(
    folder: Path, name: str, preprocessing: Preprocessing, choose: Chooser, classes: Sequence[str] = ()
) -> ImageDataset:
    """A data set over ``folder``; hidden files and files that are no images by suffix are passed over.

    Sub-folders are classes. The given ``classes`` decide the label, else a ``class_map.txt`` in the folder, else the
    names of the network's classes; else the labels count the sub-folders in sorted order (also those without images).
    Images straight in the folder have no label.

    Raises:
        UsageError: no image, images both in the folder and in sub-folders, a sub-folder that is no class of the
            network, or a chosen file that is no image.
    """
    flat = _images(folder.iterdir())
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    by_class = {sub.name: _images(sub.rglob("*")) for sub in subfolders}
    if flat and any(by_class.values()):
        raise UsageError(
            f"{folder}: holds images itself ({flat[0].name}) and in sub-folders ({subfolders[0].name}), "
            "so it is unclear whether the sub-folders are classes",
            fix="move the images into the sub-folders of their classes, or all into one folder",
        )
    if flat:
        files: list[tuple[Path, int | None]] = [(path, None) for path in flat]
        classes = preprocessing.classes
    else:
        mapped = read_class_map(folder / CLASS_MAP) if (folder / CLASS_MAP).is_file() else ()
        named = classes or mapped or preprocessing.classes
        classes = named or tuple(by_class)
        if not named and sum(map(bool, by_class.values())) == 1:
            raise UsageError(
                f"{folder}: one sub-folder with images ({next(n for n, p in by_class.items() if p)}): as a class it "
                "would make every label 0",
                fix="give a sub-folder per class, or name the sub-folder itself for images without labels",
            )
        labels = {n: _label(n, classes, folder) for n, paths in by_class.items() if paths}
        files = [(path, label) for n, label in labels.items() for path in by_class[n]]
    if not files:
        raise UsageError(f"{folder}: no images in this folder", fix=f"images are files named *{', *'.join(SUFFIXES)}")
    chosen = [files[i] for i in choose(len(files))]
    for path, _ in chosen:
        check_image(path)
    samples = [Sample(path.relative_to(folder).as_posix(), label, path) for path, label in chosen]
    return ImageDataset(name, samples, classes, preprocessing)


def _images(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())


def _label(folder_name: str, classes: Sequence[str], folder: Path) -> int:
    if folder_name in classes:
        return list(classes).index(folder_name)
    near = nearest(folder_name, classes)
    raise UsageError(
        f"{folder / folder_name}: '{folder_name}' is none of the network's {len(classes)} classes",
        fix=f"name the sub-folders as the classes; nearest: {near[0]}"
        if near
        else f"classes: {', '.join(classes[:12])}",
    )
