"""Average precision against pycocotools run as a whole, and agreement against brute force."""

import contextlib
import io
import itertools

import numpy as np
import pytest

from csa_deploy.boxes import NO_BOXES, Detections, overlaps
from csa_deploy.tasks.detection import (
    IOUS,
    RECALLS,
    SIZES,
    Objects,
    Precision,
    agreeing,
    detection_agreement,
    match,
    pairs,
)

coco = pytest.importorskip("pycocotools.coco")
cocoeval = pytest.importorskip("pycocotools.cocoeval")


def _images(seed: int) -> list[tuple[Objects, Detections]]:
    rng = np.random.default_rng(seed)
    classes, images = int(rng.integers(1, 5)), []
    for _ in range(int(rng.integers(1, 8))):
        count = int(rng.integers(0, 7))
        corner = rng.random((count, 2)) * 200
        xyxy = np.concatenate([corner, corner + rng.choice([20.0, 60.0, 150.0], (count, 1)) * (0.5 + rng.random())], 1)
        kinds = rng.integers(0, classes, count)
        crowd = rng.random(count) < (0.2 if seed % 3 == 0 else 0.0)
        sides = (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1)
        truth = Objects(xyxy, kinds, crowd, np.zeros(count, bool), sides * (0.7 if seed % 2 else 1.0))
        repeated = np.repeat(np.arange(count), rng.integers(0, 3, count))
        moved = xyxy[repeated] + rng.normal(0, 4, (len(repeated), 4)) * rng.integers(0, 3)
        noise = np.concatenate([rng.random((3, 2)) * 100, 120 + rng.random((3, 2)) * 100], axis=1)
        boxes = np.concatenate([moved, noise])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        swapped = np.where(rng.random(len(repeated)) < 0.2, rng.integers(0, classes, len(repeated)), kinds[repeated])
        labels = np.concatenate([swapped, rng.integers(0, classes, 3)])
        scores = rng.integers(1, 12, len(boxes)) / 12 if seed % 5 == 0 else rng.random(len(boxes))  # ties as well
        images.append((truth, Detections(boxes, scores, labels) if rng.random() < 0.9 else NO_BOXES))
    return images


