"""The data set ``animals``: nothing is executed, nothing is in both parts."""

from __future__ import annotations

import gzip
import pickle
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from csa_deploy.data.animals import distinct, load_animals, read_array
from csa_deploy.errors import UsageError
from csa_deploy.train.pictures import open_split

from .conftest import PREPROCESSING


class Harmful:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


def write(path: Path, content: object) -> Path:
    path.write_bytes(gzip.compress(pickle.dumps(content)))
    return path


@pytest.mark.parametrize("array", [np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([3, 1], dtype=np.int64)])
def test_arrays_are_read(array: np.ndarray, tmp_path: Path) -> None:
    assert np.array_equal(read_array(write(tmp_path / "a.gz", array)), array)


def test_code_in_a_pickle_is_not_executed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", Harmful(tmp_path / "executed"))
    with pytest.raises(UsageError, match="no part of an array"):
        read_array(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [[1, 2], np.array([{}], dtype=object)])
def test_what_is_no_array_of_numbers_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no array of numbers"):
        read_array(write(tmp_path / "a.gz", content))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"a\.gz"):
        read_array(tmp_path / "a.gz")


def test_equal_pictures_count_once_and_contradictory_ones_not_at_all() -> None:
    images = np.array([[1], [2], [1], [3], [3], [4]], dtype=np.uint8)
    assert distinct(images, np.array([0, 1, 0, 1, 2, 2])).tolist() == [0, 1, 5]


def test_the_parts_share_no_picture(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    images = random.randint(0, 3, (400, 2, 2)).astype(np.uint8)  # 81 different ones
    labels = images.sum(axis=(1, 2)) % 10
    files = write(tmp_path / "x.gz", images), write(tmp_path / "y.gz", labels)
    (train, train_labels), (held_out, held_out_labels) = (load_animals(*files, train=part) for part in (True, False))
    pictures = [image.tobytes() for image in (*train, *held_out)]
    assert len(pictures) == len(set(pictures)) == len({image.tobytes() for image in images})
    assert len(train_labels) + len(held_out_labels) == len(pictures)
    assert len(held_out) > 5


def test_the_installed_set() -> None:
    try:
        metadata.distribution("animal-mnist")
    except metadata.PackageNotFoundError:
        pytest.skip("animal-mnist is not installed")
    split = open_split("animals", PREPROCESSING)
    assert split.held_out is not None
    assert (len(split.train.labels), len(split.held_out.labels)) == (7775, 1941)
    assert set(split.train.labels.tolist()) == set(range(10))
