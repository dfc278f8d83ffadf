"""A network and images that train in a second."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from csa_deploy.network import NetworkEntry, Preprocessing
from csa_deploy.train.recipe import Recipe

# Without the extra `train` there is nothing here to test.
collect_ignore_glob = [] if find_spec("kornia") and find_spec("lightning_fabric") else ["test_*.py"]

PREPROCESSING = Preprocessing((12, 12), mode="L", mean=(0.5,), std=(0.25,), interpolation="bilinear", crop=1.0)
TRAIN, HELD_OUT = 50, 14
CLASSES = ("bars", "blob")


def make_tiny() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 144, 2)
    )


@pytest.fixture(scope="session")
def entry() -> NetworkEntry:
    return NetworkEntry("tiny", "two classes", make_tiny, PREPROCESSING, weights="none")


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Everything on that a resumed training could forget."""
    return Recipe.model_validate(
        {
            "epochs": 3,
            "warmup_epochs": 1,
            "global_batch": 8,
            "lr": 0.02,
            "ema_decay": 0.5,
            "label_smoothing": 0.1,
            "random_crop": (0.6, 1.0),
            "flip": 0.5,
            "affine": {"degrees": 5},
            "rand_augment": 2,
            "erasing": 0.25,
            "mixup": 0.8,
            "cutmix": 1.0,
        }
    )


def write_images(folder: Path, count: int, seed: int) -> None:
    random = np.random.RandomState(seed)
    for i in range(count):
        pixels = random.randint(0, 60, (12, 12))
        if i % 2:
            pixels[3:9, 3:9] += 150
        else:
            pixels[:, ::3] += 150
        path = folder / CLASSES[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train`` and ``val``, two classes each."""
    root = tmp_path_factory.mktemp("images")
    write_images(root / "train", TRAIN, 0)
    write_images(root / "val", HELD_OUT, 1)
    return root


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
