"""Folders and .npz files as data sets."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csa_deploy.data.base import choose
from csa_deploy.data.dataset import open_dataset
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

SMALL = Preprocessing((8, 8), crop=1.0)
NAMED = Preprocessing((8, 8), crop=1.0, classes=("bird", "cat", "dog"))


def picture(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 9), (shade, shade, shade)).save(path)
    return path


def text(path: Path) -> Path:
    path.write_text("text")
    return path


@pytest.fixture()
def pets(tmp_path: Path) -> Path:
    for i in range(3):
        picture(tmp_path / "dog" / f"{i}.png", 10 * i)
    for i in range(4):
        picture(tmp_path / "cat" / f"{i}.JPG", 100 + 10 * i)
    picture(tmp_path / "cat" / "more" / "deep.png", 200)
    (tmp_path / "cat" / ".hidden.jpg").write_text("ignored")
    (tmp_path / "README.txt").write_text("ignored")
    return tmp_path


def test_sub_folders_are_classes(pets: Path) -> None:
    dataset = open_dataset(pets, SMALL)
    assert dataset.labelled and dataset.classes == ("cat", "dog") and len(dataset) == 8
    batches = list(dataset.batches(3))
    assert [len(b) for b in batches] == [3, 3, 2]
    assert batches[0].inputs["image"].shape == (3, 3, 8, 8)
    assert batches[0].inputs["image"].dtype == np.float32
    assert np.concatenate([b.labels for b in batches if b.labels is not None]).tolist() == [0] * 5 + [1] * 3
    assert batches[2].ids == ("dog/1.png", "dog/2.png")


def test_class_names_of_the_network_decide_the_labels(pets: Path) -> None:
    dataset = open_dataset(pets, NAMED)
    assert dataset.labels is not None and dataset.labels.tolist() == [1] * 5 + [2] * 3
    picture(pets / "catt" / "x.png")
    with pytest.raises(UsageError, match=r"catt.*none of the 3 classes.*nearest: cat"):
        open_dataset(pets, NAMED)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "b.png")
    picture(tmp_path / "a.png")
    dataset = open_dataset(str(tmp_path), SMALL)
    assert not dataset.labelled
    (batch,) = dataset.batches(8)
    assert batch.labels is None and batch.ids == ("a.png", "b.png")


def test_the_picture_behind_an_identity(pets: Path) -> None:
    image = open_dataset(pets, SMALL).image("cat/2.JPG")
    assert image is not None and image.size == (10, 9)
    assert image.getpixel((0, 0)) == (120, 120, 120)


def test_a_single_bad_file_is_found_when_the_set_is_opened(pets: Path) -> None:
    (pets / "dog" / "1.png").write_text("text")
    with pytest.raises(UsageError, match=r"dog/1\.png: cannot be read as an image"):
        open_dataset(pets, SMALL)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none", "no such data set, folder or .npz"),
        (lambda p: p, "no images in this folder"),
        (lambda p: text(p / "x.txt"), "neither a folder of images, a .csv table, a COCO .json nor an .npz"),
        (lambda p: text(p / "x.npz"), "not a readable .npz"),
        (lambda p: p / "none.npz", "no such file"),
        (lambda p: picture(p / "a.png") and picture(p / "c" / "b.png") and p, "unclear whether the sub-folders"),
    ],
)
def test_bad_places(tmp_path: Path, make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_dataset(make(tmp_path), SMALL)  # type: ignore[operator]


def test_names_are_suggested() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'digits'\?"):
        open_dataset("digit", SMALL)
    with pytest.raises(UsageError, match="named data sets: digits"):
        open_dataset("random", SMALL)


def test_images_need_a_preprocessing(pets: Path) -> None:
    with pytest.raises(UsageError, match="the network declares no preprocessing"):
        open_dataset(pets, None)


def test_fingerprint_follows_content_labels_and_preprocessing(pets: Path) -> None:
    first = open_dataset(pets, SMALL).fingerprint()
    assert open_dataset(pets, SMALL).fingerprint() == first
    found = {first, open_dataset(pets, NAMED).fingerprint(), open_dataset(pets, SMALL, limit=5).fingerprint()}
    picture(pets / "dog" / "0.png", 1)
    found.add(open_dataset(pets, SMALL).fingerprint())
    assert len(found) == 4


def test_limit_spreads_or_draws() -> None:
    assert choose(10, 3, None) == [0, 3, 6]
    assert choose(10, 20, None) == choose(10, None, None) == list(range(10))
    drawn = choose(1000, 5, 1)
    assert drawn == choose(1000, 5, 1) == sorted(set(drawn)) and drawn != choose(1000, 5, 2)
    with pytest.raises(UsageError, match="at least one"):
        choose(10, 0, None)


@pytest.fixture()
def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez_compressed(
        tmp_path / "data.npz",
        image=rng.normal(size=(7, 3, 4, 4)),
        speed=np.asfortranarray(rng.normal(size=(7, 2)).astype(np.float32)),
        labels=np.arange(7),
    )
    return tmp_path / "data.npz"


def test_npz_streams_every_input_by_name(arrays: Path) -> None:
    dataset = open_dataset(arrays, None)
    batches = list(dataset.batches(3))
    assert [len(b) for b in batches] == [3, 3, 1] and dataset.labelled
    with np.load(arrays) as file:
        for key in ("image", "speed"):
            found = np.concatenate([b.inputs[key] for b in batches])
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, file[key].astype(np.float32))
    assert batches[2].labels is not None and batches[2].labels.tolist() == [6]
    assert dataset.image("0") is None


def test_npz_with_a_limit(arrays: Path) -> None:
    dataset = open_dataset(arrays, None, limit=3)
    (batch,) = dataset.batches(10)
    assert batch.ids == ("0", "2", "4") and batch.labels is not None and batch.labels.tolist() == [0, 2, 4]
    with np.load(arrays) as file:
        np.testing.assert_array_equal(batch.inputs["speed"], file["speed"][[0, 2, 4]])
    assert dataset.fingerprint() != open_dataset(arrays, None).fingerprint()


def test_npz_integers_stay_integers(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", tokens=np.arange(6).reshape(2, 3))
    (batch,) = open_dataset(tmp_path / "d.npz", None).batches(4)
    assert batch.inputs["tokens"].dtype == np.int64 and batch.labels is None


def test_npz_takes_the_memory_of_a_batch_only(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", image=np.zeros((400, 3, 64, 64), np.float32))  # 19.7 MB
    dataset = open_dataset(tmp_path / "d.npz", None)
    tracemalloc.start()
    for batch in dataset.batches(4):
        assert batch.inputs["image"].shape == (4, 3, 64, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.zeros((2, 3)), "b": np.zeros((4, 3))}, "differ in their number of samples: a 2, b 4"),
        ({"labels": np.zeros(3, int)}, "holds labels only"),
        ({"a": np.zeros((0, 3))}, "holds no samples"),
        ({"a": np.float32(3.0)}, "holds no samples"),
        ({"a": np.zeros((2, 3)), "labels": np.zeros(2)}, "labels are float64"),
        ({"a": np.zeros((2, 3)), "labels": np.zeros((2, 3), int)}, r"labels are int64 of shape \(2, 3\)"),
        ({"a": np.array([object(), None])}, "pickled objects"),
        ({}, "holds no arrays"),
    ],
)
def test_bad_npz(tmp_path: Path, content: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "d.npz", **content)
    with pytest.raises(UsageError, match=message):
        open_dataset(tmp_path / "d.npz", None)


def test_a_damaged_npz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, a=np.random.default_rng(0).normal(size=(50, 100)))
    data = bytearray(path.read_bytes())
    data[20_000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"d\.npz: damaged: .*CRC"):
        list(open_dataset(path, None).batches(50))


def test_labels_out_of_range(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=np.zeros((2, 3)), labels=np.array([0, 7]))
    with pytest.raises(UsageError, match=r"labels 0\.\.7 do not fit a network with 3 outputs"):
        open_dataset(tmp_path / "d.npz", NAMED)
    open_dataset(tmp_path / "d.npz", None).check_labels(8)
    with pytest.raises(UsageError, match="with 5 outputs"):
        open_dataset(tmp_path / "d.npz", None).check_labels(5)


def test_feeding_a_network(arrays: Path, pets: Path) -> None:
    batch = next(open_dataset(arrays, None).batches(2))
    assert batch.feed({"image": (1, 3, 4, 4), "speed": (1, 2)}) == batch.inputs
    image = next(open_dataset(pets, SMALL).batches(2))
    assert list(image.feed({"x": (1, 3, 8, 8)})) == ["x"]
    with pytest.raises(UsageError, match=r"takes image \(n, 3, 9, 9\), speed \(n, 2\), .* hold image \(n, 3, 4, 4\)"):
        batch.feed({"image": (1, 3, 9, 9), "speed": (1, 2)})
    with pytest.raises(UsageError, match=r"takes velocity \(n, 2\), the data hold image"):
        batch.feed({"velocity": (1, 2)})


def test_an_npy_is_one_input_of_any_name(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3, 4, 4))
    np.save(tmp_path / "frames.npy", values)
    dataset = open_dataset(tmp_path / "frames.npy", None, limit=3)
    (batch,) = dataset.batches(4)
    assert batch.ids == ("0", "1", "3") and batch.labels is None
    (fed,) = batch.feed({"x": (1, 3, 4, 4)}).values()
    np.testing.assert_array_equal(fed, values[[0, 1, 3]].astype(np.float32))
    before = dataset.fingerprint()
    np.save(tmp_path / "frames.npy", values + 1)
    assert open_dataset(tmp_path / "frames.npy", None, limit=3).fingerprint() != before
    (tmp_path / "frames.npy").write_bytes(b"text")
    with pytest.raises(UsageError, match=r"frames\.npy: not a readable \.npy"):
        open_dataset(tmp_path / "frames.npy", None)


def test_leniently_files_are_read_in_their_turn_and_skipped_up_to_a_tenth(pets: Path) -> None:
    for i in range(13):
        picture(pets / "dog" / "more" / f"{i:02d}.png")
    picture(pets / "loose.png")
    (pets / "dog" / "1.png").write_text("text")
    dataset = open_dataset(pets, NAMED, lenient=True)
    assert len(dataset) == 22 and not dataset.skipped
    batches = list(dataset.batches(4))
    assert dataset.skipped.keys() == {"dog/1.png"}
    assert [id for b in batches for id in b.ids] == [id for id in dataset.identities() if id != "dog/1.png"]
    assert batches[-1].consumed == 22 and batches[-1].labels is None, "one image has no class"
    assert batches[0].labels is not None and batches[0].labels.tolist() == [1, 1, 1, 1]
    (pets / "cat" / "0.JPG").write_text("text")
    (pets / "cat" / "1.JPG").write_text("text")
    with pytest.raises(UsageError, match=r"3 files cannot be read so far, more than a tenth of all 22; .*0\.JPG"):
        list(open_dataset(pets, NAMED, lenient=True).batches(4))
