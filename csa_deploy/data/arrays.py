"""Data sets of tensors: ``.npz`` files with one array per network input and optionally ``labels``; random numbers."""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from csa_deploy.data.base import Dataset, Read
from csa_deploy.data.targets import IGNORE, Boxes, Mask, Target, require_inside
from csa_deploy.errors import UsageError

LABELS, MASKS, SEQUENCES = "labels", "masks", "sequences"
BOXES = ("boxes", "box_labels", "box_samples", "box_crowd", "box_difficult", "box_areas")
TOLD = (LABELS, MASKS, SEQUENCES, *BOXES)
"""Arrays that are no inputs: what is true of the samples, and the number of the sequence that each is a frame of."""
RANDOM = "random"
ARRAYS = (".npz", ".npy")
GIVEN_FILE = re.compile(r"arrays-[0-9a-f]{16}\.npz")
"""Arrays that a caller of the API gave in memory: a file named by what it holds, which names them wherever it lies."""


class ArrayDataset(Dataset):
    """Arrays of an ``.npz`` by input name, or of an ``.npy``, already preprocessed; the first axis counts the samples.

    The arrays are read as a stream, so the file may be larger than memory. Floating-point inputs become float32.

    Args:
        name: the path as given; of arrays that were given in memory the hash of what they hold.
        classes: class names in label order; empty when unknown.
        indices: ascending places of the samples to use; None: all.

    Raises:
        UsageError: no such file, no such format, no input, lengths that differ, pickled objects, or bad labels.
    """

    def __init__(
        self, path: Path, name: str, classes: tuple[str, ...] = (), indices: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.name, self.path, self.classes = name, path, classes
        self.shapes = _shapes(path)
        lengths = {key: shape[0] if shape else 0 for key, shape in self.shapes.items() if key not in BOXES}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{key} {count}" for key, count in lengths.items())
            raise UsageError(f"{name}: the arrays differ in their number of samples: {listed}")
        total = next(iter(lengths.values()))
        if total == 0:
            raise UsageError(f"{name}: holds no samples")
        self.inputs = tuple(key for key in self.shapes if key not in TOLD)
        if not self.inputs:
            raise UsageError(f"{name}: holds labels only", fix="add one array per network input, under its name")
        self.indices = list(range(total) if indices is None else indices)
        self.labels = self._read_numbers(LABELS, "one integer class index per sample")
        self.sequences = self._read_numbers(SEQUENCES, "the number of each frame's sequence")
        self.boxes = read_boxes(path, self.shapes, total, self._picture())
        if MASKS in self.shapes:
            self._check_masks()
        self.task = "segmentation" if MASKS in self.shapes else "detection" if self.boxes is not None else self.task

    def __len__(self) -> int:
        return len(self.indices)

    def identities(self) -> list[str]:
        """The samples' places in the file."""
        return [str(index) for index in self.indices]

    def take(self, indices: Sequence[int]) -> ArrayDataset:
        """See :meth:`Dataset.take`; ascending."""
        return ArrayDataset(self.path, self.name, self.classes, [self.indices[i] for i in indices])

    def read(self, indices: Sequence[int], count: int, free_cores: int) -> Iterator[Read]:
        """One sample of every input at a time; raises UsageError when the file is damaged."""
        chosen = {self.indices[i] for i in indices}
        try:
            with _arrays(self.path) as arrays_by_key:
                keys = [*self.inputs, *([MASKS] if MASKS in self.shapes else [])]
                rows = {key: _rows(self.path, arrays_by_key[key], key, chosen) for key in keys}
                for index in indices:
                    arrays = {key: _as_input(next(stream)) for key, stream in rows.items()}
                    target: Target | None = None if self.labels is None else int(self.labels[index])
                    if self.boxes is not None:
                        target = self.boxes[self.indices[index]]
                    elif MASKS in arrays:
                        target = Mask(arrays.pop(MASKS))
                    yield Read(str(self.indices[index]), arrays, target)
        except (zipfile.BadZipFile, StopIteration, OSError, ValueError) as error:
            raise UsageError(f"{self.name}: damaged: {error}", fix="write the file again") from error

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(repr(self.indices).encode())
        return digest.hexdigest()

    def hashes(self) -> dict[str, str]:
        """Of each sample's tensors, with their names, types and shapes."""
        return {batch.ids[0]: _digest(batch.inputs) for batch in self.batches(1)}

    def image(self, identity: str) -> None:
        """Tensors have no picture."""
        return None

    def _picture(self) -> tuple[int, int] | None:
        """(height, width) of the only input that is an image; None where there is none, or another number of them."""
        images = [self.shapes[key] for key in self.inputs if len(self.shapes[key]) == 4]
        if len(images) != 1:
            return None
        _, *sides = images[0]
        return (sides[0], sides[1]) if sides[2] in (1, 3) and sides[0] not in (1, 3) else (sides[1], sides[2])

    def _check_masks(self) -> None:
        with np.load(self.path) as archive:
            kind = archive[MASKS].dtype.kind
        shape, size = self.shapes[MASKS], self._picture()
        if len(shape) != 3 or kind not in "iu":
            raise UsageError(f"{self.name}: {MASKS} have the shape {shape}", fix="masks are (n, H, W) integers")
        if size is not None and shape[1:] != size:
            raise UsageError(
                f"{self.name}: {MASKS} have {shape[2]}x{shape[1]} pixels, the images {size[1]}x{size[0]}",
                fix="give masks of the size of the images",
            )

    def _read_numbers(self, key: str, what: str) -> np.ndarray | None:
        if key not in self.shapes:
            return None
        with np.load(self.path) as archive:
            numbers = archive[key]
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise UsageError(
                f"{self.name}: {key} are {numbers.dtype} of shape {numbers.shape}", fix=f"{key} are {what}"
            )
        return np.asarray(numbers[self.indices], np.int64)


def read_boxes(
    path: Path, shapes: Mapping[str, tuple[int, ...]], total: int, size: tuple[int, int] | None
) -> list[Boxes] | None:
    """The boxes of every sample, of arrays with one row per box; None where the file holds none.

    ``boxes`` are (m, 4) pixels of the input, ``box_labels`` classes, ``box_samples`` places of samples.

    Raises:
        UsageError: with the row, for a box that is none, and for arrays that do not fit one another.
    """
    if not set(BOXES) & set(shapes):
        return None
    if missing := [key for key in BOXES[:3] if key not in shapes]:
        raise UsageError(f"{path}: has boxes, but no {missing[0]}", fix=f"give {', '.join(BOXES[:3])}")
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in BOXES if key in shapes}
    count = len(arrays["boxes"])
    for key, array in arrays.items():
        wanted = (count, 4) if key == "boxes" else (count,)
        whole = key in ("box_labels", "box_samples")
        if array.shape != wanted or array.dtype.kind not in ("iu" if whole else "iufb"):
            raise UsageError(f"{path}: {key} is {array.dtype} of shape {array.shape}", fix=f"give {wanted}")
    for row, (box, sample) in enumerate(zip(arrays["boxes"].tolist(), arrays["box_samples"].tolist(), strict=True)):
        if not 0 <= sample < total:
            raise UsageError(f"{path}: boxes[{row}]: sample {sample} of {total}", fix="box_samples count from 0")
        require_inside(f"{path}: boxes[{row}]", box, size or (sys.maxsize, sys.maxsize))
    found = []
    for sample in range(total):
        rows = np.flatnonzero(arrays["box_samples"] == sample)
        more = {key[4:]: arrays[key][rows] for key in BOXES[3:] if key in arrays}
        found.append(Boxes(arrays["boxes"][rows], arrays["box_labels"][rows], **more))
    return found


