"""Tables of files, ImageNet's layouts, subsets, and decoding ahead of the network."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csa_deploy.data.dataset import open_dataset
from csa_deploy.data.prefetch import WORKERS, ahead
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

PLAIN = Preprocessing((8, 8), crop=1.0)
NAMED = Preprocessing((8, 8), crop=1.0, classes=("bird", "cat", "dog"))


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9), (shade, shade, shade)).save(path)


@pytest.fixture()
def table(tmp_path: Path) -> Path:
    for i in range(4):
        picture(tmp_path / "images" / f"{i}.png", 50 * i)
    path = tmp_path / "list.csv"
    path.write_text("file,label\n" + "".join(f"images/{i}.png,{i % 3}\n" for i in (3, 1, 0, 2)))
    return path


def test_a_table_gives_order_and_labels(table: Path) -> None:
    data = open_dataset(table, PLAIN)
    assert data.labels is not None and data.labels.tolist() == [0, 1, 0, 2]
    (batch,) = data.batches(10)
    shades = batch.inputs["image"][:, 0, 0, 0]
    assert np.argsort(np.argsort(shades)).tolist() == [3, 1, 0, 2]
    assert batch.ids[0] == "000000 images/3.png"


def test_labels_may_be_class_names(table: Path) -> None:
    table.write_text("label,file\ndog,images/0.png\nbird,images/1.png\n")
    data = open_dataset(table, NAMED)
    assert data.labels is not None and data.labels.tolist() == [2, 0]


def test_a_table_without_labels(table: Path) -> None:
    table.write_text("file\nimages/0.png\n")
    assert not open_dataset(table, PLAIN).labelled


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no rows"),
        ("path,label\na.png,0\n", "no column 'file', but path, label"),
        ("file,label\nimages/0.png,dgo\n", "row 2: the label 'dgo' .* nearest class: dog|row 2: the label 'dgo'"),
        ("file,label\nimages/0.png,-1\n", "row 2: the label '-1'"),
        ("file,label\nnowhere.png,0\n", "no such image file"),
        ("file,label\n,0\n", "row 2: names no file"),
        ("file,label\nimages/0.png,3\n", r"labels 3\.\.3 do not fit a network with 3 outputs"),
    ],
)
def test_bad_tables(table: Path, content: str, message: str) -> None:
    table.write_text(content)
    with pytest.raises(UsageError, match=message):
        open_dataset(table, NAMED)


SYNSETS = ("n01440764", "n01443537", "n01484850")


@pytest.fixture()
def imagenet(tmp_path: Path) -> Path:
    for synset in SYNSETS[1:]:
        picture(tmp_path / "val" / synset / f"{synset}.JPEG")
    return tmp_path


def test_synsets_are_numbered_by_the_list_of_all(imagenet: Path) -> None:
    with pytest.raises(UsageError, match=r"2 synsets of 1000, so it is not known which class indices"):
        open_dataset(imagenet, PLAIN)
    (imagenet / "LOC_synset_mapping.txt").write_text("".join(f"{s} a name, another\n" for s in SYNSETS))
    data = open_dataset(imagenet, PLAIN)
    assert data.labels is not None and data.labels.tolist() == [1, 2]
    (imagenet / "LOC_synset_mapping.txt").write_text(f"{SYNSETS[0]} one\n")
    with pytest.raises(UsageError, match="does not list the synset n01443537"):
        open_dataset(imagenet, PLAIN)


def test_a_flat_folder_with_a_solution(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "ILSVRC/Data/CLS-LOC/val" / f"ILSVRC2012_val_{i:08d}.JPEG")
    rows = "".join(f"ILSVRC2012_val_{i:08d},{SYNSETS[2 - i]} 1 2 3 4\n" for i in range(3))
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + rows)
    (tmp_path / "LOC_synset_mapping.txt").write_text("".join(f"{s} name\n" for s in SYNSETS))
    data = open_dataset(tmp_path, PLAIN)
    assert data.labels is not None and data.labels.tolist() == [2, 1, 0]


def test_one_sub_folder_is_no_classification(tmp_path: Path) -> None:
    picture(tmp_path / "all" / "a.png")
    with pytest.raises(UsageError, match="one sub-folder with images"):
        open_dataset(tmp_path, PLAIN)
    picture(tmp_path / "x" / "dog" / "a.png")
    assert open_dataset(tmp_path / "x", NAMED).labelled  # the network names its classes


def test_a_subset_keeps_order_labels_and_tensors(table: Path, tmp_path: Path) -> None:
    data = open_dataset(table, PLAIN)
    (whole,) = data.batches(4)
    (part,) = data.only([whole.ids[3], whole.ids[1]]).batches(4)
    assert part.ids == (whole.ids[1], whole.ids[3]) and part.labels is not None and part.labels.tolist() == [1, 2]
    assert np.array_equal(part.inputs["image"], whole.inputs["image"][[1, 3]])
    np.savez(tmp_path / "a.npz", x=np.arange(5, dtype="f4").reshape(5, 1), labels=np.arange(5))
    arrays = open_dataset(tmp_path / "a.npz", None).only(["4", "2"])
    (part,) = arrays.batches(9)
    assert part.ids == ("2", "4") and part.inputs["x"].ravel().tolist() == [2.0, 4.0]
    for subset in (data, arrays):
        with pytest.raises(KeyError):
            subset.only(["3"])


def test_ahead_keeps_order_bounds_what_waits_and_raises_in_place() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            started.append(item)
        if item == 7:
            raise ValueError("seven")
        return item * item

    results = ahead(work, range(10), count=3)
    assert next(results) == 0
    assert len(started) <= 4
    assert [next(results) for _ in range(6)] == [1, 4, 9, 16, 25, 36]
    with pytest.raises(ValueError, match="seven"):
        next(results)


def test_ahead_and_a_caller_that_leaves_no_core_free_take_turns() -> None:
    at_work, meanwhile = threading.Event(), []

    def work(item: int) -> int:
        at_work.set()
        time.sleep(0.01)
        at_work.clear()
        return item

    for item in ahead(work, range(6), count=2):
        meanwhile.append(at_work.wait(0.02))
        assert item == len(meanwhile) - 1
    assert not any(meanwhile)


def test_ahead_works_on_the_cores_that_the_caller_leaves_free() -> None:
    """The second item waits for the caller, who has the first one: it is read meanwhile, or it waits in vain."""
    caller_has_first, met = threading.Event(), []

    def work(item: int) -> int:
        if item == 1:
            met.append(caller_has_first.wait(5))
        return item

    results = ahead(work, range(4), count=2, free_cores=WORKERS)
    assert next(results) == 0
    caller_has_first.set()
    assert list(results) == [1, 2, 3] and met == [True]
