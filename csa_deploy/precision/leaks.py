"""Whether calibration and evaluation share samples, by what the network gets to see and not by how it is stored.

A copy is one whose tensors after preprocessing are the same, whatever file or set they come from. A near-duplicate is
one whose grey thumbnail correlates so well that it is likely the same picture, compressed, scaled or lit anew: of the
photographs tried, all those correlate above 0.99 and different ones below 0.7; of 1,500 handwritten digits none is
as close to one of 800 others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from csa_deploy.data.arrays import RANDOM
from csa_deploy.data.base import Dataset, ImageDataset, choose
from csa_deploy.errors import UsageError

COMPARED = 5000
"""Evaluation images that are decoded for the comparison; of a larger set evenly spread ones, the others by file."""
NEAR = 0.995
_SIDE = 16
_MOST_CHANNELS = 4  # what has more is no image


@dataclass
class _Seen:
    """Samples of one side: what identifies them, and their thumbnails."""

    contents: dict[str, str] = field(default_factory=dict)  # by identity
    ids: list[str] = field(default_factory=list)
    thumbnails: list[np.ndarray] = field(default_factory=list)

    def add(self, identity: str, arrays: Mapping[str, np.ndarray]) -> None:
        """A sample, its arrays without batch axis."""
        self.contents[identity] = _content(arrays)
        images = [array for array in arrays.values() if array.ndim == 3 and array.shape[0] <= _MOST_CHANNELS]
        if images:
            self.ids.append(identity)
            self.thumbnails.append(_thumbnail(images[0]))


def refuse_overlap(data: Dataset, evaluation: Dataset) -> list[str]:
    """Refuse to calibrate on what accuracy is measured on.

    Returns:
        What the user must know: near-duplicates, and how much was compared.

    Raises:
        UsageError: a calibration sample is in the evaluation set; names the first and their number.
    """
    if data.name == RANDOM:
        return []
    ours, theirs = _Seen(), _Seen()
    large = isinstance(evaluation, ImageDataset) and len(evaluation) > COMPARED
    compared = evaluation.take(choose(len(evaluation), COMPARED if large else None, None))
    compared.lenient = True  # the comparison with the reference names what cannot be read
    for seen, samples in ((ours, data), (theirs, compared)):
        for batch in samples.batches(1):
            seen.add(batch.ids[0], {name: array[0] for name, array in batch.inputs.items()})
    contents, files = set(theirs.contents.values()), set(evaluation.hashes().values() if large else ())
    stored = data.hashes() if files else {}
    shared = [i for i, content in ours.contents.items() if content in contents or stored.get(i) in files]
    if shared:
        raise UsageError(
            f"{len(shared)} of {len(data)} calibration images of {data.name} are in the evaluation set "
            f"{evaluation.name} too, the first is {shared[0]}",
            fix="calibrate on images that accuracy is not measured on, or name another set with --data",
        )
    return [*_near(data, ours, evaluation, theirs), *(_left(evaluation) if large else ())]


def _near(data: Dataset, ours: _Seen, evaluation: Dataset, theirs: _Seen) -> Iterable[str]:
    if not ours.ids or not theirs.ids:
        return
    alike = np.stack(ours.thumbnails) @ np.stack(theirs.thumbnails).T
    near = np.flatnonzero(alike.max(axis=1) > NEAR)
    if near.size:
        first = int(near[0])
        yield (
            f"{near.size} of {len(data)} calibration images of {data.name} are nearly the same as images of the "
            f"evaluation set {evaluation.name}, the first is {ours.ids[first]} (like "
            f"{theirs.ids[int(alike[first].argmax())]}): the accuracy in INT8 may look better than it is"
        )


def _left(evaluation: Dataset) -> Iterable[str]:
    yield (
        f"calibration images were compared with {COMPARED} of the {len(evaluation)} evaluation images by their "
        "content, with the others by their files"
    )


def _content(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a sample as the network gets it; a single input counts under any name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name if len(arrays) > 1 else ''}\0{arrays[name].shape}\0".encode())
        digest.update(np.ascontiguousarray(arrays[name], np.float32).tobytes())
    return digest.hexdigest()


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) in grey and small, without its brightness and contrast; zero where it has none."""
    grey = Image.fromarray(np.ascontiguousarray(image.mean(axis=0), np.float32))
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32).ravel()
    small = small - small.mean()
    size = float(np.linalg.norm(small))
    return small / size if size > 1e-6 * _SIDE else np.zeros_like(small)
