"""Losses of segmentation and detection against the formulas, pixel by pixel and place by place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, log_softmax, softmax

from csa_deploy import boxes as plain
from csa_deploy.train.losses import CENTRE, COARSER, assign, detection_loss, overlaps, points, segmentation_loss


def random_boxes(random: np.random.Generator, count: int, side: int = 128) -> np.ndarray:
    corners = random.uniform(0, side - 3, (count, 2))
    return np.concatenate([corners, np.minimum(corners + random.uniform(0.5, 60, (count, 2)), side)], axis=1)


@pytest.mark.parametrize("background", [None, 0, 2])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
def test_segmentation_loss_is_cross_entropy_and_dice(ignored, background):
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 5, 6, 7))
    classes = random.integers(0, 4, (2, 6, 7))  # class 4 is not there
    classes[random.random(classes.shape) < ignored] = -1
    found = float(segmentation_loss(torch.from_numpy(logits), torch.from_numpy(classes), background))
    if ignored == 1.0:
        assert np.isnan(found)  # nothing to learn from: the loop stops and keeps the batch
        return
    logs, shares = log_softmax(logits, axis=1), softmax(logits, axis=1)
    others = [kind for kind in range(5) if kind != background]
    entropies, among, both, either = [], [], np.zeros(5), np.zeros(5)
    for n, y, x in np.argwhere(classes >= 0):
        kind = classes[n, y, x]
        entropies.append(-logs[n, kind, y, x] * (1 if background in (None, kind) else 2))
        if background is not None and kind != background:
            among.append(-log_softmax(logits[n, others, y, x])[others.index(kind)])
        both[kind] += shares[n, kind, y, x]
        either += shares[n, :, y, x]
        either[kind] += 1
    there = np.unique(classes[classes >= 0])
    expected = np.mean(entropies) + np.mean(1 - 2 * both[there] / either[there]) + (2 * np.mean(among) if among else 0)
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_batch_of_background_alone_has_a_loss():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.zeros(1, 4, 4, dtype=torch.int64), background=0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_overlaps_are_those_of_the_pixels():
    random = np.random.default_rng(1)
    first, second = (np.sort(random.integers(0, 12, (200, 2, 2)), axis=1).reshape(200, 4) for _ in range(2))
    iou, giou = (t.numpy() for t in overlaps(*(torch.from_numpy(b.astype(np.float64)) for b in (first, second))))
    for a, b, one, general in zip(first, second, iou, giou, strict=True):
        pixels = [{(x, y) for x in range(c[0], c[2]) for y in range(c[1], c[3])} for c in (a, b)]
        hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        union = len(pixels[0] | pixels[1])
        expected = len(pixels[0] & pixels[1]) / union if union else 0.0
        assert one == pytest.approx(expected, abs=1e-9)
        if union:
            assert general == pytest.approx(expected - (hull - union) / hull, abs=1e-6)
    inverted = torch.tensor([[5.0, 5.0, 1.0, 9.0]])
    assert float(overlaps(inverted, torch.tensor([[0.0, 0.0, 4.0, 4.0]]))[0]) == 0.0


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    places = [points(128 // s, 128 // s, stride=s) for s in (8, 16)]
    return torch.cat(places), torch.cat([torch.full((len(p),), float(s)) for p, s in zip(places, (8, 16), strict=True)])


def test_points_are_the_centres_of_their_cells():
    assert points(2, 3, stride=8).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_places_learn_the_smallest_box_of_their_level_near_its_centre():
    random = np.random.default_rng(2)
    places, strides = grid()
    sets = np.stack([random_boxes(random, 6) for _ in range(20)])
    valid = random.random((20, 6)) < 0.8
    found = assign(places, strides, torch.from_numpy(sets), torch.from_numpy(valid)).numpy()
    hits = 0
    for image, (boxes, there) in enumerate(zip(sets, valid, strict=True)):
        for place, ((x, y), stride) in enumerate(zip(places.tolist(), strides.tolist(), strict=True)):
            best = (np.inf, -1)
            for index, (left, top, right, bottom) in enumerate(boxes):
                level = 8.0 if max(right - left, bottom - top) <= COARSER * 8 else 16.0
                near = all(
                    abs(at - (low + high) / 2) <= max(min((high - low) / 2, CENTRE * stride), stride / 2)
                    for at, low, high in ((x, left, right), (y, top, bottom))
                )
                if there[index] and near and level == stride:
                    best = min(best, ((right - left) * (bottom - top), index))
            assert found[image, place] == best[1]
            hits += best[1] >= 0
    assert hits > 200


def test_every_box_has_a_place_however_thin_or_large():
    random = np.random.default_rng(3)
    boxes = random_boxes(random, 400)
    boxes[:100, 2] = boxes[:100, 0] + 0.6
    boxes[100] = [0, 0, 128, 128]
    places, strides = grid()
    found = assign(places, strides, torch.from_numpy(boxes)[:, None], torch.ones(400, 1, dtype=torch.bool))
    assert (found >= 0).any(dim=1).all()
    nothing = assign(places, strides, torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool))
    assert nothing.shape == (2, 320) and (nothing == -1).all()


def raw(random: np.random.Generator, images: int) -> dict[str, np.ndarray]:
    outputs: dict[str, np.ndarray] = {}
    for stride in (8, 16):
        side = 128 // stride
        outputs[f"logits_{stride}"] = random.normal(-2, 1.5, (images, 3, side, side))
        outputs[f"distances_{stride}"] = random.normal(1.5, 1, (images, 4, side, side))
    return outputs


def test_detection_loss_is_quality_focal_loss_and_giou():
    random = np.random.default_rng(4)
    outputs = raw(random, 3)
    boxes = np.stack([random_boxes(random, 4) for _ in range(3)])
    labels = random.integers(0, 3, (3, 4))
    labels[1, 2:], labels[2] = -1, -1
    tensors = {name: torch.from_numpy(values) for name, values in outputs.items()}
    found = float(detection_loss(tensors, torch.from_numpy(boxes), torch.from_numpy(labels)))

    places, strides = grid()
    assigned = assign(places, strides, torch.from_numpy(boxes), torch.from_numpy(labels >= 0)).numpy()
    read = plain.Postprocessing(("logits_8", "logits_16"), ("distances_8", "distances_16"), (8, 16))
    levels = [read._level(outputs, f"logits_{s}", f"distances_{s}", s)[1] for s in (8, 16)]
    predicted = np.concatenate(levels, axis=1)  # by the code that deployment decodes with
    logits = np.concatenate([outputs[f"logits_{s}"].reshape(3, 3, -1) for s in (8, 16)], axis=2)
    classes = boxed = among = 0.0
    for n in range(3):
        for place in range(len(places)):
            quality, box = np.zeros(3), assigned[n, place]
            if box >= 0:
                a, b = predicted[n, place], boxes[n, box]
                iou = plain.overlaps(a[None], b[None])[0, 0]
                hull = [max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])]
                union = plain.areas(a[None])[0] + plain.areas(b[None])[0]
                union -= iou * union / (1 + iou)  # the common part is iou / (1 + iou) of both areas
                quality[labels[n, box]] = iou
                among -= log_softmax(logits[n, :, place])[labels[n, box]]
                boxed += 1 - (iou - (hull[0] * hull[1] - union) / (hull[0] * hull[1]))
            z = logits[n, :, place]
            entropy = -(quality * log_expit(z) + (1 - quality) * log_expit(-z))
            classes += ((expit(z) - quality) ** 2 * entropy).sum()
    assert found == pytest.approx((classes + 2 * boxed + among / 2) / (assigned >= 0).sum(), rel=1e-6)


def test_detection_loss_of_images_without_objects_is_of_their_scores_alone():
    outputs = {name: torch.from_numpy(values) for name, values in raw(np.random.default_rng(5), 2).items()}
    none = torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64)
    loud = detection_loss(outputs, *none)
    quiet = detection_loss({n: v - 20 if n.startswith("logits") else v for n, v in outputs.items()}, *none)
    assert torch.isfinite(loud) and loud > 100 * quiet >= 0


def test_true_boxes_have_the_least_loss():
    """Outputs that say just what is true cost nothing; a stride off by one, or width for right side, costs."""
    boxes, labels = torch.tensor([[[20.0, 30, 44, 50], [70, 60, 118, 120]]]), torch.tensor([[2, 0]])
    places, strides = grid()
    assigned = assign(places, strides, boxes, labels >= 0)[0]
    outputs = {}
    for stride in (8, 16):
        rows = strides == stride
        box, at = boxes[0][assigned[rows].clamp(min=0)], places[rows]
        sides = torch.cat([at - box[:, :2], box[:, 2:] - at], dim=1) / stride
        logits = torch.full((len(at), 3), -30.0)
        there = assigned[rows] >= 0
        logits[there, labels[0][assigned[rows][there]]] = 30.0
        side = 128 // stride
        outputs[f"logits_{stride}"] = logits.T.reshape(1, 3, side, side)
        outputs[f"distances_{stride}"] = sides.T.reshape(1, 4, side, side)
    assert float(detection_loss(outputs, boxes, labels)) < 1e-5
    for fault in (lambda d: d * 9 / 8, lambda d: torch.cat([d[:, :2], d[:, :2] + d[:, 2:]], dim=1)):
        faulty = {n: fault(v) if n.startswith("distances") else v for n, v in outputs.items()}
        assert float(detection_loss(faulty, boxes, labels)) > 0.2
