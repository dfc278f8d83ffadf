"""Calibration images: read one by one, hashed, and forgiving about files that cannot be read."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csa_deploy.data.base import IMAGE, Batch, Dataset, ImageDataset, Sample, choose
from csa_deploy.data.dataset import open_dataset
from csa_deploy.data.images import SUFFIXES, to_array
from csa_deploy.data.named import NAMED
from csa_deploy.data.prefetch import WORKERS, ahead
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing
from csa_deploy.runners.base import filled
from csa_deploy.spec import Sampling

_LOG = logging.getLogger(__name__)

RANDOM = "random"
RECOMMENDED = 64
"""Images below which a warning is given."""
NEARLY = 1e-3
"""Of its largest value: an input that varies by no more counts as constant."""
LARGEST_SKIPPED = 0.1
"""Share of files that may be unreadable."""
_RANDOM_SAMPLES = 64


_Read = tuple[str, int | None, dict[str, np.ndarray] | None]  # None for what cannot be read


@dataclass(frozen=True)
class CalibrationBatch(Batch):
    """A batch, and the number of samples that were read up to its end, skipped ones included."""

    consumed: int = 0

    def filled(self, how: Sampling) -> dict[str, np.ndarray]:
        """One inference's inputs, the last sample repeated up to the network's batch size."""
        return how.network(filled(self.feed(how.shapes), how.batch or 1))

    def filled_labels(self, size: int) -> np.ndarray | None:
        """The labels to :meth:`filled`."""
        return None if self.labels is None else filled({"": self.labels}, size)[""]


class CalibrationData(ABC):
    """Samples to calibrate on.

    Attributes:
        name: as the user typed it.
        preprocessing: JSON form of how images became tensors; None for data that are tensors.
        skipped: files that could not be read, with the reason.
    """

    def __init__(self, name: str, preprocessing: dict[str, Any] | None) -> None:
        self.name, self.preprocessing = name, preprocessing
        self.skipped: dict[str, str] = {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every sample by identity."""

    @abstractmethod
    def _samples(self, indices: Sequence[int]) -> Iterator[_Read]:
        """Identity, label and arrays without batch axis of the samples at ascending indices."""

    @abstractmethod
    def labels(self) -> list[int | None]:
        """Class of every sample; empty where none has one."""

    def fingerprint(self) -> str:
        """SHA-256 over identities, contents and labels, which a search for layers may be held to."""
        contents = "".join(f"{i}\0{h}\0" for i, h in self.hashes().items())
        return hashlib.sha256(f"{contents}{self.labels()}".encode()).hexdigest()

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[CalibrationBatch]:
        """Batches of up to ``size`` readable samples, all of them or those at ascending indices.

        Raises:
            UsageError: more than a tenth of the files cannot be read.
        """
        indices = range(len(self)) if indices is None else indices
        waiting: list[tuple[str, int | None, dict[str, np.ndarray]]] = []
        for index, (identity, label, arrays) in zip(indices, self._samples(indices), strict=True):
            if arrays is not None:
                waiting.append((identity, label, arrays))
            elif len(self.skipped) > LARGEST_SKIPPED * len(self):
                raise self._too_many_skipped()
            if waiting and (len(waiting) == size or index == indices[-1]):
                yield _batch(waiting, index + 1)
                waiting = []

    def constant_inputs(self) -> list[str]:
        """Inputs that are the same, or nearly, in all samples: INT8 knows nothing of how they vary.

        Reads on only as long as an input has not varied, which mostly are two samples.
        """
        first: dict[str, np.ndarray] = {}
        constant: list[str] = []
        count = 0
        for batch in self.batches(1):
            count += 1
            if not first:
                first = {name: array.astype(np.float64) for name, array in batch.inputs.items()}
                constant = list(first)
                continue
            constant = [name for name in constant if not _varies(first[name], batch.inputs[name])]
            if not constant:
                break
        return constant if count > 1 else []

    def require_enough(self, images: int) -> None:
        """Warn about few images; raise UsageError when there were none."""
        if not images:
            raise self._too_many_skipped()
        if images < RECOMMENDED:
            _LOG.warning("%s: calibrated on %d images; %d or more are recommended", self.name, images, RECOMMENDED)

    def _too_many_skipped(self) -> UsageError:
        return UsageError(
            f"{self.name}: {len(self.skipped)} files cannot be read so far, more than a tenth of all {len(self)}; "
            f"the first is {next(iter(self.skipped.values()))}",
            fix="replace or remove such files",
        )


def _varies(first: np.ndarray, other: np.ndarray) -> bool:
    size = max(float(np.abs(first).max(initial=0.0)), float(np.abs(other).max(initial=0.0)))
    return float(np.abs(other - first).max(initial=0.0)) > NEARLY * size


def _batch(samples: Sequence[tuple[str, int | None, dict[str, np.ndarray]]], consumed: int) -> CalibrationBatch:
    labels = [label for _, label, _ in samples if label is not None]
    return CalibrationBatch(
        {name: np.stack([arrays[name] for _, _, arrays in samples]) for name in samples[0][2]},
        np.asarray(labels, np.int64) if labels else None,
        tuple(identity for identity, _, _ in samples),
        consumed,
    )


