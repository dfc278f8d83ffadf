"""Masks beside images, in the layouts in which they are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csa_deploy.data.base import ImageDataset
from csa_deploy.data.dataset import open_dataset
from csa_deploy.data.masks import CITYSCAPES, LabelTable
from csa_deploy.data.targets import Mask
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

PLAIN = Preprocessing((8, 8), fit="letterbox")
SIZE = (6, 10)


def photo(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (1, 2, 3)).save(path)


def mask(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def ids(*values: int) -> np.ndarray:
    return np.resize(np.asarray(values, dtype=np.uint8), SIZE)


def targets(data: object) -> list[np.ndarray]:
    assert isinstance(data, ImageDataset) and data.task == "segmentation" and not data.labelled
    found = [target for batch in data.batches(2) for target in batch.targets or ()]
    assert all(isinstance(target, Mask) for target in found)
    return [target.labels for target in found if isinstance(target, Mask)]


@pytest.fixture()
def cityscapes(tmp_path: Path) -> Path:
    for part, city in (("val", "ulm"), ("train", "bern")):
        for i in range(2):
            stem = f"{city}_{i:06d}_000019"
            photo(tmp_path / f"leftImg8bit/{part}/{city}/{stem}_leftImg8bit.png")
            mask(tmp_path / f"gtFine/{part}/{city}/{stem}_gtFine_labelIds.png", ids(7, 8, 0, 33, 26 + i))
            photo(tmp_path / f"gtFine/{part}/{city}/{stem}_gtFine_color.png")
    return tmp_path


def test_cityscapes(cityscapes: Path) -> None:
    data = open_dataset(cityscapes, PLAIN)
    first, second = targets(data)
    assert data.identities() == [f"val/ulm/ulm_{i:06d}_000019_leftImg8bit.png" for i in range(2)]
    assert np.unique(first).tolist() == [0, 1, 13, 18, 255] and np.unique(second).tolist() == [0, 1, 14, 18, 255]
    assert (first == np.resize([0, 1, 255, 18, 13], SIZE)).all()
    assert data.classes == CITYSCAPES and CITYSCAPES[13] == "car" and CITYSCAPES[18] == "bicycle"


def test_cityscapes_train_ids_are_taken_as_they_are(cityscapes: Path) -> None:
    for path in list(cityscapes.rglob("*_labelIds.png")):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
        mask(path.with_name(path.name.replace("labelIds", "labelTrainIds")), ids(0, 18, 255))
    assert np.unique(targets(open_dataset(cityscapes, PLAIN))[0]).tolist() == [0, 18, 255]


def test_only_the_images_are_calibrated_on_and_those_of_the_training(cityscapes: Path) -> None:
    data = open_dataset(cityscapes, PLAIN, lenient=True)
    assert data.identities() == [f"train/bern/bern_{i:06d}_000019_leftImg8bit.png" for i in range(2)]


@pytest.fixture()
def voc(tmp_path: Path) -> Path:
    for i in range(3):
        photo(tmp_path / f"JPEGImages/{i}.jpg")
        image = Image.fromarray(ids(0, 5 + i, 255), "P")
        image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        image.save(tmp_path / f"SegmentationClass/{i}.png")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("2\n0\n")
    return tmp_path


def test_pascal_voc_has_the_indices_of_its_palette(voc: Path) -> None:
    data = open_dataset(voc, PLAIN)
    assert data.identities() == ["2", "0"] and data.classes[:2] == ("background", "aeroplane")
    assert [np.unique(m).tolist() for m in targets(data)] == [[0, 7, 255], [0, 5, 255]]
    (voc / "ImageSets/Segmentation/val.txt").unlink()
    assert open_dataset(voc, PLAIN).identities() == ["0", "1", "2"]


@pytest.fixture()
def plain(tmp_path: Path) -> Path:
    for i in range(2):
        photo(tmp_path / f"images/{i}.jpg")
        mask(tmp_path / f"masks/{i}.png", ids(0, i, 255))
    return tmp_path


def test_images_and_masks(plain: Path) -> None:
    data = open_dataset(plain, PLAIN)
    assert [np.unique(m).tolist() for m in targets(data)] == [[0, 255], [0, 1, 255]]
    batch = next(data.batches(2))
    assert batch.geometry is not None and batch.geometry[0].image == SIZE and batch.labels is None
    assert data.fingerprint() == open_dataset(plain, PLAIN).fingerprint()
    mask(plain / "masks/0.png", ids(0, 1))
    assert data.fingerprint() != open_dataset(plain, PLAIN).fingerprint()
    assert targets(data.take([1]))[0].max() == 255


def test_a_mask_has_the_size_of_its_image_upright(plain: Path) -> None:
    image = Image.new("RGB", SIZE, (1, 2, 3))  # stored lying, 6 wide and 10 high, to be turned by a quarter
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(plain / "images/1.jpg", exif=exif)
    assert targets(open_dataset(plain, PLAIN))[1].shape == SIZE


def test_a_table_says_what_the_ids_mean(plain: Path) -> None:
    (plain / "labels.csv").write_text("id,name,index\n0,sky,1\n1,road,0\n255,none,\n")
    data = open_dataset(plain, PLAIN)
    assert data.classes == ("road", "sky")
    assert [np.unique(m).tolist() for m in targets(data)] == [[1, 255], [0, 1, 255]]


def test_sixteen_bits_are_ids_too(plain: Path) -> None:
    mask(plain / "masks/0.png", np.resize(np.asarray([0, 300], np.uint16), SIZE))
    (plain / "labels.csv").write_text("id,name,index\n0,sky,1\n1,sky,1\n300,road,0\n255,none,255\n")
    assert np.unique(targets(open_dataset(plain, PLAIN))[0]).tolist() == [0, 1]


def test_parts_are_val_for_evaluation_and_train_for_calibration(plain: Path) -> None:
    for part in ("train", "val"):
        photo(plain / f"images/{part}/a.jpg")
        mask(plain / f"masks/{part}/a.png", ids(0))
    assert len(open_dataset(plain, PLAIN)) == 1
    calibration = open_dataset(plain, PLAIN, lenient=True)
    assert isinstance(calibration, ImageDataset) and calibration.samples[0].source == plain / "images/train/a.jpg"


Break = Callable[[Path], object]
BROKEN: dict[str, tuple[Break, str]] = {
    "another size": (
        lambda p: mask(p / "masks/1.png", ids(0)[:, :5]),
        r"masks/1\.png: the mask has 5x6 pixels, its image 10x6",
    ),
    "unknown id": (
        lambda p: mask(p / "masks/1.png", ids(0, 0, 0, 3)),
        r"masks/1\.png: row 0, column 3 has the label id 3, which is no class",
    ),
    "in colour": (lambda p: photo(p / "masks/1.png"), r"masks/1\.png: a mask is one number per pixel, this is a RGB"),
    "no image": (lambda p: (p / "masks/1.png").write_text("x"), r"masks/1\.png: cannot be read as an image"),
    "not there": (lambda p: (p / "masks/1.png").unlink(), r"images/1\.jpg: has no mask: .*masks/1\.png is not there"),
    "empty image": (lambda p: (p / "images/1.jpg").write_bytes(b""), r"images/1\.jpg: cannot be read as an image"),
    "cut short": (
        lambda p: (p / "masks/1.png").write_bytes((p / "masks/1.png").read_bytes()[:50]),
        r"masks/1\.png: cannot be read",
    ),
    "id twice": (
        lambda p: (p / "labels.csv").write_text("id,name,index\n0,a,0\n0,b,1\n"),
        r"labels\.csv: line 3: id 0 is there twice",
    ),
    "id out of range": (
        lambda p: (p / "labels.csv").write_text("id,name,index\n0,a,0\n-1,b,1\n"),
        r"labels\.csv: line 3: ids and indices are from 0",
    ),
    "gap": (
        lambda p: (p / "labels.csv").write_text("id,name,index\n0,a,0\n1,b,2\n"),
        r"class indices \[0, 2\] are not 0, 1, 2",
    ),
    "no number": (
        lambda p: (p / "labels.csv").write_text("id,name,index\n0,a,zero\n"),
        r"labels\.csv: line 2: invalid literal",
    ),
    "no column": (lambda p: (p / "labels.csv").write_text("id,name\n0,a\n"), r"labels\.csv: has no column index"),
    "other classes": (
        lambda p: (p / "labels.csv").write_text("id,name,index\n0,a,0\n1,b,1\n"),
        "2 classes, but the network has 3",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_wrong_is_one_line(plain: Path, fault: str) -> None:
    broken, message = BROKEN[fault]
    broken(plain)
    named = Preprocessing((8, 8), fit="letterbox", classes=("a", "b", "c"))
    with pytest.raises(UsageError, match=message) as raised:
        list(open_dataset(plain, named).batches(4))
    assert "\n" not in raised.value.message


def test_a_task_is_asked_for_where_a_folder_has_two(voc: Path) -> None:
    (voc / "Annotations").mkdir()
    with pytest.raises(UsageError, match="holds masks and boxes") as refused:
        open_dataset(voc, PLAIN)
    assert str(refused.value.fix).endswith("--task which: segmentation (Pascal VOC) or detection (Pascal VOC)")
    assert len(open_dataset(voc, PLAIN, task="segmentation")) == 2
    assert open_dataset(voc, PLAIN, lenient=True).task == "segmentation", "to calibrate no target is needed"


def test_a_task_that_the_data_do_not_have_is_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds targets of classification, not of segmentation"):
        open_dataset("digits", Preprocessing((28, 28), mode="L", mean=(0.5,), std=(0.5,)), task="segmentation")
    photo(tmp_path / "recording/a.png")
    assert len(open_dataset(tmp_path / "recording", PLAIN, task="segmentation")) == 1, "images without labels are fine"


@pytest.mark.parametrize("value", [-1, 3, 254, 65_535, 65_536, 2**31 - 1])
def test_no_number_without_a_meaning_becomes_a_class(value: int) -> None:
    found = np.zeros(SIZE, np.int64)
    found[2, 4] = value
    with pytest.raises(UsageError, match=rf"m\.png: row 2, column 4 has the label id {value}, which is no class"):
        LabelTable(("a", "b", "c")).lookup(found, Path("m.png"))


def test_many_classes_are_no_bytes() -> None:
    names = tuple(map(str, range(300)))
    found = LabelTable(names, {i: i for i in range(300)}).lookup(np.resize(np.arange(300), (10, 30)), Path("m.png"))
    assert found.labels.max() == 299


def test_another_part_of_cityscapes_and_of_classes(cityscapes: Path, tmp_path: Path) -> None:
    assert all("ulm" in name for name in open_dataset(cityscapes, PLAIN).identities())
    assert all("bern" in name for name in open_dataset(f"{cityscapes}:train", PLAIN).identities())
    for part, count in (("train", 1), ("val", 2), ("test", 3)):
        for kind in ("cat", "dog"):
            for number in range(count):
                photo(tmp_path / f"pets/{part}/{kind}/{number}.png")
    for part, count in (("train", 2), ("val", 4), ("test", 6)):
        data = open_dataset(f"{tmp_path / 'pets'}:{part}", PLAIN)
        assert len(data) == count and data.classes == ("cat", "dog")
    assert len(open_dataset(tmp_path / "pets", PLAIN)) == 4
