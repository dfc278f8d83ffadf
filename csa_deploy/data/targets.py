"""What is true of an image: its class, the class of each pixel, or boxes with classes."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.network import Task as Task

IGNORE = 255
"""Class index of pixels that count neither as right nor as wrong, unless a data set names another."""
BACKGROUND = "background"
"""Name of the class of pixels that are of no object."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The class of every pixel.

    Attributes:
        labels: class indices, integers of shape (H, W).
        ignore: the index of pixels that are not judged.

    Raises:
        ValueError: another type or shape.
    """

    labels: np.ndarray
    ignore: int = IGNORE

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype.kind not in "iu":
            raise ValueError(f"a mask is (H, W) integers, not {self.labels.dtype} of shape {self.labels.shape}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    def digest(self) -> bytes:
        """SHA-256 of the pixels' classes, whatever integer type holds them."""
        return hashlib.sha256(f"mask {self.size} {self.ignore}\0".encode() + _bytes(self.labels, np.int64)).digest()


@dataclass(frozen=True, eq=False)
class Boxes:
    """Objects: where they are, and what. No object at all is a valid target.

    Coordinates are pixels of the image as it is stored, counted from the outer edge of the first pixel: a box over the
    whole image is (0, 0, width, height).

    Attributes:
        xyxy: left, top, right, bottom, float64 of shape (n, 4).
        labels: class indices, int64 of shape (n,).
        crowd: bool of shape (n,): one box around many objects, which COCO matches to any number of detections.
        difficult: bool of shape (n,): neither to be found nor wrong when found (Pascal VOC).
        areas: of the objects in square pixels, float64 of shape (n,): of their masks where the data have them, else
            of the boxes. COCO sorts objects into small, medium and large by it.

    Raises:
        ValueError: shapes that do not fit one another.
    """

    xyxy: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    difficult: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        boxes = np.asarray(self.xyxy, dtype=np.float64).reshape(-1, 4)
        count = len(boxes)
        sides = boxes[:, 2:] - boxes[:, :2]
        rows = {
            "labels": np.asarray(self.labels, dtype=np.int64),
            "crowd": np.asarray(self.crowd, dtype=bool) if len(self.crowd) else np.zeros(count, dtype=bool),
            "difficult": np.asarray(self.difficult, dtype=bool) if len(self.difficult) else np.zeros(count, dtype=bool),
            "areas": np.asarray(self.areas, dtype=np.float64) if len(self.areas) else sides.prod(axis=1),
        }
        for name, values in rows.items():
            if values.shape != (count,):
                raise ValueError(f"{count} boxes have {name} of shape {values.shape}")
        for name, values in {"xyxy": boxes, **rows}.items():
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.xyxy)

    def digest(self) -> bytes:
        """SHA-256 of all fields."""
        digest = hashlib.sha256(f"boxes {len(self)}\0".encode())
        for values, kind in (
            (self.xyxy, np.float64),
            (self.labels, np.int64),
            (self.crowd, np.uint8),
            (self.difficult, np.uint8),
            (self.areas, np.float64),
        ):
            digest.update(_bytes(values, kind))
        return digest.digest()


Target = int | Mask | Boxes
"""A class index, a mask, or boxes."""


class TargetReader(ABC):
    """Reads a mask or boxes when it is their turn."""

    @abstractmethod
    def check(self, size: tuple[int, int]) -> None:
        """Find early what a glance finds; raises UsageError when the target is not of an image of (height, width)."""

    @abstractmethod
    def read(self, size: tuple[int, int]) -> Mask | Boxes:
        """The target of an image of (height, width) pixels; raises UsageError with file and line or entry."""

    @abstractmethod
    def digest(self) -> bytes:
        """SHA-256 of all that decides it."""


def _bytes(array: np.ndarray, kind: type) -> bytes:
    return np.ascontiguousarray(array, dtype=np.dtype(kind).newbyteorder("<")).tobytes()


def require_inside(where: str, box: Sequence[float], size: tuple[int, int]) -> None:
    """Refuse a box (left, top, right, bottom) that is inverted or leaves its image by more than a pixel.

    A pixel, because data sets round coordinates, and some count them from 1.
    """
    left, top, right, bottom = box
    height, width = size
    if not all(map(math.isfinite, box)):
        raise UsageError(f"{where}: the box {tuple(box)} is not finite", fix="correct the box")
    text = f"({', '.join(f'{value:g}' for value in box)})"
    if right < left or bottom < top:
        raise UsageError(f"{where}: the box {text} is inverted", fix="left and top come first")
    if min(left, top) < -1 or right > width + 1 or bottom > height + 1:
        raise UsageError(f"{where}: the box {text} leaves its image of {width}x{height}", fix="correct the box")
