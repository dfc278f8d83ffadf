"""The data set ``animals``: nothing is executed, nothing is in both parts."""

from __future__ import annotations

import gzip
import pickle
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from csa_deploy.data.animals import distinct, load_animals, read_array, unlike
from csa_deploy.data.dataset import open_split
from csa_deploy.errors import UsageError

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


def blot(seed: int) -> np.ndarray:
    """Something large and irregular, 20 x 18 in the middle of 28 x 28."""
    random = np.random.RandomState(seed)
    image = np.zeros((28, 28), dtype=np.uint8)
    image[4:24, 5:23] = np.kron(random.randint(0, 2, (5, 6)), np.ones((4, 3), dtype=int)) * 255
    image[[4, 23], 5:23] = 255  # so that every one has the same drawn part
    image[4:24, [5, 22]] = 255
    return image


def test_moved_mirrored_and_retouched_copies_are_found() -> None:
    first, other = blot(0), blot(1)
    retouched = first.copy()
    retouched[12, 12] = 128
    copies = [first, np.roll(first, 3, axis=1), first[:, ::-1], retouched, other, np.roll(other, 2, axis=0)]
    images = np.stack(copies)
    assert unlike(images, np.zeros(6, dtype=int)).tolist() == [0, 4]
    # A copy with another label: neither of the two can be trusted.
    assert unlike(images, np.array([0, 0, 0, 0, 1, 2])).tolist() == [0]


@pytest.mark.shows("MEA-39", "ERR-33")
def test_the_parts_share_no_picture(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    kinds = random.randint(0, 80, 300)
    images = np.stack([np.roll(blot(kind), random.randint(3), axis=1) for kind in kinds])
    files = write(tmp_path / "x.gz", images), write(tmp_path / "y.gz", kinds % 10)
    (train, train_labels), (held_out, held_out_labels) = (load_animals(*files, train=part) for part in (True, False))
    assert len(train) + len(held_out) == len(set(kinds))
    both = np.concatenate([train, held_out])
    assert len(unlike(both, np.concatenate([train_labels, held_out_labels]))) == len(both)
    assert len(held_out) > 5


@pytest.mark.slow
def test_the_installed_set() -> None:
    try:
        metadata.distribution("animal-mnist")
    except metadata.PackageNotFoundError:
        pytest.skip("animal-mnist is not installed")
    split = open_split("animals", PREPROCESSING)
    assert split.held_out is not None
    assert (len(split.train.labels), len(split.held_out.labels)) == (6968, 1736)
    assert set(split.train.labels.tolist()) == set(range(10))
