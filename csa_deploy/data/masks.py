"""Masks as images beside images: Cityscapes, Pascal VOC, and folders ``images`` and ``masks``."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.folder import images_below
from csa_deploy.data.images import check_image, open_image
from csa_deploy.data.samples import Sample
from csa_deploy.data.targets import IGNORE, Mask, TargetReader
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

TABLE = "labels.csv"
CITYSCAPES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
"""The 19 classes that are evaluated, in the order of their trainId."""
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# cityscapesscripts/helpers/labels.py: ids 0 to 33; those without a trainId are not judged.
CITYSCAPES_IDS = {i: _CITYSCAPES_IDS.index(i) if i in _CITYSCAPES_IDS else IGNORE for i in range(34)}
VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_MASK_MODES = ("1", "L", "P", "I;16", "I")


@dataclass(frozen=True)
class LabelTable:
    """What the numbers in the masks of a data set mean.

    Attributes:
        classes: names in the order of their indices; empty when unknown.
        indices: class index, or :data:`IGNORE`, by number; None: numbers are class indices, and 255 is not judged.
    """

    classes: tuple[str, ...] = ()
    indices: dict[int, int] | None = None

    def lookup(self, ids: np.ndarray, where: Path) -> Mask:
        """The mask of label ids (H, W); raises UsageError for an id without a meaning."""
        known = self.indices
        if known is None:
            if not self.classes:
                return Mask(ids)
            known = {**{i: i for i in range(len(self.classes))}, IGNORE: IGNORE}
        table = np.full(1 << 16, -1, dtype=np.int32)
        for number, index in known.items():
            table[number] = index
        labels = table[ids.clip(0, len(table) - 1)]
        unknown = (labels < 0) | (ids < 0) | (ids >= len(table))
        if unknown.any():
            row, column = np.argwhere(unknown)[0].tolist()
            raise UsageError(
                f"{where}: row {row}, column {column} has the label id {ids[row, column]}, which is no class",
                fix=f"correct the mask, or list the id in {TABLE} with the columns id,name,index",
            )
        return Mask(labels.astype(np.uint8) if max(known.values()) <= IGNORE else labels)


@dataclass(frozen=True)
class MaskFile(TargetReader):
    """A mask in an image file of one channel."""

    path: Path
    table: LabelTable

    def check(self, size: tuple[int, int]) -> None:
        """Its header is read."""
        own = check_image(self.path)
        if own != size:
            raise UsageError(
                f"{self.path}: the mask has {own[1]}x{own[0]} pixels, its image {size[1]}x{size[0]}",
                fix="give masks of the size of their images",
            )

    def read(self, size: tuple[int, int]) -> Mask:
        """The mask of an image of (height, width)."""
        self.check(size)
        try:
            with open_image(self.path, self.path) as image:
                if image.mode not in _MASK_MODES:
                    raise UsageError(
                        f"{self.path}: a mask is one number per pixel, this is a {image.mode} image",
                        fix="save class indices, as mode L or P",
                    )
                ids = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise UsageError(f"{self.path}: cannot be read as a mask: {error}", fix="replace the file") from error
        return self.table.lookup(ids.astype(np.uint8) if ids.dtype == bool else ids, self.path)

    def digest(self) -> bytes:
        """Of the file's bytes and the table."""
        return hashlib.sha256(f"{self.table}\0".encode() + self.path.read_bytes()).digest()


