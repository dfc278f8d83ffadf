"""What every data set offers: batches of network inputs, labels, identities and a fingerprint."""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from csa_deploy.data.images import decode, to_array
from csa_deploy.data.prefetch import WORKERS, ahead
from csa_deploy.data.shards import Member
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

IMAGE = "image"


@dataclass(frozen=True)
class Batch:
    """Consecutive samples of a data set.

    Attributes:
        inputs: arrays of shape (n, ...) by input name; image sets have the one name ``"image"``.
        labels: class indices, int64 of shape (n,); None in an unlabelled set.
        ids: one identity per sample, unique in the set.
        targets: what the set says of each sample where that is more than a class: a mask, boxes, any object; None
            where labels are all it says.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    ids: tuple[str, ...]
    targets: Sequence[Any] | None = None

    @property
    def truth(self) -> Sequence[Any] | None:
        """What metrics hold outputs against, one object per sample: the targets, else the labels."""
        return list(self.labels) if self.targets is None and self.labels is not None else self.targets

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
            raise UsageError(
                f"the data do not fit the network: the network takes {_listed(network)}, "
                f"the data hold {_listed({name: array.shape for name, array in self.inputs.items()})}",
                fix="give inputs of these names and shapes (the first axis is the sample)",
            )
        return inputs


class Dataset(ABC):
    """A finite, ordered set of samples, read again from its source at each pass.

    Attributes:
        name: the name or path as given.
        classes: class names in label order; empty when unknown.
        labels: class index of every sample, int64 of shape (len,); None when unlabelled.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray | None

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be computed."""
        return self.labels is not None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(self, batch_size: int, free_cores: int = 0) -> Iterator[Batch]:
        """All samples in order, ``batch_size`` at a time, the last batch with what is left.

        ``free_cores`` is the number of this machine's cores that whoever takes the batches does not use, see
        :func:`csa_deploy.data.prefetch.ahead`.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) over all that determines the batches: identities, labels, bytes and preprocessing."""

    @abstractmethod
    def only(self, identities: Sequence[str]) -> Dataset:
        """The set with these samples alone, in the set's order; raises KeyError for one that is not in it."""

    @abstractmethod
    def image(self, identity: str) -> Image.Image | None:
        """The picture of a sample before preprocessing; None when the set holds tensors."""

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


@dataclass(frozen=True)
class Sample:
    """One image: its identity, its class index if known, and how to get its encoded file or its pixels."""

    id: str
    label: int | None
    source: Path | np.ndarray | Member

    def image(self) -> Image.Image:
        """The decoded image in mode RGB or L."""
        if isinstance(self.source, np.ndarray):
            return Image.fromarray(self.source)
        if isinstance(self.source, Member):
            return decode(io.BytesIO(self.source.read()), str(self.source))
        return decode(self.source, self.source)

    def digest(self) -> bytes:
        """SHA-256 of the file's bytes or of the pixels."""
        if isinstance(self.source, np.ndarray):
            return hashlib.sha256(np.ascontiguousarray(self.source).tobytes()).digest()
        content = self.source.read() if isinstance(self.source, Member) else self.source.read_bytes()
        return hashlib.sha256(content).digest()


class ImageDataset(Dataset):
    """Images, preprocessed as the network declares.

    Args:
        name: the name or path as given.
        samples: at least one; all labelled or none.
        classes: class names in label order.
        preprocessing: the network's.
    """

    def __init__(
        self, name: str, samples: Sequence[Sample], classes: Sequence[str], preprocessing: Preprocessing
    ) -> None:
        self.name = name
        self.samples = tuple(samples)
        self.classes = tuple(classes)
        self.preprocessing = preprocessing
        labels = [s.label for s in self.samples if s.label is not None]
        self.labels = np.asarray(labels, dtype=np.int64) if labels else None

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, batch_size: int, free_cores: int = 0) -> Iterator[Batch]:
        """``batch_size`` images at a time, decoded and preprocessed in threads."""
        count = batch_size * -(-4 * WORKERS // batch_size)  # whole batches
        read = ahead(lambda s: to_array(s.image(), self.preprocessing), self.samples, count, free_cores)
        for start in range(0, len(self), batch_size):
            part = self.samples[start : start + batch_size]
            arrays = np.stack(list(islice(read, len(part))))
            labels = None if self.labels is None else self.labels[start : start + batch_size]
            yield Batch({IMAGE: arrays}, labels, tuple(s.id for s in part))

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`; reads every file once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self.preprocessing.to_json(), sort_keys=True).encode())
        for sample in self.samples:
            digest.update(f"{sample.id}\0{sample.label}\0".encode())
            digest.update(sample.digest())
        return digest.hexdigest()

    def only(self, identities: Sequence[str]) -> ImageDataset:
        """See :meth:`Dataset.only`."""
        wanted = {self._by_id[identity].id for identity in identities}
        chosen = [s for s in self.samples if s.id in wanted]
        return ImageDataset(self.name, chosen, self.classes, self.preprocessing)

    def image(self, identity: str) -> Image.Image:
        """The decoded image; raises KeyError for an identity that is not in the set."""
        return self._by_id[identity].image()

    @cached_property
    def _by_id(self) -> dict[str, Sample]:
        return {s.id: s for s in self.samples}


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


Chooser = Callable[[int], list[int]]


def _listed(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} ({', '.join(['n', *map(str, shape[1:])])})" for name, shape in shapes.items())