def _library(images: list[tuple[Objects, Detections]]) -> "cocoeval.COCOeval":
    classes = range(5)
    truth = {
        "images": [{"id": i} for i in range(len(images))],
        "categories": [{"id": c} for c in classes],
        "annotations": [],
        "info": {},
    }
    found = []
    for image, (objects, boxes) in enumerate(images):
        for i in range(len(objects.classes)):
            x0, y0, x1, y1 = objects.xyxy[i].tolist()
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image,
                    "category_id": int(objects.classes[i]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float(objects.areas[i]),
                    "iscrowd": int(objects.crowd[i]),
                }
            )
        for box, score, kind in zip(boxes.xyxy.tolist(), boxes.scores.tolist(), boxes.classes.tolist(), strict=True):
            x0, y0, x1, y1 = box
            found.append({"image_id": image, "category_id": kind, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.COCO()
        data.dataset = truth
        data.createIndex()
        evaluation = cocoeval.COCOeval(data, data.loadRes(found) if found else _empty(data), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _empty(data: "coco.COCO") -> "coco.COCO":
    nothing = coco.COCO()
    nothing.dataset = {**data.dataset, "annotations": []}
    nothing.createIndex()
    return nothing


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.shows("MEA-28")
def test_average_precision_is_that_of_the_library(seed: int) -> None:
    images = _images(seed)
    theirs = _library(images)
    ours = Precision([match(*image) for image in images])
    wanted = theirs.stats[:6]
    got = [ours.mean()[0], ours.mean(ious=slice(0, 1))[0], ours.mean(ious=slice(5, 6))[0]]
    got += [ours.mean(size)[0] for size in SIZES[1:]]
    assert np.nan_to_num(got, nan=-1.0) == pytest.approx(wanted, abs=1e-9)
    for kind in ours.classes:
        assert ours.curve(kind) == pytest.approx(theirs.eval["precision"][0, :, kind, 0, 2], abs=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_an_image_drawn_twice_counts_as_two_images(seed: int) -> None:
    images = _images(seed)
    rows = [match(*image) for image in images]
    times = np.random.default_rng(seed).integers(0, 3, (6, len(images))).astype(float)
    whole = Precision(rows)
    for draw, got in zip(times, whole.mean(times=times), strict=True):
        drawn = list(itertools.chain.from_iterable([row] * int(n) for row, n in zip(rows, draw, strict=True)))
        assert got == pytest.approx(Precision(drawn).mean()[0], abs=1e-9, nan_ok=True)


def test_a_difficult_object_is_neither_missed_nor_is_its_box_wrong() -> None:
    box = np.asarray([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]])
    truth = Objects(box, np.zeros(2, int), np.zeros(2, bool), np.asarray([False, True]), np.asarray([100.0, 400.0]))
    for shown in (box, box[:1]):
        found = Detections(shown, np.linspace(0.8, 0.9, len(shown)), np.zeros(len(shown), int))
        assert Precision([match(truth, found)]).mean()[0] == pytest.approx(1.0, abs=1e-9)


def test_without_any_object_there_is_no_precision() -> None:
    assert np.isnan(Precision([]).mean()[0])
    none = np.zeros(0)
    truth = Objects(np.zeros((0, 4)), none.astype(int), none.astype(bool), none.astype(bool), none)
    found = Detections(np.asarray([[0.0, 0.0, 5.0, 5.0]]), np.asarray([0.5]), np.zeros(1, int))
    ours = Precision([match(truth, NO_BOXES), match(truth, found)])
    assert np.isnan(ours.mean()[0]) and ours.classes == () and (ours.curve(0) == 0).all()


def test_an_inverted_box_matches_nothing() -> None:
    box = np.asarray([[10.0, 10.0, 30.0, 30.0]])
    truth = Objects(box, np.zeros(1, int), np.zeros(1, bool), np.zeros(1, bool), np.asarray([400.0]))
    for found, wanted in ((box, 1.0), (box[:, [2, 3, 0, 1]], 0.0), (box[:, [2, 1, 0, 3]], 0.0)):
        row = match(truth, Detections(found, np.ones(1), np.zeros(1, int)))
        assert Precision([row]).mean()[0] == pytest.approx(wanted, abs=1e-9)


def test_the_thresholds_are_those_of_coco() -> None:
    assert np.array_equal(IOUS, cocoeval.Params(iouType="bbox").iouThrs)
    assert np.array_equal(RECALLS, cocoeval.Params(iouType="bbox").recThrs)


@pytest.mark.parametrize("seed", range(30))
def test_agreement_is_the_largest_matching_of_boxes_that_do_not_overlap_much(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = 100.0 * rng.permutation(10)[: rng.integers(0, 7), None] + rng.random((1, 2))
    first = Detections(
        np.concatenate([corner, corner + 50], 1), rng.random(len(corner)), rng.integers(0, 2, len(corner))
    )
    kept = first.of(rng.permutation(len(first))[: rng.integers(0, 7)])
    second = Detections(kept.xyxy + rng.choice([0.0, 1.0, 9.0], (len(kept), 4)), kept.scores, kept.classes.copy())
    if len(second):
        second.classes[0] = rng.integers(0, 2)
    same = (overlaps(first.xyxy, second.xyxy) >= 0.9) & (first.classes[:, None] == second.classes[None])
    best = max(
        (
            sum(same[i, j] for i, j in enumerate(chosen) if j < len(second))
            for chosen in itertools.permutations(range(max(len(first), len(second))), len(first))
        ),
        default=0,
    )
    assert len(pairs(first, second)) == best
    assert agreeing(first, second).tolist() == agreeing(second, first).tolist() == [2 * best, len(first) + len(second)]


def test_agreement_counts_lost_and_new_boxes_alike() -> None:
    xyxy = np.asarray([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [40.0, 0.0, 50.0, 10.0]])
    three = Detections(xyxy, np.ones(3), np.zeros(3, int))
    two = three.of(np.arange(2))
    rows = np.stack(
        [agreeing(three, two), agreeing(two, three), agreeing(three, NO_BOXES), agreeing(NO_BOXES, NO_BOXES)]
    )
    assert detection_agreement(rows).tolist() == [0.8, 0.8, 0.0, 1.0]
    assert detection_agreement(rows.sum(axis=0)) == 8 / 13


def test_boxes_are_the_same_from_nine_tenths_on() -> None:
    whole = Detections(np.asarray([[0.0, 0.0, 10.0, 10.0]]), np.ones(1), np.zeros(1, int))
    for right, agrees in ((9.0, True), (8.99, False)):
        other = Detections(np.asarray([[0.0, 0.0, right, 10.0]]), np.ones(1), np.zeros(1, int))
        assert bool(len(pairs(whole, other))) == agrees
    other = Detections(whole.xyxy, np.ones(1), np.ones(1, int))
    assert not len(pairs(whole, other))