def target_arrays(targets: Any) -> dict[str, np.ndarray]:
    """What an ``.npz`` holds of the samples' targets, under the names that :class:`ArrayDataset` reads.

    Args:
        targets: class indices (n,), masks (n, H, W), or one :class:`Boxes` or :class:`Mask` per sample.

    Raises:
        UsageError: masks of several sizes, or that do not judge other numbers than 255.
    """
    if isinstance(targets, (list, tuple)) and targets and all(isinstance(target, Boxes) for target in targets):
        fields = ("xyxy", "labels", "crowd", "difficult", "areas")
        names = ("boxes", "box_labels", *BOXES[3:])
        arrays = {n: np.concatenate([getattr(t, f) for t in targets]) for n, f in zip(names, fields, strict=True)}
        return {**arrays, "box_samples": np.repeat(np.arange(len(targets)), [len(target) for target in targets])}
    if isinstance(targets, (list, tuple)) and targets and all(isinstance(target, Mask) for target in targets):
        if len({target.size for target in targets}) > 1 or any(target.ignore != IGNORE for target in targets):
            raise UsageError("masks have several sizes or ignore another number than 255", fix="make them alike")
        return {MASKS: np.stack([target.labels for target in targets])}
    array = np.asarray(targets)
    return {MASKS if array.ndim == 3 else LABELS: array}


