"""Where an image lies in a network's input, for what a network says in its input's pixels: there and back.

Coordinates are pixels counted from the outer edge of the first one, so the centre of pixel i is i + 0.5. Pillow and
torch (``align_corners=False``) count so too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from csa_deploy.data.targets import Boxes, Mask, Target
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing


@dataclass(frozen=True)
class Geometry:
    """The map from an image to a network's input: along each axis ``input = image * scale + offset``.

    Attributes:
        image: (height, width) of the image in pixels.
        input: (height, width) of the network's input.
        scale: along (y, x).
        offset: along (y, x), in pixels of the input; below 0 where a crop cuts.
    """

    image: tuple[int, int]
    input: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    def boxes(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) of the image in pixels of the input, float64; they may lie outside where a crop cuts."""
        scale, offset = self._xyxy
        return np.asarray(xyxy, dtype=np.float64) * scale + offset

    def boxes_back(self, xyxy: np.ndarray, clip: bool = False) -> np.ndarray:
        """Boxes (n, 4) in pixels of the input in those of the image, float64; with ``clip`` cut at its edges."""
        scale, offset = self._xyxy
        boxes = (np.asarray(xyxy, dtype=np.float64) - offset) / scale
        height, width = self.image
        return boxes.clip(0, (width, height, width, height)) if clip else boxes

    def mask(self, labels: np.ndarray, fill: int) -> np.ndarray:
        """Classes (H, W) of the image's pixels, of those of the input: the nearest, ``fill`` beside the image."""
        (y, x), inside = self._places(self.input, [1 / s for s in self.scale], self._back_offset, self.image)
        return np.where(inside, labels[np.ix_(y, x)], labels.dtype.type(fill))

    def mask_back(self, labels: np.ndarray, fill: int) -> np.ndarray:
        """Classes of the image's pixels, of those (h, w) of the input: the nearest, ``fill`` where a crop cut.

        ``labels`` may be smaller than the input by a whole factor, as networks with a stride give them.
        """
        shrink = [n / full for n, full in zip(labels.shape, self.input, strict=True)]
        scale = [s * f for s, f in zip(self.scale, shrink, strict=True)]
        offset = [o * f for o, f in zip(self.offset, shrink, strict=True)]
        (y, x), inside = self._places(self.image, scale, offset, (labels.shape[0], labels.shape[1]))
        return np.where(inside, labels[np.ix_(y, x)], labels.dtype.type(fill))

    def target(self, target: Target) -> Target:
        """What is true of the image in pixels of the input; areas of objects scale with their boxes."""
        if isinstance(target, Mask):
            return Mask(self.mask(target.labels, target.ignore), target.ignore)
        if isinstance(target, Boxes):
            areas = target.areas * (self.scale[0] * self.scale[1])
            return replace(target, xyxy=self.boxes(target.xyxy), areas=areas)
        return target

    @property
    def _xyxy(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.scale[::-1] * 2), np.asarray(self.offset[::-1] * 2)

    @property
    def _back_offset(self) -> list[float]:
        return [-o / s for o, s in zip(self.offset, self.scale, strict=True)]

    @staticmethod
    def _places(
        size: tuple[int, int], scale: list[float], offset: list[float], source: tuple[int, int]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Per axis the place in ``source`` under each pixel's centre of ``size``, and which are inside."""
        places, inside = [], []
        for extent, factor, start, limit in zip(size, scale, offset, source, strict=True):
            place = np.floor((np.arange(extent) + 0.5) * factor + start).astype(np.int64)
            inside.append((place >= 0) & (place < limit))
            places.append(place.clip(0, limit - 1))
        return places, np.logical_and.outer(*inside)


def geometry_of(preprocessing: Preprocessing, image: tuple[int, int]) -> Geometry:
    """Where an image of (height, width) lies in the input of a network.

    Raises:
        UsageError: the image is larger than the input, and the network declares that images are only padded.
    """
    size, fit = preprocessing.size, preprocessing.fit
    if fit == "crop":
        top, left, bottom, right = crop_box(preprocessing, image)
        scale = size[0] / (bottom - top), size[1] / (right - left)
        return Geometry(image, size, scale, (-top * scale[0], -left * scale[1]))
    resized = resized_size(preprocessing, image)
    scale = resized[0] / image[0], resized[1] / image[1]
    free = [full - own for full, own in zip(size, resized, strict=True)]
    if min(free) < 0:
        raise UsageError(
            f"an image of {image[1]}x{image[0]} pixels is larger than the network's input, {size[1]}x{size[0]}",
            fix="declare fit letterbox, which makes it smaller, or give smaller images",
        )
    top, left = (n // 2 if preprocessing.anchor == "center" else 0 for n in free)
    return Geometry(image, size, scale, (float(top), float(left)))


def crop_box(preprocessing: Preprocessing, image: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of an image of (height, width) that a centre crop keeps: top, left, bottom, right."""
    (height, width), (rows, columns) = preprocessing.size, image
    scale = max(width / columns, height / rows) / preprocessing.crop
    box_width, box_height = width / scale, height / scale
    left, top = (columns - box_width) / 2, (rows - box_height) / 2
    return max(top, 0.0), max(left, 0.0), min(top + box_height, rows), min(left + box_width, columns)


def resized_size(preprocessing: Preprocessing, image: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that an image of (height, width) is resized to before it is padded."""
    if preprocessing.fit == "resize":
        return preprocessing.size
    if preprocessing.fit == "pad":
        return image
    scale = min(full / own for full, own in zip(preprocessing.size, image, strict=True))
    height, width = (min(full, max(1, round(own * scale))) for full, own in zip(preprocessing.size, image, strict=True))
    return height, width