class Images(CalibrationData):
    """Image files or pixel arrays."""

    def __init__(self, name: str, samples: Sequence[Sample], preprocessing: Preprocessing) -> None:
        super().__init__(name, preprocessing.to_json())
        self._images, self._how = tuple(samples), preprocessing
        self._hashes: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._images)

    def hashes(self) -> dict[str, str]:
        """Hash of each file's bytes, or of the pixels."""
        if not self._hashes:
            self._hashes = {s.id: digest_of(s) for s in self._images}
        return self._hashes

    def labels(self) -> list[int | None]:
        """Of the folders or the table."""
        return [sample.label for sample in self._images]

    def _samples(self, indices: Sequence[int]) -> Iterator[_Read]:
        chosen = [self._images[i] for i in indices]
        for sample, array in zip(chosen, ahead(self._read, chosen, 2 * WORKERS), strict=True):
            if isinstance(array, UsageError):
                self.skipped[sample.id] = array.message
                _LOG.info("skipped: %s", array.message)
                yield sample.id, sample.label, None
            else:
                yield sample.id, sample.label, {IMAGE: array}

    def _read(self, sample: Sample) -> np.ndarray | UsageError:
        try:
            return to_array(sample.image(), self._how)
        except UsageError as error:
            return error


class Tensors(CalibrationData):
    """A data set of tensors."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset.name, None)
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def hashes(self) -> dict[str, str]:
        """Hash of each sample's bytes."""
        return tensor_hashes(self._dataset)

    def labels(self) -> list[int | None]:
        """Of the file, where it holds any."""
        return [] if self._dataset.labels is None else [int(label) for label in self._dataset.labels]

    def _samples(self, indices: Sequence[int]) -> Iterator[_Read]:
        wanted = set(indices)
        for number, batch in enumerate(self._dataset.batches(1)):
            if number in wanted:
                label = None if batch.labels is None else int(batch.labels[0])
                yield batch.ids[0], label, {name: array[0] for name, array in batch.inputs.items()}


class RandomNumbers(CalibrationData):
    """Standard-normal numbers: for trying things out, never by default, and named so in the audit."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], samples: int | None, seed: int) -> None:
        super().__init__(RANDOM, None)
        self._shapes, self._number, self._seed = shapes, samples or _RANDOM_SAMPLES, seed

    def __len__(self) -> int:
        return self._number

    def hashes(self) -> dict[str, str]:
        """The seed and the number stand for the contents."""
        return {f"random-{self._seed}-{i}": "standard normal" for i in range(self._number)}

    def labels(self) -> list[int | None]:
        """None: nobody knows what random numbers show."""
        return []

    def _samples(self, indices: Sequence[int]) -> Iterator[_Read]:
        for number in indices:
            generator = np.random.default_rng([self._seed, number])
            arrays = {n: generator.standard_normal(s[1:], dtype=np.float32) for n, s in self._shapes.items()}
            yield f"random-{self._seed}-{number}", None, arrays


def open_calibration(
    spec: str,
    preprocessing: Preprocessing | None,
    shapes: Mapping[str, Sequence[int]],
    *,
    samples: int | None = None,
    seed: int = 0,
) -> CalibrationData:
    """Open calibration data.

    Args:
        spec: a folder of images (with or without sub-folders), an ``.npz``, a named set, or ``random``.
        preprocessing: the network's.
        shapes: shape by network input, for random numbers.
        samples: use at most this many, drawn with ``seed``.
        seed: of the draw, and of random numbers.

    Raises:
        UsageError: nothing there, or images for a network without preprocessing.
        EnvironmentLacksError: the package of a named set is not installed.
    """
    if spec == RANDOM:
        return RandomNumbers(shapes, samples, seed)
    if spec not in NAMED and Path(spec).is_dir() and preprocessing is not None:
        return Images(spec, _folder(Path(spec), preprocessing, samples, seed), preprocessing)
    dataset = open_dataset(spec, preprocessing, limit=samples, seed=seed)
    if isinstance(dataset, ImageDataset):
        return Images(spec, dataset.samples, dataset.preprocessing)
    return Tensors(dataset)


def _folder(folder: Path, preprocessing: Preprocessing, limit: int | None, seed: int) -> list[Sample]:
    """Every image below a folder; unlike an evaluation set, it may mix levels, and its files are not opened yet."""
    paths = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )
    if not paths:
        raise UsageError(f"{folder}: no images in this folder", fix=f"images are files named *{', *'.join(SUFFIXES)}")
    found = []
    for index in choose(len(paths), limit, seed):
        relative = paths[index].relative_to(folder)
        label = preprocessing.classes.index(relative.parts[0]) if relative.parts[0] in preprocessing.classes else None
        found.append(Sample(relative.as_posix(), label, paths[index]))
    return found


def missing_classes(labels: Mapping[str, int], classes: Sequence[str]) -> list[str]:
    """Classes without a calibration image; none where the data carry no labels."""
    return [name for index, name in enumerate(classes) if str(index) not in labels] if labels else []


def tensor_hashes(dataset: Dataset) -> dict[str, str]:
    """SHA-256 of every sample's tensors, with their names, types and shapes, by identity."""
    return {batch.ids[0]: _digest(batch.inputs) for batch in dataset.batches(1)}


def _digest(inputs: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(inputs.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode() + array.tobytes())
    return digest.hexdigest()


def digest_of(sample: Sample) -> str:
    """SHA-256 of an image's file or pixels."""
    try:
        return sample.digest().hex()
    except OSError as error:
        return f"unreadable: {error.strerror}"
