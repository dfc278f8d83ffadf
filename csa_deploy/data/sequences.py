"""Sequences of frames: a folder of sequences, arrays with the time as their first axis, or a list of these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from csa_deploy.data.arrays import ARRAYS, ArrayDataset
from csa_deploy.data.base import Dataset, Read, choose
from csa_deploy.data.folder import open_images
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing

LIST = ".txt"
"""Suffix of a file that names a sequence per line."""


class SequenceDataset(Dataset):
    """Frames of sequences, in order; a frame knows its place in its sequence.

    Args:
        name: as the user gave it.
        parts: a data set per sequence, or one of all frames.
        starts: places of first frames among all frames of the parts, ascending.

    Attributes:
        frames: place of each frame in its sequence.
    """

    def __init__(self, name: str, parts: Sequence[Dataset], starts: Sequence[int]) -> None:
        super().__init__()
        self.name, self._parts = name, tuple(parts)
        first = self._parts[0]
        self.classes, self.task, self.preprocessing = first.classes, first.task, first.preprocessing
        self.notes = tuple(dict.fromkeys(note for part in self._parts for note in part.notes))
        places = np.arange(sum(len(part) for part in self._parts))
        self._starts = np.asarray(starts)
        self._indices = places
        labels = [part.labels for part in self._parts]
        known = [found for found in labels if found is not None]
        self._labels = np.concatenate(known) if len(known) == len(labels) else None
        self._choose(places)

    def _choose(self, indices: np.ndarray) -> None:
        self._indices = indices
        self.labels = None if self._labels is None else self._labels[indices]
        self.sequences = np.searchsorted(self._starts, indices, side="right") - 1
        self.frames = indices - self._starts[self.sequences]

    def __len__(self) -> int:
        return len(self._indices)

    def identities(self) -> list[str]:
        """``sequence/frame``; of one data set those of its own."""
        return [self._identities[i] for i in self._indices]

    @cached_property
    def _identities(self) -> list[str]:
        if len(self._parts) == 1:
            return self._parts[0].identities()
        return [f"{Path(part.name).stem}/{identity}" for part in self._parts for identity in part.identities()]

    def take(self, indices: Sequence[int]) -> SequenceDataset:
        """See :meth:`Dataset.take`; frames keep their places in their sequences."""
        taken = copy(self)
        taken.skipped = {}
        taken._choose(self._indices[list(indices)])
        return taken

    def beginning(self, count: int) -> SequenceDataset:
        """Whole sequences, evenly spread, as many as hold ``count`` frames; of a longer one so many of its first."""
        ends = np.append(self._starts[1:], len(self._identities))
        lengths = ends - self._starts
        evenly = [choose(len(lengths), number, None) for number in range(len(lengths), 0, -1)]
        chosen = next((found for found in evenly if lengths[found].sum() <= count), evenly[-1])
        kept = np.concatenate([np.arange(self._starts[i], ends[i]) for i in chosen])[:count]
        taken = copy(self)
        taken._choose(kept)
        return taken

    def read(self, indices: Sequence[int], count: int, free_cores: int) -> Iterator[Read | UsageError]:
        """See :meth:`Dataset.read`."""
        yield from (read for read, _ in self._read([int(self._indices[i]) for i in indices], count, free_cores))

    def leading_up_to(
        self, indices: Sequence[int], count: int, free_cores: int
    ) -> Iterator[tuple[Read | UsageError, bool]]:
        """Frames and those of their sequences before them, in order, each with whether it was asked for."""
        wanted = {int(self._indices[i]) for i in indices}
        last: dict[int, int] = {}
        for place in sorted(wanted):
            last[int(np.searchsorted(self._starts, place, side="right")) - 1] = place
        places = [place for number, end in last.items() for place in range(int(self._starts[number]), end + 1)]
        yield from ((read, place in wanted) for read, place in self._read(places, count, free_cores))

    def _read(self, places: Sequence[int], count: int, free_cores: int) -> Iterator[tuple[Read | UsageError, int]]:
        before = 0
        for part in self._parts:
            own = [place for place in places if before <= place < before + len(part)]
            for place, read in zip(own, part.read([p - before for p in own], count, free_cores), strict=True):
                number = int(np.searchsorted(self._starts, place, side="right")) - 1
                yield self._placed(read, place, place - int(self._starts[number])), place
            before += len(part)

    def _placed(self, read: Read | UsageError, place: int, frame: int) -> Read | UsageError:
        if isinstance(read, UsageError):
            return read
        return Read(self._identities[place], read.arrays, read.target, read.geometry, frame)

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`."""
        told = [*(part.fingerprint() for part in self._parts), self._starts.tolist(), self._indices.tolist()]
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def hashes(self) -> dict[str, str]:
        """See :meth:`Dataset.hashes`."""
        found = [content for part in self._parts for content in part.hashes().values()]
        return {self._identities[i]: found[i] for i in self._indices}

    def image(self, identity: str) -> Image.Image | None:
        """See :meth:`Dataset.image`."""
        place = self._identities.index(identity)
        for part in self._parts:
            if place < len(part):
                return part.image(part.identities()[place])
            place -= len(part)
        raise KeyError(identity)


def open_sequences(spec: str, preprocessing: Preprocessing | None, *, limit: int | None = None) -> SequenceDataset:
    """Open sequences of frames.

    Args:
        spec: a folder with a folder of images or an ``.npz`` per sequence; a folder of images or arrays whose first
            axis is the time, which are one sequence, or several where the file has ``sequences``, a number per frame;
            or a ``.txt`` with one of these per line.
        preprocessing: the network's; may be None for arrays.
        limit: at most so many frames: whole sequences as far as they fit.

    Raises:
        UsageError: nothing there, nothing readable, or frames of a sequence that are apart.
    """
    places = _places(Path(spec))
    parts = [_part(place, preprocessing) for place in places]
    if len(parts) == 1 and isinstance(parts[0], ArrayDataset) and parts[0].sequences is not None:
        numbers = parts[0].sequences
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist()]
        if len({int(numbers[start]) for start in starts}) != len(starts):
            raise UsageError(f"{spec}: frames of a sequence are apart in 'sequences'", fix="sort them by sequence")
    else:
        starts = np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist()
    found = SequenceDataset(spec, parts, starts)
    return found.beginning(limit) if limit is not None and limit < len(found) else found


def _places(path: Path) -> list[Path]:
    if path.suffix == LIST and path.is_file():
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        listed = [path.parent / line for line in lines if line and not line.startswith("#")]
        if not listed:
            raise UsageError(f"{path}: names no sequence", fix="write a folder or an .npz per line")
        return listed
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        nested = [p for p in inside if p.is_dir() or p.suffix in ARRAYS]
        return nested or [path]
    return [path]


def _part(path: Path, preprocessing: Preprocessing | None) -> Dataset:
    if path.suffix in ARRAYS:
        return ArrayDataset(path, str(path), preprocessing.classes if preprocessing else ())
    if not path.is_dir():
        raise UsageError(
            f"{path}: no sequence", fix="give a folder of images or an .npz per sequence, or a .txt that lists them"
        )
    if preprocessing is None:
        raise UsageError(
            f"{path}: holds images, but the network declares no preprocessing",
            fix="give the frames as .npz with one array per network input",
        )
    return open_images(path, str(path), preprocessing)
