"""Segmentation: the class of every pixel, and intersection over union per class.

A sample's row is three counts per class; those of a whole set are their sums, so memory does not grow with images.
"""

from __future__ import annotations

import numpy as np

HITS, WANTED, FOUND = range(3)
"""Rows of the counts: pixels of the class in both, in the first, in the second mask."""


def classes_of(output: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The class of every pixel, int64 of shape (N, H, W).

    Args:
        output: class scores (N, classes, H, W), of which the strongest counts; probabilities of one class (N, 1, H, W),
            which give class 1 from ``threshold`` on; or classes themselves, integers (N, H, W) or (N, 1, H, W).
        threshold: of a single probability.

    Raises:
        ValueError: another shape.
    """
    if output.dtype.kind in "iu" and output.ndim in (3, 4) and (output.ndim == 3 or output.shape[1] == 1):
        return np.asarray(output.reshape(len(output), *output.shape[-2:]), np.int64)
    if output.ndim != 4:
        raise ValueError(f"an output of shape {output.shape} is no map (N, classes, H, W)")
    if output.shape[1] == 1:
        return (output[:, 0] >= threshold).astype(np.int64)
    return np.asarray(output.argmax(axis=1), np.int64)


def class_count(output: np.ndarray) -> int:
    """Classes of an output of scores; 2 of a single probability, 0 where the output holds classes."""
    return 0 if output.dtype.kind in "iu" else max(2, output.shape[1])


def counts(wanted: np.ndarray, found: np.ndarray, classes: int, ignore: int | None = None) -> np.ndarray:
    """Pixels per class, float64 of shape (3, classes), see :data:`HITS`.

    Args:
        wanted: classes of the first mask, integers of any shape.
        found: of the second, of the same shape.
        ignore: class of the first mask whose pixels do not count.

    Raises:
        ValueError: masks of unlike shape, or a class that there is not.
    """
    if wanted.shape != found.shape:
        raise ValueError(f"masks of {wanted.shape} and {found.shape} pixels cannot be compared")
    if ignore is not None:
        counted = wanted != ignore
        wanted, found = wanted[counted], found[counted]
    first, second = wanted.ravel().astype(np.int64), found.ravel().astype(np.int64)
    for mask in (first, second):
        if len(mask) and not 0 <= mask.min() <= mask.max() < classes:
            raise ValueError(f"classes {mask.min()}..{mask.max()} of a mask are not among 0..{classes - 1}")
    sides = (first[first == second], first, second)
    return np.stack([np.bincount(side, minlength=classes) for side in sides]).astype(np.float64)


def class_iou(table: np.ndarray) -> np.ndarray:
    """IoU of every class from counts (..., 3, classes), as (..., classes); NaN of a class that neither mask has."""
    union = table[..., WANTED, :] + table[..., FOUND, :] - table[..., HITS, :]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(union > 0, table[..., HITS, :] / np.where(union > 0, union, 1.0), np.nan))


def mean_iou(table: np.ndarray) -> np.ndarray:
    """Mean of :func:`class_iou` over the classes that are there, as (...); NaN where there are none."""
    found = class_iou(table)
    there = ~np.isnan(found)
    number = there.sum(axis=-1)
    return np.asarray(np.where(number > 0, np.where(there, found, 0.0).sum(axis=-1) / np.maximum(number, 1), np.nan))


def agreement(table: np.ndarray) -> np.ndarray:
    """Share of pixels of the same class in both masks, as (...); NaN where no pixel counts."""
    hits, total = table[..., HITS, :].sum(axis=-1), table[..., WANTED, :].sum(axis=-1)
    return np.asarray(np.where(total > 0, hits / np.maximum(total, 1.0), np.nan))
