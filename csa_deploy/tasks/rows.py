"""The table of a sample's boxes as one row of fixed length: three numbers per box, so that rows of samples stack.

A number holds up to 52 bits exactly: (score), (class, bits for objects of all sizes and of small ones) and (what the
row of the table is, bits for medium and large ones); see :func:`csa_deploy.tasks.detection.match`.
"""

from __future__ import annotations

import numpy as np

from csa_deploy.errors import UsageError

MOST_BOXES = 100
"""Boxes of a sample that count, the strongest: COCO's number."""
MOST_CLASSES = 60
"""Classes of one sample."""
LENGTH = 3 * (MOST_BOXES + MOST_CLASSES)
_FIELD = 2.0**20
_NOTHING, _BOX, _OBJECTS = 0, 1, 2


def packed(table: np.ndarray) -> np.ndarray:
    """A table (rows, 6) as (:data:`LENGTH`,).

    Raises:
        UsageError: more classes on a sample than :data:`MOST_CLASSES`.
    """
    if 3 * len(table) > LENGTH:
        raise UsageError(
            f"{len(np.unique(table[:, 1]))} classes on one sample; at most {MOST_CLASSES} can be kept",
            fix="group classes, or raise the score threshold",
        )
    found = np.zeros((LENGTH // 3, 3))
    is_box = ~np.isnan(table[:, 0])
    found[: len(table), 0] = np.where(is_box, table[:, 0], 0.0)
    found[: len(table), 1] = (table[:, 1] * _FIELD + table[:, 2]) * _FIELD + table[:, 3]
    found[: len(table), 2] = (np.where(is_box, _BOX, _OBJECTS) * _FIELD + table[:, 4]) * _FIELD + table[:, 5]
    return found.ravel()


def unpacked(row: np.ndarray) -> np.ndarray:
    """Inverse of :func:`packed`."""
    parts = row.reshape(-1, 3)
    high, middle, low = zip(*(_fields(parts[:, i]) for i in (1, 2)), strict=True)
    there = high[1] != _NOTHING
    scores = np.where(high[1] == _BOX, parts[:, 0], np.nan)
    return np.stack([scores, high[0], middle[0], low[0], middle[1], low[1]], axis=1)[there]


def _fields(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rest, low = np.divmod(values, _FIELD)
    high, middle = np.divmod(rest, _FIELD)
    return high, middle, low
