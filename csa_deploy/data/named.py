"""Data sets known by name, read from the files of installed Python distributions without importing their code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from csa_deploy.data import animals as animal_mnist
from csa_deploy.data.base import ImageDataset
from csa_deploy.data.packages import IMAGENET_FILE, find_file, imagenet_files, load_digits, photograph_files
from csa_deploy.data.samples import Sample
from csa_deploy.data.scenes import SceneSamples
from csa_deploy.data.targets import BACKGROUND, Task
from csa_deploy.network import Preprocessing

DIGIT_CLASSES = tuple("0123456789")


def digits(preprocessing: Preprocessing, *, train: bool = False) -> ImageDataset:
    """Handwritten digits, 28 x 28 grey: the 1,000 held-out ones, or with ``train`` the 4,000 for training."""
    part = "train" if train else "test"
    pixels, labels = load_digits(train=train)
    samples = [Sample(f"{part}-{row:04d}", int(labels[row]), pixels[row]) for row in range(len(labels))]
    return ImageDataset("digits:train" if train else "digits", samples, DIGIT_CLASSES, preprocessing)


def animals(preprocessing: Preprocessing, *, train: bool = False) -> ImageDataset:
    """Animal silhouettes, 28 x 28 grey, without duplicates: the 1,736 held-out ones, or with ``train`` the other 6,968.

    Raises:
        EnvironmentLacksError: animal-mnist is not installed.
    """
    folder, part = "animal_mnist/data/Animal_MNIST", "train" if train else "test"
    files = (find_file("animal-mnist", f"{folder}/animal_{what}_version_3.gz") for what in ("data", "label"))
    pixels, labels = animal_mnist.load_animals(*files, train=train)
    samples = [Sample(f"{part}-{row:04d}", int(labels[row]), pixels[row]) for row in range(len(labels))]
    return ImageDataset("animals:train" if train else "animals", samples, animal_mnist.CLASSES, preprocessing)


def photos(preprocessing: Preprocessing) -> ImageDataset:
    """Photographs of scikit-image and foolbox, unlabelled."""
    samples = [Sample(path.name, None, path) for path in photograph_files()]
    return ImageDataset("photos", samples, preprocessing.classes, preprocessing)


def imagenet_samples(preprocessing: Preprocessing) -> ImageDataset:
    """Foolbox's 20 photographs of ImageNet with their labels (0..999), which the file names carry."""
    samples = [Sample(path.name, int(IMAGENET_FILE.sub(r"\2", path.name)), path) for path in imagenet_files()]
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
