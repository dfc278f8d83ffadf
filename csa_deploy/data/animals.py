"""The silhouettes of the distribution animal_mnist: read without running pickled code, without duplicates."""

from __future__ import annotations

import gzip
import io
import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from csa_deploy.errors import UsageError

CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
_ALLOWED = {"_reconstruct", "ndarray", "dtype"}


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

    Of equal pictures the first is kept, and none when their labels differ: before the split, so that no picture is
    in both parts. Of each class a fixed draw of a fifth is held out.
    """
    images, classes = read_array(pixels), read_array(labels).astype(np.int64)
    keep = distinct(images, classes)
    images, classes = images[keep], classes[keep]
    draw = np.random.RandomState(0)  # NumPy promises that its streams never change
    held_out = np.zeros(len(classes), dtype=bool)
    for label in range(len(CLASSES)):
        rows = np.flatnonzero(classes == label)
        held_out[draw.permutation(rows)[: len(rows) // 5]] = True
    part = ~held_out if train else held_out
    return images[part], classes[part]


def distinct(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ascending indices of the pictures to keep: the first of equal ones, none of equal ones with several labels."""
    rows: dict[bytes, list[int]] = {}
    for i, image in enumerate(images):
        rows.setdefault(image.tobytes(), []).append(i)
    return np.asarray(sorted(same[0] for same in rows.values() if len({int(labels[i]) for i in same}) == 1), dtype=int)
