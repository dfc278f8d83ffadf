"""What the report shows: states of boxes, colours of pixels, tables that are the metrics' own."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from csa_deploy.boxes import Detections
from csa_deploy.data.images import to_array
from csa_deploy.data.targets import Boxes, Mask
from csa_deploy.network import Preprocessing
from csa_deploy.records.task_views import DrawnSample, TrueBox
from csa_deploy.tasks.metrics import AveragePrecision, MeanIoU
from csa_deploy.tasks.task import Detection, Segmentation
from csa_deploy.tasks.views import (
    COLOURS,
    GAINED,
    LONGEST_SIDE,
    LOST,
    OTHER,
    SAME_PIXEL,
    class_table,
    curves,
    drawn,
    picture,
    size_table,
)


def _decode(outputs: dict[str, np.ndarray]) -> Detections:
    boxes = outputs["boxes"]
    return Detections(boxes[:, :4], boxes[:, 4], boxes[:, 5].astype(int))


def _outputs(*rows: tuple[float, ...]) -> dict[str, np.ndarray]:
    return {"boxes": np.asarray(rows, float).reshape(-1, 6)}


def test_a_box_is_the_same_moved_lost_or_new() -> None:
    reference = _outputs(
        (0, 0, 10, 10, 0.9, 0), (20, 0, 30, 10, 0.8, 1), (40, 0, 50, 10, 0.7, 0), (60, 0, 70, 10, 0.6, 2)
    )
    candidate = _outputs((0, 0, 10, 10, 0.9, 0), (20, 0, 28, 10, 0.8, 1), (60, 0, 70, 10, 0.6, 1))
    target = Boxes(np.asarray([[0, 0, 10, 10]]), np.asarray([0]))
    row = drawn(Detection(("a", "b"), _decode), reference, candidate, target)
    assert [(b.state, b.kind_of_object, b.xyxy[0]) for b in row.boxes] == [
        ("same", "a", 0.0),
        ("moved", "b", 20.0),
        ("lost", "a", 40.0),
        ("lost", "class 2", 60.0),
        ("new", "b", 60.0),
    ]
    assert row.boxes[1].moved_from == (20.0, 0.0, 30.0, 10.0)
    assert row.alike == pytest.approx(2 / 7)
    assert row.truth == (TrueBox((0.0, 0.0, 10.0, 10.0), "a"),)


def test_weak_boxes_are_counted_and_not_drawn() -> None:
    """What is below a quarter of the highest score is not drawn, but counts for what is alike all the same."""
    reference = _outputs((0, 0, 10, 10, 0.8, 0), (20, 0, 30, 10, 0.2, 1), (40, 0, 50, 10, 0.19, 1))
    candidate = _outputs((0, 0, 10, 10, 0.8, 0))
    row = drawn(Detection(("a", "b"), _decode), reference, candidate, None)
    assert [(box.state, box.score) for box in row.boxes] == [("same", 0.8), ("lost", 0.2)]
    assert row.weak == 1 and row.alike == pytest.approx(2 / 4)


def test_two_empty_samples() -> None:
    row = drawn(Detection((), _decode), _outputs(), _outputs(), None)
    assert row == DrawnSample()


def _pixels(url: str) -> np.ndarray:
    content = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def _rgb(colour: str) -> list[int]:
    return list(bytes.fromhex(colour[1:]))


def test_pixels_are_alike_lost_gained_or_wrong_on_both_sides() -> None:
    reference, candidate = (
        {"map": np.eye(3)[np.asarray([row])].transpose(2, 0, 1)} for row in ([0, 1, 2, 1, 1], [0, 2, 1, 2, 2])
    )
    target = Mask(np.asarray([[0, 1, 1, 0, 255]]))
    row = drawn(Segmentation(), reference, candidate, target)
    found = _pixels(row.pictures["difference"])[0].tolist()
    assert found == [_rgb(c) for c in (SAME_PIXEL, LOST, GAINED, OTHER, SAME_PIXEL)]
    assert _pixels(row.pictures["reference"])[0, 1].tolist() == _rgb(COLOURS[1])
    assert _pixels(row.pictures["truth"])[0, 4].tolist() == [0, 0, 0]
    assert row.seen == (0, 1, 2) and row.alike == pytest.approx(0.2)
    unlabelled = drawn(Segmentation(), reference, candidate, None)
    assert "truth" not in unlabelled.pictures
    assert _pixels(unlabelled.pictures["difference"])[0].tolist() == [_rgb(SAME_PIXEL)] + 4 * [_rgb(LOST)]


def test_a_large_mask_is_drawn_small() -> None:
    outputs = {"map": np.random.default_rng(0).random((4, 400, 700))}
    url = drawn(Segmentation(), outputs, outputs, None).pictures["reference"]
    assert max(_pixels(url).shape[:2]) <= LONGEST_SIDE
    small = _pixels(url)[5, 7].tolist()
    step = 700 / LONGEST_SIDE
    assert small == _rgb(COLOURS[int(outputs["map"][:, int(5 * step), int(7 * step)].argmax())])


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing((40, 60), crop=1.0),
        Preprocessing((40, 60), crop=1.0, mode="BGR", layout="NHWC", scale=1.0, mean=(104.0, 117.0, 123.0), std=(1.0,)),
        Preprocessing((40, 60), crop=1.0, mode="L", mean=(0.1,), std=(0.3,)),
    ],
)
def test_the_input_is_shown_as_the_image_that_it_was(how: Preprocessing) -> None:
    ramp = np.add.outer(np.linspace(0, 120, 40), np.linspace(0, 100, 60))
    pixels = np.stack([ramp, 200 - ramp, ramp / 2 + 60], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels).convert(how.decoded)
    size, url = picture(to_array(image, how), how)
    assert size == (40, 60) and url is not None
    shown = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert np.abs(np.asarray(shown, float) - np.asarray(image.convert("RGB"), float)).mean() < 4


def test_tensors_of_no_image_have_no_picture() -> None:
    assert picture(np.zeros((7, 4, 6)), None) == ((4, 6), None)
    assert picture(np.zeros(5), None) == ((1, 1), None)
    assert str(picture(np.random.default_rng(0).random((3, 4, 6)), None)[1]).startswith("data:image/jpeg")


def test_tables_mean_what_the_metric_says() -> None:
    rng = np.random.default_rng(1)
    task = Segmentation(("a", "b", "c", "d"))
    rows = []
    for _ in range(2):
        masks = [Mask(rng.integers(0, 3, (6, 6))) for _ in range(4)]
        rows.append(np.stack([MeanIoU(task).update({"m": rng.random((4, 6, 6))}, mask) for mask in masks]))
    table = class_table(task, *rows)
    assert [row.name for row in table] == ["a", "b", "c", "d"]
    for side, one in zip(("reference", "candidate"), rows, strict=True):
        assert np.mean([getattr(row, side) for row in table]) == pytest.approx(MeanIoU(task).reduce(one), abs=1e-12)
    assert class_table(task, None, rows[1]) == ()


def test_tables_of_boxes_mean_what_the_metric_says() -> None:
    pytest.importorskip("pycocotools")
    task = Detection(("a", "b"), _decode)
    metric = AveragePrecision(task)
    truth = [
        Boxes(np.asarray([[0, 0, 20, 20], [50, 50, 150, 160]]), np.asarray([0, 1])),
        Boxes(np.zeros((0, 4)), np.zeros(0)),
    ]
    sides = [_outputs((0, 0, 19, 20, 0.9, 0), (50, 50, 150, 150, 0.5, 1)), _outputs((3, 0, 20, 20, 0.9, 0))]
    rows = [np.stack([metric.update(side, target) for target in truth]) for side in sides]
    table, sizes = class_table(task, *rows), size_table(*rows)
    for side, one in zip(("reference", "candidate"), rows, strict=True):
        assert np.mean([getattr(row, side) for row in table]) == pytest.approx(metric.reduce(one), abs=1e-12)
        assert getattr(sizes[0], side) == pytest.approx(metric.reduce(one), abs=1e-12)
    assert [row.name for row in sizes] == ["all", "small", "medium", "large"] and sizes[2].reference is None
    drawn_curves = curves(*rows)
    assert len(drawn_curves.recall) == len(drawn_curves.candidate) == 101
    assert drawn_curves.reference[0] == pytest.approx(1.0)
