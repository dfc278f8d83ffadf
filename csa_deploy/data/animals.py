"""The silhouettes of the distribution animal_mnist: read without running pickled code, without duplicates."""

from __future__ import annotations

import gzip
import io
import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from csa_deploy.errors import UsageError

CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
ALIKE = 0.05
_ALLOWED = {"_reconstruct", "ndarray", "dtype"}
_SIDE, _DRAWN, _BLOCK = 14, 64, 1000  # outlines: pixels, least grey value; rows compared at a time


class _ArrayUnpickler(pickle.Unpickler):
    """Makes NumPy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The three names of which a pickled array consists."""
        if module.split(".")[0] != "numpy" or name not in _ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is no part of an array")
        return np.ndarray.__reduce__(np.empty(0))[0] if name == "_reconstruct" else getattr(np, name)


def read_array(path: Path) -> np.ndarray:
    """The NumPy array in a gzipped pickle.

    Raises:
        UsageError: the file is damaged, names anything but an array's parts, or holds objects.
    """
    try:
        array = _ArrayUnpickler(io.BytesIO(gzip.decompress(path.read_bytes()))).load()
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path.name}: not a pickled array: {error}", fix="reinstall animal-mnist") from error
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise UsageError(f"{path.name}: holds no array of numbers", fix="reinstall animal-mnist")
    return array


@lru_cache(maxsize=2)
def load_animals(pixels: Path, labels: Path, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (n, 28, 28) and labels int64 (n,) of one part.

    Equal and nearly equal pictures are taken out before the split, so that no picture is in both parts. Of each class
    a fixed draw of a fifth is held out.
    """
    images, classes = _deduplicated(pixels, labels)
    draw = np.random.RandomState(0)  # NumPy promises that its streams never change
    held_out = np.zeros(len(classes), dtype=bool)
    for label in range(len(CLASSES)):
        rows = np.flatnonzero(classes == label)
        held_out[draw.permutation(rows)[: len(rows) // 5]] = True
    part = ~held_out if train else held_out
    return images[part], classes[part]


@lru_cache(maxsize=1)
def _deduplicated(pixels: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    images, classes = read_array(pixels), read_array(labels).astype(np.int64)
    for keep in (distinct, unlike):
        kept = keep(images, classes)
        images, classes = images[kept], classes[kept]
    return images, classes


def distinct(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ascending indices of the pictures to keep: the first of equal ones, none of equal ones with several labels."""
    rows: dict[bytes, list[int]] = {}
    for i, image in enumerate(images):
        rows.setdefault(image.tobytes(), []).append(i)
    return np.asarray(sorted(same[0] for same in rows.values() if len({int(labels[i]) for i in same}) == 1), dtype=int)


def unlike(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ascending indices of the pictures that are like no earlier one, nor like any one with another label.

    Two pictures are alike when their outlines, also one of them mirrored, differ by less than ``ALIKE``: the squared
    difference as a share of the lesser's squared values. An outline is the picture's drawn part at 14 x 14, so that
    moved and scaled copies are found, too.
    """
    outlines = np.stack([_outline(image) for image in images])
    mirrored = np.ascontiguousarray(outlines[:, :, ::-1]).reshape(len(images), -1)
    outlines = outlines.reshape(len(images), -1)
    ink = (outlines**2).sum(axis=1)
    dropped = np.zeros(len(images), dtype=bool)
    for start in range(0, len(images), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(images)))
        earlier = slice(0, rows[-1] + 1)
        common = np.maximum(outlines[rows] @ outlines[earlier].T, outlines[rows] @ mirrored[earlier].T)
        lesser = np.minimum.outer(ink[rows], ink[earlier])
        alike = np.add.outer(ink[rows], ink[earlier]) - 2 * common < ALIKE * lesser
        later, first = np.nonzero(np.tril(alike, start - 1))
        dropped[rows[later]] = True
        dropped[first[labels[rows[later]] != labels[first]]] = True
    return np.flatnonzero(~dropped)


def _outline(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(image)
    drawn = picture.point(lambda value: 255 * (value >= _DRAWN)).getbbox()
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX, box=drawn)
    return np.asarray(small, dtype=np.float32) / 255
