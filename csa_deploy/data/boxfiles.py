"""Boxes in one file per image: YOLO's text and Pascal VOC's XML."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.folder import images_below
from csa_deploy.data.masks import VOC, listed_in
from csa_deploy.data.samples import Sample
from csa_deploy.data.targets import Boxes, TargetReader, require_inside
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing
from csa_deploy.validation import read_mapping, read_xml

IMAGES, _LABELS = "images", "labels"
_NAMES = ("data.yaml", "dataset.yaml", "classes.txt")


@dataclass(frozen=True)
class YoloFile(TargetReader):
    """``class centre-x centre-y width height`` per line, in shares of the image; no file: no objects.

    A line with more numbers is a polygon (``class x1 y1 x2 y2 ...``), whose extent is the box.

    Attributes:
        classes: number of classes; None when unknown.
    """

    path: Path
    classes: int | None

    def check(self, size: tuple[int, int]) -> None:
        """It is read."""
        self.read(size)

    def read(self, size: tuple[int, int]) -> Boxes:
        """The boxes of an image of (height, width)."""
        text = self._content()
        try:
            lines = text.decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.path}: no text: {error}", fix="give one object per line") from error
        found = [self._line(number, line.split(), size) for number, line in enumerate(lines, 1) if line.strip()]
        boxes = np.asarray([box for _, box in found], dtype=np.float64).reshape(-1, 4)
        return Boxes(boxes, np.asarray([label for label, _ in found], dtype=np.int64))

    def _line(self, number: int, words: Sequence[str], size: tuple[int, int]) -> tuple[int, list[float]]:
        where = f"{self.path}: line {number}"
        try:
            label, numbers = int(words[0]), [float(word) for word in words[1:]]
        except ValueError as error:
            raise UsageError(f"{where}: {error}", fix="write class, centre x, centre y, width, height") from error
        polygon = len(numbers) >= 6 and len(numbers) % 2 == 0
        if not (len(numbers) == 4 or polygon) or not all(map(math.isfinite, numbers)):
            raise UsageError(
                f"{where}: a class and {len(numbers)} numbers", fix="write class, centre x, centre y, width, height"
            )
        if label < 0 or (self.classes is not None and label >= self.classes):
            known = "" if self.classes is None else f" of {self.classes}"
            raise UsageError(f"{where}: {label} is no class{known}", fix="classes are indices from 0")
        if polygon:
            shares = [min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])]
        else:
            x, y, width, height = numbers
            shares = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        box = [share * size[1 - axis % 2] for axis, share in enumerate(shares)]
        require_inside(where, box, size)
        return label, box

    def digest(self) -> bytes:
        """Of the file's bytes and the number of classes."""
        return hashlib.sha256(f"{self.classes}\0".encode() + self._content()).digest()

    def _content(self) -> bytes:
        return self.path.read_bytes() if self.path.is_file() else b""


def is_yolo(folder: Path) -> bool:
    """Whether it holds ``images`` and, with texts, ``labels``."""
    return (folder / IMAGES).is_dir() and (folder / _LABELS).is_dir() and any((folder / _LABELS).rglob("*.txt"))


def open_yolo(folder: Path, name: str, preprocessing: Preprocessing, part: str) -> ImageDataset:
    """``images/[PART/]NAME.jpg`` with ``labels/[PART/]NAME.txt``; classes are named by the network or ``data.yaml``.

    Raises:
        UsageError: no images, or names that cannot be read.
    """
    classes = _names(folder) or preprocessing.classes
    if preprocessing.classes and len(classes) != len(preprocessing.classes):
        raise UsageError(
            f"{folder}: {len(classes)} classes, but the network has {len(preprocessing.classes)}",
            fix="give data of the network's classes",
        )
    inside = part if (folder / IMAGES / part).is_dir() else "."
    images, labels = folder / IMAGES / inside, folder / _LABELS / inside
    files = images_below(images)
    if not files:
        raise UsageError(f"{images}: no images in this folder", fix="put images beside the labels")
    samples = [
        Sample(file, YoloFile((labels / file).with_suffix(".txt"), len(classes) or None), images / file)
        for file in files
    ]
    empty = [file for file in files if not (labels / file).with_suffix(".txt").is_file()]
    notes = []
    if empty:
        notes += [f"{len(empty)} of {len(files)} images have no text, so no object, the first is {empty[0]}"]
    known = {Path(file).with_suffix(".txt") for file in files}
    left = sorted(p.relative_to(labels) for p in labels.rglob("*.txt") if p.relative_to(labels) not in known)
    left = [path for path in left if path.name not in _NAMES]
    if left:
        notes += [f"{len(left)} texts without an image are left out, the first is {left[0]}"]
    return ImageDataset(name, samples, classes, preprocessing, "detection", notes=notes)


