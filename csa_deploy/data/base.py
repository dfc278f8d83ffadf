"""What every data set offers: batches of network inputs, what is true of them, identities and a fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from PIL import Image

from csa_deploy.data.geometry import Geometry, geometry_of
from csa_deploy.data.images import to_array
from csa_deploy.data.prefetch import WORKERS, ahead
from csa_deploy.data.samples import LabelledFiles, Sample
from csa_deploy.data.targets import Boxes, Mask, Target
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing, Task

logger = logging.getLogger(__name__)
IMAGE = "image"
MOST_SKIPPED = 0.1
"""Share of samples that may be unreadable where a data set is lenient."""


@dataclass(frozen=True)
class Batch:
    """Consecutive samples of a data set.

    Attributes:
        inputs: arrays of shape (n, ...) by input name; image sets have the one name ``"image"``.
        labels: class indices, int64 of shape (n,); None where a sample has no class.
        ids: one identity per sample, unique in the set.
        consumed: samples of the set up to the batch's end, those that were skipped included.
        targets: masks or boxes of the samples, in pixels of their images as stored; None where a sample has none.
        geometry: where each image lies in the network's input; None for tensors, which are targets' pixels themselves.
        frames: of sequences the place of each sample in its own; else empty.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    ids: tuple[str, ...]
    consumed: int = 0
    targets: tuple[Mask | Boxes, ...] | None = None
    geometry: tuple[Geometry, ...] | None = None
    frames: tuple[int, ...] = ()

    @property
    def truth(self) -> Sequence[Any] | None:
        """What metrics hold outputs against: masks and boxes in pixels of the network's input, else class indices."""
        if self.targets is None:
            return None if self.labels is None else list(self.labels)
        if self.geometry is None:
            return self.targets
        return [place.target(target) for place, target in zip(self.geometry, self.targets, strict=True)]

    def __len__(self) -> int:
        return len(self.ids)

    def feed(self, network: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
        """The inputs under the network's names; a single input fits a network's single input of any name.

        Args:
            network: shape by input name, batch axis first; the batch axis is not compared.

        Raises:
            UsageError: names or shapes differ; both sides are listed.
        """
        inputs = self.inputs
        if len(inputs) == 1 and len(network) == 1:
            inputs = dict(zip(network, inputs.values(), strict=True))
        fits = inputs.keys() == network.keys() and all(
            array.shape[1:] == tuple(network[name][1:]) for name, array in inputs.items()
        )
        if not fits:
            whole = inputs.keys() == network.keys() and all(a.shape[1:] == (*network[n],) for n, a in inputs.items())
            raise UsageError(
                f"the data do not fit the network: the network takes {_listed(network)}, "
                f"the data hold {_listed({name: array.shape for name, array in self.inputs.items()})}",
                fix="say --sample whole, where one inference takes one sample"
                if whole
                else "give inputs of these names and shapes (the first axis is the sample)",
            )
        return inputs


@dataclass(frozen=True)
class Read:
    """One sample as read: its identity, its arrays by input name without batch axis, and what is true of it.

    Of an image also where it lies in the network's input, and of a frame its place in its sequence.
    """

    id: str
    arrays: dict[str, np.ndarray]
    target: Target | None
    geometry: Geometry | None = None
    frame: int | None = None


class Dataset(ABC):
    """A finite, ordered set of samples, read again from its source at each pass.

    Attributes:
        name: the name or path as given.
        classes: class names in label order; empty when unknown.
        labels: class index of every sample, int64 of shape (len,); None when a sample has none.
        task: what its targets are for.
        preprocessing: how images become tensors; None for a set of tensors.
        lenient: whether samples that cannot be read are skipped, up to :data:`MOST_SKIPPED`; else they are errors.
        skipped: of a lenient set why samples could not be read, by identity.
        notes: what a reader must know of the whole source: what was left out, and images without objects.
    """

    name: str
    classes: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    task: Task = "classification"
    preprocessing: Preprocessing | None = None
    lenient = False
    notes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be computed."""
        return self.labels is not None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def identities(self) -> list[str]:
        """One per sample, in order, unique in the set."""

    @abstractmethod
    def take(self, indices: Sequence[int]) -> Dataset:
        """The set with the samples at these indices alone, in this order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) over all that determines the batches: identities, targets, bytes and preprocessing."""

    @abstractmethod
    def hashes(self) -> dict[str, str]:
        """SHA-256 (hex) of every sample's content by identity."""

    @abstractmethod
    def image(self, identity: str) -> Image.Image | None:
        """The picture of a sample before preprocessing; None when the set holds tensors."""

    @abstractmethod
    def read(self, indices: Sequence[int], count: int, free_cores: int) -> Iterator[Read | UsageError]:
        """The samples at ascending indices one by one, with up to ``count`` of them read ahead.

        One that cannot be read comes as its error.
        """

    def leading_up_to(
        self, indices: Sequence[int], count: int, free_cores: int
    ) -> Iterator[tuple[Read | UsageError, bool]]:
        """The samples that :meth:`read` gives and, of sequences, those before them; each with whether it is wanted."""
        yield from ((read, True) for read in self.read(indices, count, free_cores))

    def batches(self, batch_size: int, free_cores: int = 0, indices: Sequence[int] | None = None) -> Iterator[Batch]:
        """The samples in order, ``batch_size`` at a time, the last batch with what is left.

        Args:
            free_cores: cores of this machine that whoever takes the batches does not use, see
                :func:`csa_deploy.data.prefetch.ahead`.
            indices: ascending; None: all.

        Raises:
            UsageError: a sample cannot be read, or of a lenient set more than a tenth.
        """
        indices = range(len(self)) if indices is None else indices
        waiting: list[Read] = []
        whole_batches = batch_size * -(-4 * WORKERS // batch_size)
        for index, read in zip(indices, self.read(indices, whole_batches, free_cores), strict=True):
            if isinstance(read, UsageError):
                self.skip(self.identities()[index], read)
            else:
                waiting.append(read)
            if waiting and (len(waiting) == batch_size or index == indices[-1]):
                yield _batch(waiting, index + 1)
                waiting = []

    def skip(self, identity: str, error: UsageError) -> None:
        """Count a sample that cannot be read; raises UsageError where samples must be, or too many cannot."""
        if not self.lenient:
            raise error
        self.skipped[identity] = error.message
        logger.info("skipped: %s", error.message)
        if len(self.skipped) > MOST_SKIPPED * len(self):
            raise self.too_many_skipped()

    def too_many_skipped(self) -> UsageError:
        """The error that says so."""
        return UsageError(
            f"{self.name}: {len(self.skipped)} files cannot be read so far, more than a tenth of all {len(self)}; "
            f"the first is {next(iter(self.skipped.values()))}",
            fix="replace or remove such files",
        )

    def only(self, identities: Sequence[str]) -> Dataset:
        """The set with these samples alone, in the set's order; raises KeyError for one that is not in it."""
        places = {identity: index for index, identity in enumerate(self.identities())}
        return self.take(sorted({places[identity] for identity in identities}))

    def check_labels(self, outputs: int) -> None:
        """Raise UsageError when a label is no index into ``outputs`` network outputs."""
        if self.labels is None or not len(self.labels):
            return
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= outputs:
            raise UsageError(
                f"{self.name}: labels {low}..{high} do not fit a network with {outputs} outputs",
                fix=f"labels are class indices 0..{outputs - 1}",
            )


def _batch(samples: Sequence[Read], consumed: int) -> Batch:
    labels = [sample.target for sample in samples if isinstance(sample.target, int)]
    targets = tuple(sample.target for sample in samples if isinstance(sample.target, (Mask, Boxes)))
    geometry = tuple(sample.geometry for sample in samples if sample.geometry is not None)
    return Batch(
        {name: np.stack([sample.arrays[name] for sample in samples]) for name in samples[0].arrays},
        np.asarray(labels, dtype=np.int64) if len(labels) == len(samples) else None,
        tuple(sample.id for sample in samples),
        consumed,
        targets if len(targets) == len(samples) else None,
        geometry if len(geometry) == len(samples) else None,
        tuple(sample.frame for sample in samples if sample.frame is not None),
    )


class ImageDataset(Dataset):
    """Images, preprocessed as the network declares.

    Args:
        name: the name or path as given.
        samples: at least one.
        classes: class names in label order.
        task: what the samples' targets are for.
        shards: index of the file that each image shares with its neighbours, int64; None: each has its own.
        notes: see :class:`Dataset`.
    """

    preprocessing: Preprocessing

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        classes: Sequence[str],
        preprocessing: Preprocessing,
        task: Task = "classification",
        shards: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.name, self.samples, self.classes = name, samples, tuple(classes)
        self.preprocessing, self.task, self.shards, self.notes = preprocessing, task, shards, tuple(notes)
        labels = samples.labels if isinstance(samples, LabelledFiles) else [sample.label for sample in samples]
        self.labels = None if None in labels else np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def identities(self) -> list[str]:
        """See :meth:`Dataset.identities`."""
        return [sample.id for sample in self.samples]

    def take(self, indices: Sequence[int]) -> ImageDataset:
        """See :meth:`Dataset.take`."""
        shards = None if self.shards is None else self.shards[list(indices)]
        chosen = [self.samples[i] for i in indices]
        taken = ImageDataset(self.name, chosen, self.classes, self.preprocessing, self.task, shards, self.notes)
        taken.lenient = self.lenient
        return taken

    def read(self, indices: Sequence[int], count: int, free_cores: int) -> Iterator[Read | UsageError]:
        """Decoded and preprocessed in threads."""
        return ahead(partial(_read, self.preprocessing), (self.samples[i] for i in indices), count, free_cores)

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`; reads every file once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self.preprocessing.to_json(), sort_keys=True).encode())
        for sample, content in zip(self.samples, self._digests, strict=True):
            digest.update(f"{sample.id}\0{sample.label}\0".encode())
            digest.update(content)
            digest.update(sample.target_digest())
        return digest.hexdigest()

    def hashes(self) -> dict[str, str]:
        """Of each file's bytes, or of the pixels."""
        return {sample.id: content.hex() for sample, content in zip(self.samples, self._digests, strict=True)}

    @cached_property
    def _digests(self) -> list[bytes]:
        return [sample.digest() for sample in self.samples]

    def image(self, identity: str) -> Image.Image:
        """The decoded image; raises KeyError for an identity that is not in the set."""
        return self.samples[self._places[identity]].image()

    @cached_property
    def _places(self) -> dict[str, int]:
        return {sample.id: index for index, sample in enumerate(self.samples)}


def _read(preprocessing: Preprocessing, sample: Sample) -> Read | UsageError:
    try:
        image = sample.image()
        size = image.height, image.width
        arrays = {IMAGE: to_array(image, preprocessing)}
        return Read(sample.id, arrays, sample.read_target(size), geometry_of(preprocessing, size))
    except UsageError as error:
        return error


def choose(total: int, limit: int | None, seed: int | None) -> list[int]:
    """Indices of the samples to use, ascending: evenly spread, or drawn at random when there is a seed.

    Evenly spread, because data sets are often sorted by class.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: at least one sample is needed")
    if limit is None or limit >= total:
        return list(range(total))
    if seed is None:
        return [i * total // limit for i in range(limit)]
    # RandomState: NumPy promises that its streams never change.
    return sorted(np.random.RandomState(seed).permutation(total)[:limit].tolist())


def _listed(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} ({', '.join(['n', *map(str, shape[1:])])})" for name, shape in shapes.items())