def read_table(path: Path) -> LabelTable:
    """A table with the columns ``id``, ``name`` and ``index``; an empty index or 255: not judged.

    Raises:
        UsageError: with the line, for what is no number, an id twice, or indices with a gap.
    """
    indices: dict[int, int] = {}
    names: dict[int, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if missing := {"id", "name", "index"} - set(reader.fieldnames or ()):
                raise UsageError(f"{path}: has no column {min(missing)}", fix="name the columns id,name,index")
            for row in reader:
                number, index = int(row["id"]), int(row["index"] or IGNORE)
                if not 0 <= number < 1 << 16 or index < 0:
                    raise UsageError(f"{path}: line {reader.line_num}: ids and indices are from 0", fix="correct it")
                if number in indices:
                    raise UsageError(f"{path}: line {reader.line_num}: id {number} is there twice", fix="keep one")
                indices[number] = index
                if index != IGNORE:
                    names.setdefault(index, row["name"])
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: line {reader.line_num}: {error}", fix="write numbers in id and index") from error
    except (OSError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read: {error}", fix="give a comma-separated text") from error
    if sorted(names) != list(range(len(names))) or not names:
        raise UsageError(f"{path}: class indices {sorted(names)} are not 0, 1, 2, ...", fix="number the classes from 0")
    return LabelTable(tuple(names[i] for i in range(len(names))), indices)


def open_cityscapes(folder: Path, name: str, preprocessing: Preprocessing, part: str) -> ImageDataset:
    """``leftImg8bit/PART/CITY/*_leftImg8bit.png`` with ``gtFine/PART/CITY/*_gtFine_labelIds.png``.

    Masks of trainIds (``*_labelTrainIds.png``) are taken where there are no others.
    """
    root = folder / "leftImg8bit"
    table = _table(folder, LabelTable(CITYSCAPES, CITYSCAPES_IDS))
    samples = []
    for file in images_below(root / part if (root / part).is_dir() else root):
        inside = f"{part}/{file}" if (root / part).is_dir() else file
        stem = (folder / "gtFine" / inside).with_name(Path(inside).stem.removesuffix("_leftImg8bit"))
        mask = stem.with_name(f"{stem.name}_gtFine_labelIds.png")
        train_ids = stem.with_name(f"{stem.name}_gtFine_labelTrainIds.png")
        used = MaskFile(mask, table)
        if not mask.is_file() and train_ids.is_file():
            used = MaskFile(train_ids, LabelTable(table.classes))
        samples.append(_with_mask(inside, root / inside, used))
    return _segmentation(folder, name, samples, table, preprocessing)


def open_voc_masks(folder: Path, name: str, preprocessing: Preprocessing, part: str) -> ImageDataset:
    """``JPEGImages/*.jpg`` with ``SegmentationClass/*.png``, as ``ImageSets/Segmentation/PART.txt`` lists them."""
    table = _table(folder, LabelTable(("background", *VOC)))
    listed = listed_in(folder / "ImageSets/Segmentation" / f"{part}.txt")
    masks = folder / "SegmentationClass"
    stems = listed or [Path(file).stem for file in images_below(masks)]
    samples = [
        _with_mask(stem, folder / "JPEGImages" / f"{stem}.jpg", MaskFile(masks / f"{stem}.png", table))
        for stem in stems
    ]
    return _segmentation(folder, name, samples, table, preprocessing)


def open_masks(folder: Path, name: str, preprocessing: Preprocessing, part: str) -> ImageDataset:
    """``images/[PART/]NAME.jpg`` with ``masks/[PART/]NAME.png``, whose numbers ``labels.csv`` may explain."""
    table = _table(folder, LabelTable(preprocessing.classes))
    inside = part if (folder / "images" / part).is_dir() else "."
    samples = [
        _with_mask(
            file,
            folder / "images" / inside / file,
            MaskFile((folder / "masks" / inside / file).with_suffix(".png"), table),
        )
        for file in images_below(folder / "images" / inside)
    ]
    return _segmentation(folder, name, samples, table, preprocessing)


def listed_in(path: Path) -> list[str]:
    """The first word of each line; none where there is no such file."""
    if not path.is_file():
        return []
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _table(folder: Path, usual: LabelTable) -> LabelTable:
    return read_table(folder / TABLE) if (folder / TABLE).is_file() else usual


def _with_mask(identity: str, image: Path, mask: MaskFile) -> Sample:
    if not mask.path.is_file():
        raise UsageError(f"{image}: has no mask: {mask.path} is not there", fix="add the mask, or remove the image")
    return Sample(identity, mask, image)


def _segmentation(
    folder: Path, name: str, samples: Sequence[Sample], table: LabelTable, preprocessing: Preprocessing
) -> ImageDataset:
    if not samples:
        raise UsageError(f"{folder}: no images with masks", fix="see docs/data.md for the layouts")
    if preprocessing.classes and table.classes and len(preprocessing.classes) != len(table.classes):
        raise UsageError(
            f"{folder}: {len(table.classes)} classes, but the network has {len(preprocessing.classes)}",
            fix=f"map the label ids to the network's classes in {TABLE}",
        )
    classes = preprocessing.classes or table.classes
    return ImageDataset(name, samples, classes, preprocessing, "segmentation")
