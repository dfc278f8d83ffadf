"""Boxes from COCO, YOLO, Pascal VOC and arrays; pycocotools is asked what a COCO file says."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csa_deploy.data.arrays import target_arrays
from csa_deploy.data.base import Dataset, ImageDataset
from csa_deploy.data.coco import open_coco
from csa_deploy.data.dataset import open_dataset, open_split, require_dataset
from csa_deploy.data.targets import Boxes, Mask
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.network import Preprocessing

PLAIN = Preprocessing((16, 16), fit="letterbox")


def photo(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (1, 2, 3)).save(path)


def boxes(data: Dataset) -> list[Boxes]:
    assert data.task == "detection" and not data.labelled
    found = [target for batch in data.batches(3) for target in batch.targets or ()]
    return [target for target in found if isinstance(target, Boxes)]


COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
        {"id": 3, "file_name": "b.png", "height": 30, "width": 20},
        {"id": 9, "file_name": "empty.png", "height": 10, "width": 10},
    ],
    "annotations": [
        {
            "id": 1, "image_id": 3, "category_id": 44, "bbox": [1.5, 2.25, 10, 20], "area": 111.5, "iscrowd": 0,
            "segmentation": [[1.5, 2.25, 11.5, 2.25, 11.5, 22.25, 1.5, 22.25]],
        },
        {
            "id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 60, 40], "area": 900.0, "iscrowd": 1,
            "segmentation": {"counts": [0, 400, 1500, 500], "size": [40, 60]},
        },
        {
            "id": 5, "image_id": 7, "category_id": 44, "bbox": [30, 5, 25, 30], "area": 320.0, "iscrowd": 0,
            "segmentation": [[30, 5, 55, 5, 30, 35], [50, 20, 55, 20, 55, 35, 50, 35]],
        },
        {
            "id": 6, "image_id": 7, "category_id": 17, "bbox": [35, 8, 12, 9], "area": 108.0, "iscrowd": 0,
            "segmentation": [[35, 8, 47, 8, 47, 17, 35, 17]],
        },
    ],
    "categories": [{"id": 44, "name": "bottle"}, {"id": 2, "name": "bicycle"}, {"id": 17, "name": "cat"}],
}  # fmt: skip


@pytest.fixture()
def coco(tmp_path: Path) -> Path:
    for image in COCO["images"]:
        photo(tmp_path / "val" / image["file_name"], (image["height"], image["width"]))
    return written(tmp_path / "annotations/instances_val.json", COCO)


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content))
    return path


def test_coco_says_what_pycocotools_reads(coco: Path) -> None:
    theirs = pytest.importorskip("pycocotools.coco").COCO(str(coco))
    data = open_dataset(coco, PLAIN)
    assert data.classes == ("bicycle", "cat", "bottle"), "in the order of their ids"
    ids = sorted(theirs.getCatIds())
    for identity, found in zip(data.identities(), boxes(data), strict=True):
        (image,) = [image for image in theirs.dataset["images"] if image["file_name"] == identity]
        wanted = theirs.loadAnns(theirs.getAnnIds(imgIds=image["id"]))
        assert found.labels.tolist() == [ids.index(a["category_id"]) for a in wanted]
        assert found.crowd.tolist() == [bool(a["iscrowd"]) for a in wanted]
        assert found.areas.tolist() == [a["area"] for a in wanted]
        widths = found.xyxy[:, 2:] - found.xyxy[:, :2]
        assert np.concatenate([found.xyxy[:, :2], widths], axis=1).tolist() == [a["bbox"] for a in wanted]


def test_coco_masks_are_those_of_pycocotools(coco: Path) -> None:
    theirs = pytest.importorskip("pycocotools.coco").COCO(str(coco))
    data = open_dataset(coco, PLAIN, task="segmentation")
    assert data.classes == ("background", "bicycle", "cat", "bottle") and isinstance(data, ImageDataset)
    found = [target for batch in data.batches(2) for target in batch.targets or ()]
    for sample, target in zip(data.samples, found, strict=True):
        assert isinstance(target, Mask)
        (image,) = [image for image in theirs.dataset["images"] if image["file_name"] == sample.id]
        covering: list[list[set[int]]] = [[set() for _ in range(image["width"])] for _ in range(image["height"])]
        for annotation in theirs.loadAnns(theirs.getAnnIds(imgIds=image["id"])):
            label = 255 if annotation["iscrowd"] else 1 + [2, 17, 44].index(annotation["category_id"])
            for row, column in np.argwhere(theirs.annToMask(annotation)):
                covering[row][column].add(label)
        for row, labels in enumerate(covering):
            wanted = [0 if not s else next(iter(s)) if len(s) == 1 else 255 for s in labels]
            assert target.labels[row].tolist() == wanted, (sample.id, row)
        if sample.id == "a.png":
            assert {0, 2, 3, 255} == set(np.unique(target.labels).tolist()), "every rule is met"


def test_a_coco_folder_gives_masks_where_segmentation_is_asked_for(coco: Path) -> None:
    pytest.importorskip("pycocotools.coco")
    folder = coco.parent.parent
    assert open_dataset(folder, PLAIN).task == "detection"
    for lenient in (False, True):
        found = open_dataset(folder, PLAIN, task="segmentation", lenient=lenient)
        assert found.task == "segmentation"
        masks = [target for batch in found.batches(3) for target in batch.targets or ()]
        direct = [t for batch in open_dataset(coco, PLAIN, task="segmentation").batches(3) for t in batch.targets or ()]
        for mine, theirs in zip(masks, direct, strict=True):
            np.testing.assert_array_equal(mine.labels, theirs.labels)


def test_another_part_is_named_after_a_colon(coco: Path) -> None:
    folder = coco.parent.parent
    fewer = {
        **COCO,
        "images": COCO["images"][:1],
        "annotations": [a for a in COCO["annotations"] if a["image_id"] == 7],
    }
    written(folder / "annotations/instances_extra.json", fewer)
    photo(folder / "extra/a.png", (40, 60))
    assert len(open_dataset(folder, PLAIN)) == 3 and len(open_dataset(f"{folder}:extra", PLAIN)) == 1
    require_dataset(f"{folder}:extra")
    with pytest.raises(UsageError, match="unknown part 'extr', did you mean 'extra'") as error:
        open_dataset(f"{folder}:extr", PLAIN)
    assert "extra" in str(error.value.fix) and "val" in str(error.value.fix)
    odd = folder.parent / f"{folder.name}:extra"
    photo(odd / "only.png", (8, 8))
    assert open_dataset(odd, PLAIN).identities() == ["only.png"], "what really lies there goes first"


def test_masks_of_coco_without_pycocotools_say_what_to_install(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(EnvironmentLacksError, match=r"pycocotools.*pip install pycocotools"):
        open_dataset(coco, PLAIN, task="segmentation")
    assert len(boxes(open_dataset(coco, PLAIN))) == 3, "boxes need none"


def test_images_without_objects_are_counted(coco: Path) -> None:
    data = open_dataset(coco, PLAIN)
    assert [len(target) for target in boxes(data)] == [3, 1, 0]
    assert data.notes == data.take([0]).notes == ("1 of 3 images have no object, the first is empty.png",)


def test_names_of_the_network_decide_the_classes(coco: Path) -> None:
    named = Preprocessing((16, 16), classes=("dog", "cat", "bottle", "bicycle"))
    assert boxes(open_dataset(coco, named))[0].labels.tolist() == [3, 2, 1]
    with pytest.raises(UsageError, match=r"categories\[2\]: cat is none of the network's 2 classes"):
        open_dataset(coco, Preprocessing((16, 16), classes=("bottle", "bicycle")))


@pytest.mark.parametrize("folder", [".", "val", "images", "images/val", "annotations", "annotations/images"])
def test_images_are_found_where_they_usually_are(coco: Path, tmp_path: Path, folder: str) -> None:
    (tmp_path / "val").rename(tmp_path / "moved")
    for path in (tmp_path / "moved").iterdir():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / folder / path.name)
    assert len(open_dataset(coco, PLAIN)) == 3


def test_what_changes_an_annotation_changes_the_fingerprint(coco: Path) -> None:
    before = open_dataset(coco, PLAIN).fingerprint()
    assert open_dataset(coco, PLAIN, task="segmentation").fingerprint() != before
    changed = copy.deepcopy(COCO)
    changed["annotations"][0]["bbox"][0] = 1.75
    assert open_dataset(written(coco, changed), PLAIN).fingerprint() != before


Change = Callable[[dict[str, Any]], object]
WRONG: dict[str, tuple[Change, str]] = {
    "image id twice": (
        lambda c: c["images"][2].update(id=7),
        r"images\[2\]: id 7 is that of images\[0\] too",
    ),
    "file twice": (lambda c: c["images"][2].update(file_name="a.png"), "a.png is there 2 times"),
    "annotation id twice": (lambda c: c["annotations"][3].update(id=1), r"annotations\[3\]: id 1 is that of"),
    "category id twice": (lambda c: c["categories"][1].update(id=44), r"categories\[1\]: id 44"),
    "unknown image": (
        lambda c: c["annotations"][1].update(image_id=8),
        r"annotations\[1\] \(id 2\): image_id 8 is not in the file",
    ),
    "unknown category": (
        lambda c: c["annotations"][2].update(category_id=1),
        r"annotations\[2\] \(id 5\): category_id 1 is not in the file",
    ),
    "inverted": (
        lambda c: c["annotations"][0].update(bbox=[5, 5, -2, 3]),
        r"annotations\[0\] \(id 1\): the box \(5, 5, 3, 8\) is inverted",
    ),
    "outside": (
        lambda c: c["annotations"][0].update(bbox=[5, 5, 16.5, 3]),
        r"annotations\[0\] \(id 1\): the box \(5, 5, 21\.5, 8\) leaves its image of 20x30",
    ),
    "not finite": (lambda c: c["annotations"][0].update(bbox=[5, 5, float("nan"), 3]), r"annotations\[0\].*bbox is"),
    "no box": (lambda c: c["annotations"][0].pop("bbox"), r"annotations\[0\] \(id 1\): bbox is None"),
    "no name": (lambda c: c["images"][1].pop("file_name"), r"images\[1\]: file_name is None"),
    "no images": (lambda c: c.update(images=[], annotations=[]), "holds no images"),
    "no list": (lambda c: c.pop("categories"), "has no list 'categories'"),
    "another size": (
        lambda c: c["images"][0].update(height=41),
        r"images\[0\] \(id 7, a\.png\): 60x41 pixels, but the image has 60x40",
    ),
    "missing image": (lambda c: c["images"][1].update(file_name="c.png"), r"c\.png: no such image file"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_coco_file_is_one_line_with_the_entry(coco: Path, fault: str) -> None:
    change, message = WRONG[fault]
    changed = copy.deepcopy(COCO)
    change(changed)
    with pytest.raises(UsageError, match=message) as raised:
        open_dataset(written(coco, changed), PLAIN)
    assert "\n" not in raised.value.message and str(coco.parent.parent) in raised.value.message


def test_a_box_may_leave_its_image_by_a_pixel_of_rounding(coco: Path) -> None:
    changed = copy.deepcopy(COCO)
    changed["annotations"][0]["bbox"] = [5, 5, 16, 3]
    assert boxes(open_dataset(written(coco, changed), PLAIN))[1].xyxy.tolist() == [[5, 5, 21, 8]]


def test_a_damaged_file_is_named_with_its_line(coco: Path) -> None:
    coco.write_text('{"images": [\n{"id": 1,}]}')
    with pytest.raises(UsageError, match=r"instances_val\.json: line 2, column \d+"):
        open_dataset(coco, PLAIN)


def test_json_without_end_is_one_line(coco: Path) -> None:
    coco.write_text('{"images": ' + "[" * 200_000)
    with pytest.raises(UsageError, match=r"instances_val\.json: "):
        open_dataset(coco, PLAIN)


def test_a_damaged_mask_is_named_with_its_annotation(coco: Path) -> None:
    changed = copy.deepcopy(COCO)
    changed["annotations"][1]["segmentation"] = {"counts": "no mask", "size": [40]}
    with pytest.raises(UsageError, match=r"images\[0\].*: annotation 2: no readable segmentation"):
        list(open_coco(written(coco, changed), "x", PLAIN, "segmentation").batches(3))


@pytest.fixture()
def yolo(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for name in ("a", "b", "none"):
            photo(tmp_path / f"images/{part}/{name}.jpg", (40, 80))
        (tmp_path / f"labels/{part}").mkdir(parents=True)
        (tmp_path / f"labels/{part}/a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.125 0.25 0.25 0.5\n")
        (tmp_path / f"labels/{part}/b.txt").write_text("2 0.1 0.2 0.5 0.3 0.25 0.8\n")
    (tmp_path / "data.yaml").write_text("names:\n  0: cat\n  1: dog\n  2: owl\n")
    return tmp_path


def test_yolo(yolo: Path) -> None:
    data = open_dataset(yolo, PLAIN)
    first, second, none = boxes(data)
    assert data.classes == ("cat", "dog", "owl") and data.identities() == ["a.jpg", "b.jpg", "none.jpg"]
    assert first.labels.tolist() == [1, 0]
    assert first.xyxy.tolist() == [[30, 10, 50, 30], [0, 0, 20, 20]]
    assert second.labels.tolist() == [2] and second.xyxy[0].tolist() == pytest.approx([8, 8, 40, 32])
    assert len(none) == 0 and data.notes == ("1 of 3 images have no text, so no object, the first is none.jpg",)


def test_yolo_without_parts_and_names(yolo: Path) -> None:
    (yolo / "data.yaml").unlink()
    for kind in ("images", "labels"):
        shutil.rmtree(yolo / kind / "train")
        for path in (yolo / kind / "val").iterdir():
            path.rename(yolo / kind / path.name)
        (yolo / kind / "val").rmdir()
    (yolo / "labels/stray.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    data = open_dataset(yolo, PLAIN)
    assert [len(target) for target in boxes(data)] == [2, 1, 0] and data.classes == ()
    assert data.notes[1] == "1 texts without an image are left out, the first is stray.txt"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 0.5 0.5 0.1 0.1", "line 2: 3 is no class of 3"),
        ("-1 0.5 0.5 0.1 0.1", "line 2: -1 is no class of 3"),
        ("0 0.5 0.5 0.1", "line 2: a class and 3 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "line 2: a class and 5 numbers"),
        ("0 0.5 0.5 nan 0.1", "line 2: a class and 4 numbers"),
        ("0 0.5 0.5 -0.1 0.1", "line 2: the box .* is inverted"),
        ("0 0.9 0.5 0.3 0.1", "line 2: the box .* leaves its image of 80x40"),
        ("0 320 240 100 100", "line 2: the box .* leaves its image"),
        ("cat 0.5 0.5 0.1 0.1", "line 2: invalid literal"),
        ("0 0.5 0,5 0.1 0.1", "line 2: could not convert"),
    ],
)
def test_a_wrong_line_is_named_when_the_set_is_opened(yolo: Path, line: str, message: str) -> None:
    (yolo / "labels/val/b.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(UsageError, match=rf"labels/val/b\.txt: {message}"):
        open_dataset(yolo, PLAIN)


def test_names_that_cannot_be_read_are_said(yolo: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{m}, *{m}]\n" for m, n in itertools.pairwise("abcdefghij"))
    for content, said in (
        ("names: 3\n", "no list 'names' of classes"),
        ("nc: 3\n", "no list 'names' of classes"),
        ("names: {1: a, 2: b}\n", "no list 'names' of classes, numbered from 0"),
        (f"{bomb}names: [*j, *j]\n", "no list 'names' of classes"),
        ("names: [a\n", "not valid YAML"),
        ("- a\n", "a description of YOLO data is a mapping of keys"),
    ):
        (yolo / "data.yaml").write_text(content)
        with pytest.raises(UsageError, match=rf"data\.yaml: {said}"):
            open_dataset(yolo, PLAIN)
    with pytest.raises(UsageError, match="3 classes, but the network has 2"):
        (yolo / "data.yaml").write_text("names: [a, b, c]\n")
        open_dataset(yolo, Preprocessing((16, 16), classes=("a", "b")))


XML = """<annotation><size><width>50</width><height>30</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>30</ymax></bndbox></object>
<object><name>person</name><difficult>1</difficult>
<bndbox><xmin>11</xmin><ymin>5</ymin><xmax>20</xmax><ymax>9</ymax></bndbox>
<part><name>head</name><bndbox><xmin>12</xmin><ymin>5</ymin><xmax>13</xmax><ymax>6</ymax></bndbox></part></object>
</annotation>"""


@pytest.mark.shows("MEA-39")
def test_a_training_takes_both_parts_and_no_image_twice(yolo: Path) -> None:
    split = open_split(str(yolo), PLAIN)
    assert split.held_out is not None and len(split.train) == len(split.held_out) == 3
    assert split.train.samples[0].source == yolo / "images/train/a.jpg"
    shutil.rmtree(yolo / "images/val")
    with pytest.raises(UsageError, match=r"3 images are in train and val, the first is .*images/train/a\.jpg"):
        open_split(str(yolo), PLAIN)


def test_a_folder_of_coco_has_parts(coco: Path, tmp_path: Path) -> None:
    assert open_dataset(tmp_path, PLAIN).identities() == ["a.png", "b.png", "empty.png"]
    shutil.copytree(tmp_path / "val", tmp_path / "train2017")
    shutil.copy(coco, coco.with_name("instances_train2017.json"))
    split = open_split(str(tmp_path), PLAIN)
    assert split.held_out is not None and split.held_out.samples[0].source == tmp_path / "val/a.png"
    assert split.train.samples[0].source == tmp_path / "train2017/a.png"
    shutil.copy(coco, coco.with_name("instances_val2.json"))
    with pytest.raises(UsageError, match=r"2 files of annotations: instances_val\.json, instances_val2\.json"):
        open_dataset(tmp_path, PLAIN)


@pytest.fixture()
def voc(tmp_path: Path) -> Path:
    photo(tmp_path / "JPEGImages/a.jpg", (30, 50))
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text(XML)
    return tmp_path


def test_pascal_voc_counts_pixels_from_one(voc: Path) -> None:
    (target,) = boxes(open_dataset(voc, PLAIN))
    assert target.xyxy.tolist() == [[0, 0, 50, 30], [10, 4, 20, 9]]
    assert target.labels.tolist() == [11, 14] and target.difficult.tolist() == [False, True]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<width>50", "<width>51", "51x30 pixels, but the image has 50x30"),
        ("<name>dog", "<name>wolf", "object 1: 'wolf' is none of the 20 classes"),
        ("<xmin>11", "<xmin>31", r"object 2: the box \(30, 4, 20, 9\) is inverted"),
        ("<xmax>50", "<xmax>52", r"object 1: the box \(0, 0, 52, 30\) leaves its image of 50x30"),
        ("<xmin>11", "<xmin>x", "object 2: xmin is 'x'"),
        ("</annotation>", "", "no XML: .*line 7"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "declares a document type"),
    ],
)
def test_wrong_xml_is_one_line(voc: Path, old: str, new: str, message: str) -> None:
    (voc / "Annotations/a.xml").write_text(XML.replace(old, new, 1))
    with pytest.raises(UsageError, match=rf"Annotations/a\.xml: {message}"):
        open_dataset(voc, PLAIN)


def test_entities_are_refused_in_every_encoding(voc: Path) -> None:
    bomb = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
    (voc / "Annotations/a.xml").write_bytes(bomb.encode("utf-16"))
    with pytest.raises(UsageError, match="declares a document type"):
        open_dataset(voc, PLAIN)


ARRAYS: dict[str, Any] = {
    "x": np.zeros((3, 3, 8, 12), np.float32),
    "boxes": np.asarray([[0, 0, 12, 8], [1, 1, 2, 3], [4, 4, 4.5, 5]]),
    "box_labels": np.asarray([2, 0, 1]),
    "box_samples": np.asarray([2, 0, 2]),
}


def test_arrays_with_boxes(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **ARRAYS, box_crowd=np.asarray([True, False, False]))
    data = open_dataset(tmp_path / "d.npz", None)
    found = boxes(data)
    assert [len(target) for target in found] == [1, 0, 2]
    assert found[2].xyxy.tolist() == [[0, 0, 12, 8], [4, 4, 4.5, 5]] and found[2].labels.tolist() == [2, 1]
    assert found[2].crowd.tolist() == [True, False]
    assert [len(target) for target in boxes(data.take([0, 2]))] == [1, 2]
    assert next(data.batches(3)).inputs.keys() == {"x"}


def test_arrays_with_masks(tmp_path: Path) -> None:
    masks = np.arange(3 * 8 * 12).reshape(3, 8, 12) % 5
    np.savez(tmp_path / "d.npz", x=ARRAYS["x"], masks=masks)
    data = open_dataset(tmp_path / "d.npz", None, limit=2)
    assert data.task == "segmentation"
    (batch,) = data.batches(4)
    assert batch.targets is not None and batch.inputs.keys() == {"x"}
    for target, wanted in zip(batch.targets, masks[[0, 1]], strict=True):
        assert isinstance(target, Mask)
        np.testing.assert_array_equal(target.labels, wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box_labels": None}, "has boxes, but no box_labels"),
        ({"box_labels": np.zeros(2, int)}, r"box_labels is int64 of shape \(2,\)"),
        ({"box_labels": np.zeros(3)}, "box_labels is float64"),
        ({"boxes": np.zeros((3, 5))}, r"boxes is float64 of shape \(3, 5\)"),
        ({"box_samples": np.asarray([0, 3, 1])}, r"boxes\[1\]: sample 3 of 3"),
        ({"boxes": np.asarray([[0, 0, 1, 1], [5, 5, 4, 6], [0, 0, 1, 1]])}, r"boxes\[1\]: the box .* is inverted"),
        (
            {"boxes": np.asarray([[0, 0, 1, 1], [5, 5, 6, 6], [0, 0, 1, 9.5]])},
            r"boxes\[2\]: .* leaves its image of 12x8",
        ),
        ({"masks": np.zeros((3, 8, 11), int)}, "masks have 11x8 pixels, the images 12x8"),
        ({"masks": np.zeros((3, 8, 12))}, "masks"),
        ({"masks": np.zeros((2, 8, 12), int)}, "differ in their number of samples"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = {key: array for key, array in {**ARRAYS, **changes}.items() if array is not None}
    if "masks" in changes:
        content = {"x": ARRAYS["x"], **changes}
    np.savez(tmp_path / "d.npz", **content)
    with pytest.raises(UsageError, match=message):
        open_dataset(tmp_path / "d.npz", None)


def test_targets_become_arrays_and_come_back(tmp_path: Path) -> None:
    given = [
        Boxes([[0, 0, 12, 8], [1, 2, 3, 4]], [2, 1], crowd=[False, True], difficult=[True, False], areas=[90.0, 4.0]),
        Boxes(np.zeros((0, 4)), []),
        Boxes([[2, 2, 2, 2]], [0]),
    ]
    np.savez(tmp_path / "b.npz", x=ARRAYS["x"], **target_arrays(given))
    assert [b.digest() for b in boxes(open_dataset(tmp_path / "b.npz", None))] == [b.digest() for b in given]
    masks = [Mask(np.full((8, 12), value, np.uint8)) for value in (0, 3, 255)]
    for form in (masks, np.stack([mask.labels for mask in masks])):
        np.savez(tmp_path / "m.npz", x=ARRAYS["x"], **target_arrays(form))
        (batch,) = open_dataset(tmp_path / "m.npz", None).batches(3)
        assert batch.targets is not None
        assert [target.digest() for target in batch.targets] == [mask.digest() for mask in masks]
    assert target_arrays([1, 0, 2]).keys() == {"labels"}
    with pytest.raises(UsageError, match="several sizes"):
        target_arrays([masks[0], Mask(np.zeros((3, 3), int))])


def test_random_coco_files_read_as_pycocotools_reads_them(tmp_path: Path) -> None:
    """Twenty files with overlapping polygons, run lengths and crowds at random places."""
    coco_tools = pytest.importorskip("pycocotools.coco")
    encoder = pytest.importorskip("pycocotools.mask")
    for seed in range(20):
        draw = np.random.default_rng(seed)
        height, width = (int(side) for side in draw.integers(12, 40, 2))
        photo(tmp_path / "i.png", (height, width))
        annotations: list[dict[str, Any]] = []
        for number in range(int(draw.integers(1, 7))):
            crowd = bool(draw.integers(0, 4) == 0)
            points = (draw.uniform(0, 1, (int(draw.integers(3, 7)), 2)) * (width, height)).round(2)
            (low_x, low_y), (high_x, high_y) = points.min(axis=0), points.max(axis=0)
            shape: Any = [points.ravel().tolist()]
            if crowd:
                shape = encoder.frPyObjects(shape, height, width)[0]
                shape = {"size": shape["size"], "counts": shape["counts"].decode()}
            box = [float(value) for value in (low_x, low_y, high_x - low_x, high_y - low_y)]
            fields = {"image_id": 1, "category_id": int(draw.integers(1, 4)), "iscrowd": int(crowd), "bbox": box}
            annotations.append({"id": number, "area": float(draw.uniform(1, 99)), "segmentation": shape, **fields})
        content = {
            "images": [{"id": 1, "file_name": "i.png", "height": height, "width": width}],
            "annotations": annotations,
            "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
        }
        path = written(tmp_path / "all.json", content)
        theirs = coco_tools.COCO(str(path))
        (found,) = boxes(open_dataset(path, PLAIN))
        np.testing.assert_allclose(found.xyxy[:, 2:] - found.xyxy[:, :2], [a["bbox"][2:] for a in annotations])
        layers = [(theirs.annToMask(a).astype(bool), a) for a in theirs.loadAnns(theirs.getAnnIds())]
        wanted = np.zeros((height, width), int)
        for row, column in np.ndindex(height, width):
            over = {255 if a["iscrowd"] else a["category_id"] for mask, a in layers if mask[row, column]}
            wanted[row, column] = 0 if not over else over.pop() if len(over) == 1 else 255
        (batch,) = open_dataset(path, PLAIN, task="segmentation").batches(1)
        assert batch.targets is not None and isinstance(batch.targets[0], Mask)
        np.testing.assert_array_equal(batch.targets[0].labels, wanted)
