"""COCO's JSON: boxes of objects, and their masks.

https://cocodataset.org/#format-data. ``bbox`` is left, top, width, height in pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.samples import Sample
from csa_deploy.data.targets import BACKGROUND, IGNORE, Boxes, Mask, TargetReader, require_inside
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.network import Preprocessing, Task


@dataclass(frozen=True)
class CocoTarget(TargetReader):
    """The annotations of one image.

    Attributes:
        where: file and entry, for messages.
        size: (height, width) that the file states.
        annotations: of the image, as in the file.
        indices: class index by category id.
        task: whether boxes or a mask are wanted.
    """

    where: str
    size: tuple[int, int]
    annotations: Sequence[Mapping[str, Any]]
    indices: Mapping[int, int]
    task: Task

    def check(self, size: tuple[int, int]) -> None:
        """The size alone: the annotations were checked when the file was read."""
        if size != self.size:
            raise UsageError(
                f"{self.where}: {self.size[1]}x{self.size[0]} pixels, but the image has {size[1]}x{size[0]}",
                fix="give the images that were annotated",
            )

    def read(self, size: tuple[int, int]) -> Mask | Boxes:
        """Boxes; or the mask, in which 0 is what no object covers, and 255 a crowd or several classes."""
        self.check(size)
        labels = [self.indices[a["category_id"]] for a in self.annotations]
        if self.task == "segmentation":
            return self._mask(labels)
        sides = np.asarray([a["bbox"] for a in self.annotations], dtype=np.float64).reshape(-1, 4)
        return Boxes(
            np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1),
            np.asarray(labels, dtype=np.int64),
            crowd=np.asarray([bool(a.get("iscrowd")) for a in self.annotations], dtype=bool),
            areas=np.asarray([a.get("area", a["bbox"][2] * a["bbox"][3]) for a in self.annotations]),
        )

    def _mask(self, labels: Sequence[int]) -> Mask:
        from pycocotools import mask as coco_masks

        height, width = self.size
        mask = np.zeros(self.size, dtype=np.uint8)
        for annotation, label in zip(self.annotations, labels, strict=True):
            shape: Any = annotation.get("segmentation")
            try:
                if isinstance(shape, list):
                    encoded = coco_masks.merge(coco_masks.frPyObjects(shape, height, width))
                elif isinstance(shape["counts"], list):
                    encoded = coco_masks.frPyObjects(shape, height, width)
                else:
                    encoded = shape
                covered = coco_masks.decode(encoded).astype(bool)
            except Exception as error:  # of C code, with no promise which
                raise UsageError(
                    f"{self.where}: annotation {annotation['id']}: no readable segmentation: {error}",
                    fix="give polygons or run lengths as COCO does",
                ) from error
            if covered.shape != self.size:
                raise UsageError(
                    f"{self.where}: annotation {annotation['id']}: a mask of another size than its image",
                    fix="correct its segmentation",
                )
            other = covered & (mask != 0) & (mask != label)
            mask[covered] = IGNORE if annotation.get("iscrowd") else label
            mask[other] = IGNORE
        return Mask(mask)

    def digest(self) -> bytes:
        """Of the annotations and the classes."""
        content = json.dumps([self.size, list(self.annotations), sorted(self.indices.items()), self.task])
        return hashlib.sha256(content.encode()).digest()


def open_coco(path: Path, name: str, preprocessing: Preprocessing, task: Task = "detection") -> ImageDataset:
    """The images of a COCO file, those without objects too.

    Classes are the network's by name, else the categories in the order of their ids; for masks after ``background``.

    Raises:
        UsageError: with the entry, for an id twice, an unknown image or category, a box that is none, or no images.
        EnvironmentLacksError: masks are wanted, and pycocotools is not installed.
    """
    data = _parsed(path)
    images, annotations, categories = (_by_id(path, data, key) for key in ("images", "annotations", "categories"))
    if not images:
        raise UsageError(f"{path}: holds no images", fix="give a file with images")
    indices, classes = _classes(path, categories, preprocessing.classes, task)
    if task == "segmentation":
        _require_masks(len(classes))
    objects: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for place, annotation in annotations.values():
        where = f"{path}: annotations[{place}] (id {annotation['id']})"
        for key, known in (("image_id", images), ("category_id", categories)):
            if annotation.get(key) not in known:
                raise UsageError(f"{where}: {key} {annotation.get(key)!r} is not in the file", fix="correct the entry")
        image = images[annotation["image_id"]][1]
        _check_box(where, annotation, image)
        objects[annotation["image_id"]].append(annotation)
    folder = _folder(path, [image for _, image in images.values()])
    samples = []
    for number, (place, image) in images.items():
        where = f"{path}: images[{place}] (id {number}, {image['file_name']})"
        target = CocoTarget(where, (image["height"], image["width"]), objects[number], indices, task)
        samples.append(Sample(image["file_name"], target, folder / image["file_name"]))
    empty = [image["file_name"] for number, (_, image) in images.items() if not objects[number]]
    notes = [f"{len(empty)} of {len(images)} images have no object, the first is {empty[0]}"] if empty else []
    return ImageDataset(name, samples, classes, preprocessing, task, notes=notes)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path}: line {error.lineno}, column {error.colno}: {error.msg}", fix="give a COCO file of annotations"
        ) from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read: {error}", fix="give a COCO file of annotations") from error
    missing = [
        k for k in ("images", "annotations", "categories") if not isinstance(data, dict) or not _entries(data, k)
    ]
    if missing:
        raise UsageError(f"{path}: has no list '{missing[0]}'", fix="give a COCO file of annotations")
    return data


def _entries(data: Mapping[str, Any], key: str) -> bool:
    return isinstance(data.get(key), list) and all(isinstance(entry, dict) for entry in data[key])


_NEEDED: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "annotations": {"id": int, "image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}


def _by_id(path: Path, data: Mapping[str, Any], key: str) -> dict[int, tuple[int, dict[str, Any]]]:
    """Entries with their places, by id."""
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    for place, entry in enumerate(data[key]):
        for name, kind in _NEEDED[key].items():
            if not isinstance(entry.get(name), kind):
                raise UsageError(f"{path}: {key}[{place}]: {name} is {entry.get(name)!r}", fix=f"give {kind.__name__}")
        if entry["id"] in found:
            raise UsageError(
                f"{path}: {key}[{place}]: id {entry['id']} is that of {key}[{found[entry['id']][0]}] too",
                fix="give every entry an id of its own",
            )
        found[entry["id"]] = place, entry
    twice = Counter(str(entry.get("file_name")) for _, entry in found.values() if key == "images")
    for name, count in twice.most_common(1):
        if count > 1:
            raise UsageError(f"{path}: images: {name} is there {count} times", fix="list each image once")
    return found


def _check_box(where: str, annotation: Mapping[str, Any], image: Mapping[str, Any]) -> None:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
        raise UsageError(f"{where}: bbox is {box!r}", fix="give left, top, width, height")
    if not _is_number(annotation.get("area", 0)):
        raise UsageError(f"{where}: area is {annotation['area']!r}", fix="give square pixels")
    left, top, width, height = box
    require_inside(where, (left, top, left + width, top + height), (image["height"], image["width"]))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _classes(
    path: Path, categories: Mapping[int, tuple[int, Mapping[str, Any]]], named: Sequence[str], task: Task
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Class index by category id, and the names of the classes."""
    names = {number: entry["name"] for number, (_, entry) in sorted(categories.items())}
    if not named:
        first = [BACKGROUND] if task == "segmentation" else []
        return {n: i + len(first) for i, n in enumerate(names)}, (*first, *names.values())
    for number, name in names.items():
        if name not in named:
            place = categories[number][0]
            raise UsageError(
                f"{path}: categories[{place}]: {name} is none of the network's {len(named)} classes",
                fix="name the categories as the network's classes",
            )
    return {number: list(named).index(name) for number, name in names.items()}, tuple(named)


def _require_masks(classes: int) -> None:
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise EnvironmentLacksError(
            "masks of a COCO file need pycocotools, which is not installed", fix="pip install pycocotools"
        ) from error
    if classes > IGNORE:
        raise UsageError(f"{classes} classes are more than a mask holds", fix=f"give at most {IGNORE}")


def _folder(path: Path, images: Iterable[Mapping[str, Any]]) -> Path:
    """Where the images lie: beside the file, or as in COCO's own folders (``instances_val2017`` -> ``val2017``)."""
    first, part = next(iter(images))["file_name"], path.stem.rpartition("_")[2]
    places = [
        base / inside
        for base in (path.parent, path.parent.parent)
        for inside in (".", part, "images", f"images/{part}")
    ]
    for place in places:
        if (place / first).is_file():
            return place
    raise UsageError(
        f"{path}: its first image, {first}, is not in {', '.join(str(place) for place in places)}",
        fix="put the images there",
    )
