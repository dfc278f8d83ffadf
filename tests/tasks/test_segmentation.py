"""IoU against torchmetrics and pixel by pixel."""

import numpy as np
import pytest
import torch

from csa_deploy.tasks.segmentation import agreement, class_count, class_iou, classes_of, counts, mean_iou


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.shows("MEA-28")
def test_mean_iou_is_that_of_torchmetrics(seed: int) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(seed)
    classes, images = int(rng.integers(2, 8)), int(rng.integers(1, 5))
    present = rng.integers(1, classes + 1)  # often some classes are nowhere
    wanted, found = (rng.integers(0, present, (images, 9, 7)) for _ in range(2))
    ignored = rng.random(wanted.shape) < (0.2 if seed % 2 else 0.0)
    wanted = np.where(ignored, 255, wanted)
    ours = sum(counts(w, f, classes, 255) for w, f in zip(wanted, found, strict=True))
    tensors = torch.from_numpy(found), torch.from_numpy(wanted), classes
    shares = functional.multiclass_jaccard_index(*tensors, ignore_index=255, average="none").numpy()
    there = ~np.isnan(class_iou(ours))
    assert class_iou(ours)[there] == pytest.approx(shares[there], abs=1e-7)  # which divides in float32
    table = functional.multiclass_confusion_matrix(*tensors, ignore_index=255).numpy()
    union = (table.sum(axis=0) + table.sum(axis=1) - np.diag(table))[there]
    assert float(mean_iou(ours)) == pytest.approx((np.diag(table)[there] / union).mean(), abs=1e-9)
    exact = [_by_pixel(wanted, found, kind) for kind in range(classes)]
    exact = [value for value in exact if value is not None]
    assert float(mean_iou(ours)) == pytest.approx(sum(exact) / len(exact), abs=1e-12)
    counted = wanted != 255
    assert float(agreement(ours)) == pytest.approx((wanted == found)[counted].mean(), abs=1e-12)


def _by_pixel(wanted: np.ndarray, found: np.ndarray, kind: int) -> float | None:
    pixels = [(w == kind, f == kind) for w, f in zip(wanted.ravel(), found.ravel(), strict=True) if w != 255]
    union = sum(w or f for w, f in pixels)
    return sum(w and f for w, f in pixels) / union if union else None


def test_of_many_sets_at_once() -> None:
    table = np.random.default_rng(0).integers(0, 9, (5, 4, 3))
    hits = np.minimum(table[..., :2].min(axis=-1), 4)
    stacked = np.stack([hits, *np.moveaxis(table[..., :2], -1, 0)], axis=1).astype(float)
    assert mean_iou(stacked) == pytest.approx([float(mean_iou(one)) for one in stacked])


def test_a_mask_without_any_counted_pixel() -> None:
    table = counts(np.full((2, 2), 255), np.zeros((2, 2), int), 3, 255)
    assert np.isnan(class_iou(table)).all() and np.isnan(mean_iou(table)) and np.isnan(agreement(table))


@pytest.mark.parametrize(("low", "high"), [(-1, 0), (0, 3)])
def test_a_class_that_there_is_not_is_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=r"not among 0\.\.2"):
        counts(np.asarray([low, high]), np.asarray([0, 0]), 3)


def test_masks_of_unlike_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        counts(np.zeros((2, 2), int), np.zeros((2, 3), int), 3)


def test_classes_of_scores_of_a_probability_and_of_classes() -> None:
    scores = np.random.default_rng(0).random((2, 4, 3, 5))
    assert np.array_equal(classes_of(scores)[1], scores[1].argmax(axis=0)) and class_count(scores) == 4
    single = np.asarray([[[[0.49, 0.5]]]])
    assert classes_of(single).tolist() == [[[0, 1]]] and class_count(single) == 2
    assert classes_of(single, 0.6).tolist() == [[[0, 0]]]
    chosen = np.asarray([[[2, 1]]], np.int32)
    assert np.array_equal(classes_of(chosen), chosen) and class_count(chosen) == 0
    assert np.array_equal(classes_of(chosen[:, None]), chosen)
    with pytest.raises(ValueError, match="no map"):
        classes_of(np.zeros((2, 3)))