class RandomDataset(Dataset):
    """Standard-normal numbers: for trying things out, never by default, and named so wherever they were used.

    Args:
        shapes: shape by input, the batch axis first.
    """

    name = RANDOM

    def __init__(self, shapes: Mapping[str, Sequence[int]], samples: int, seed: int) -> None:
        super().__init__()
        self.shapes, self.seed = shapes, seed
        self.numbers: Sequence[int] = range(samples)

    def __len__(self) -> int:
        return len(self.numbers)

    def identities(self) -> list[str]:
        """See :meth:`Dataset.identities`."""
        return [f"{RANDOM}-{self.seed}-{number}" for number in self.numbers]

    def take(self, indices: Sequence[int]) -> RandomDataset:
        """See :meth:`Dataset.take`."""
        taken = copy(self)
        taken.numbers = [self.numbers[i] for i in indices]
        return taken

    def read(self, indices: Sequence[int], count: int, free_cores: int) -> Iterator[Read]:
        """Each sample has a generator of its own."""
        for index in indices:
            generator = np.random.default_rng([self.seed, self.numbers[index]])
            arrays = {n: generator.standard_normal(s[1:], dtype=np.float32) for n, s in self.shapes.items()}
            yield Read(f"{RANDOM}-{self.seed}-{self.numbers[index]}", arrays, None)

    def hashes(self) -> dict[str, str]:
        """The seed and the number stand for the contents."""
        return dict.fromkeys(self.identities(), "standard normal")

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`."""
        shapes = {name: list(shape[1:]) for name, shape in self.shapes.items()}
        return hashlib.sha256(f"{self.identities()} {shapes}".encode()).hexdigest()

    def image(self, identity: str) -> None:
        """Numbers have no picture."""
        return None


def _digest(inputs: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(inputs.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode() + array.tobytes())
    return digest.hexdigest()


def _as_input(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


@contextmanager
def _arrays(path: Path) -> Iterator[dict[str, Callable[[], IO[bytes]]]]:
    """What opens each array of a file by name; a ``.npy`` holds one, named as the file."""
    if path.suffix == ".npy":
        yield {path.stem: lambda: path.open("rb")}
        return
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        yield {name.removesuffix(".npy"): partial(archive.open, name) for name in members}


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every array in the file, from the headers alone."""
    shapes = {}
    try:
        with _arrays(path) as arrays:
            for key, opened in arrays.items():
                with opened() as stream:
                    shapes[key] = _header(stream, path, key)[0]
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        kind = path.suffix or "file"
        raise UsageError(f"{path}: not a readable {kind}: {error}", fix="write it with numpy.savez") from error
    if not shapes:
        raise UsageError(f"{path}: holds no arrays", fix="write it with numpy.savez(path, input_name=array)")
    return shapes


def _header(stream: IO[bytes], path: Path, key: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise UsageError(f"{path}: {key} holds pickled objects, which are never loaded", fix="save plain numbers")
    return shape, fortran, dtype


def _rows(path: Path, opened: Callable[[], IO[bytes]], key: str, chosen: set[int]) -> Iterator[np.ndarray]:
    """The chosen samples of one array, in order, holding one at a time (Fortran order: the whole array)."""
    with opened() as stream:
        shape, fortran, dtype = _header(stream, path, key)
        count = int(np.prod(shape[1:], dtype=np.int64))
        if fortran:
            whole = np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
            yield from (whole[i] for i in range(shape[0]) if i in chosen)
            return
        for i in range(shape[0]):
            data = stream.read(count * dtype.itemsize)
            if i in chosen:
                yield np.frombuffer(data, dtype, count).reshape(shape[1:])
