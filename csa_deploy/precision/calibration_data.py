"""Calibration data: any data set, read leniently, or random numbers; and what must be said of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from csa_deploy.data.arrays import RANDOM, RandomDataset
from csa_deploy.data.base import Dataset
from csa_deploy.data.dataset import open_dataset
from csa_deploy.network import Preprocessing, Task

_LOG = logging.getLogger(__name__)

RECOMMENDED = 64
"""Images below which a warning is given."""
NEARLY = 1e-3
"""Of its largest value: an input that varies by no more counts as constant."""
_RANDOM_SAMPLES = 64


def open_calibration(
    spec: str,
    preprocessing: Preprocessing | None,
    shapes: Mapping[str, Sequence[int]],
    *,
    samples: int | None = None,
    seed: int = 0,
    task: Task | None = None,
    sequences: bool = False,
) -> Dataset:
    """Open calibration data.

    Args:
        spec: as :func:`csa_deploy.data.dataset.open_dataset` takes it, or ``random``.
        preprocessing: the network's.
        shapes: shape by network input, for random numbers.
        samples: use at most this many, drawn with ``seed``.
        seed: of the draw, and of random numbers.
        task: what targets are wanted of data that could give several.
        sequences: whether they are frames of sequences.

    Raises:
        UsageError: nothing there, or images for a network without preprocessing.
        EnvironmentLacksError: the package of a named set is not installed.
    """
    if spec == RANDOM:
        return RandomDataset(shapes, samples or _RANDOM_SAMPLES, seed)
    return open_dataset(spec, preprocessing, limit=samples, seed=seed, lenient=True, task=task, sequences=sequences)


def constant_inputs(data: Dataset) -> list[str]:
    """Inputs that are the same, or nearly, in all samples: INT8 knows nothing of how they vary.

    Reads on only as long as an input has not varied, which mostly are two samples.
    """
    first: dict[str, np.ndarray] = {}
    constant: list[str] = []
    count = 0
    for batch in data.batches(1):
        count += 1
        if not first:
            first = {name: array.astype(np.float64) for name, array in batch.inputs.items()}
            constant = list(first)
            continue
        constant = [name for name in constant if not _varies(first[name], batch.inputs[name])]
        if not constant:
            break
    return constant if count > 1 else []


def _varies(first: np.ndarray, other: np.ndarray) -> bool:
    size = max(float(np.abs(first).max(initial=0.0)), float(np.abs(other).max(initial=0.0)))
    return float(np.abs(other - first).max(initial=0.0)) > NEARLY * size


def require_enough(data: Dataset, images: int) -> None:
    """Warn about few images; raise UsageError when there were none."""
    if not images:
        raise data.too_many_skipped()
    if images < RECOMMENDED:
        _LOG.warning("%s: calibrated on %d images; %d or more are recommended", data.name, images, RECOMMENDED)


def missing_classes(labels: Mapping[str, int], classes: Sequence[str]) -> list[str]:
    """Classes without a calibration image; none where the data carry no labels."""
    return [name for index, name in enumerate(classes) if str(index) not in labels] if labels else []