def _names(folder: Path) -> tuple[str, ...]:
    for path in [place / name for place in (folder, folder / _LABELS) for name in _NAMES]:
        if not path.is_file():
            continue
        if path.suffix == ".txt":
            return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        example = "write names: [cat, dog]"
        names = read_mapping(path, "description of YOLO data", example=example).get("names")
        if isinstance(names, dict):
            names = [names.get(index) for index in range(len(names))]
        if not isinstance(names, list) or not all(isinstance(name, (str, int, float)) for name in names):
            raise UsageError(f"{path}: no list 'names' of classes, numbered from 0", fix=example)
        return tuple(map(str, names))
    return ()


@dataclass(frozen=True)
class VocFile(TargetReader):
    """Pascal VOC's XML; its coordinates count from 1, and the last pixel belongs to the box.

    Attributes:
        classes: names in the order of their indices.
    """

    path: Path
    classes: tuple[str, ...]

    def check(self, size: tuple[int, int]) -> None:
        """It is read."""
        self.read(size)

    def read(self, size: tuple[int, int]) -> Boxes:
        """The boxes of an image of (height, width)."""
        root = _parsed(self.path)
        stated = root.find("size")
        if stated is not None:
            own = _number(self.path, "size", stated, "height"), _number(self.path, "size", stated, "width")
            if own != size:
                raise UsageError(
                    f"{self.path}: {own[1]:g}x{own[0]:g} pixels, but the image has {size[1]}x{size[0]}",
                    fix="give the image that was annotated",
                )
        boxes, labels, difficult = [], [], []
        for number, entry in enumerate(root.iter("object"), 1):
            where, named = f"object {number}", (entry.findtext("name") or "").strip()
            if named not in self.classes:
                raise UsageError(
                    f"{self.path}: {where}: '{named}' is none of the {len(self.classes)} classes",
                    fix="give a network that names its classes so",
                )
            corners = entry.find("bndbox")
            if corners is None:
                raise UsageError(f"{self.path}: {where}: has no bndbox", fix="give every object a box")
            left, top, right, bottom = (_number(self.path, where, corners, k) for k in ("xmin", "ymin", "xmax", "ymax"))
            box = (left - 1, top - 1, right, bottom)
            require_inside(f"{self.path}: {where}", box, size)
            boxes.append(box)
            labels.append(self.classes.index(named))
            difficult.append((entry.findtext("difficult") or "0").strip() == "1")
        return Boxes(
            np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
            np.asarray(labels, dtype=np.int64),
            difficult=np.asarray(difficult, dtype=bool),
        )

    def digest(self) -> bytes:
        """Of the file's bytes and the classes."""
        return hashlib.sha256(f"{self.classes}\0".encode() + self.path.read_bytes()).digest()


def open_voc_boxes(folder: Path, name: str, preprocessing: Preprocessing, part: str) -> ImageDataset:
    """``JPEGImages/NAME.jpg`` with ``Annotations/NAME.xml``: those of ``ImageSets/Main/PART.txt`` if it is there.

    Raises:
        UsageError: no annotations.
    """
    classes = preprocessing.classes or VOC
    stems = listed_in(folder / "ImageSets/Main" / f"{part}.txt")
    stems = stems or sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
    if not stems:
        raise UsageError(f"{folder}: no annotations", fix="put one .xml per image into Annotations")
    samples = [
        Sample(s, VocFile(folder / "Annotations" / f"{s}.xml", classes), folder / "JPEGImages" / f"{s}.jpg")
        for s in stems
    ]
    return ImageDataset(name, samples, classes, preprocessing, "detection")


def _parsed(path: Path) -> Element:
    return read_xml(path, "annotations", missing="give every image an annotation", broken="write the file again")


def _number(path: Path, where: str, element: Element, key: str) -> float:
    text = element.findtext(key)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{path}: {where}: {key} is {text!r}", fix="give a number")
    return value
