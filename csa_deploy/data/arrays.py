"""Data sets of tensors in ``.npz`` files: one array per network input, and optionally ``labels``."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from csa_deploy.data.base import Batch, Chooser, Dataset
from csa_deploy.errors import UsageError

LABELS = "labels"


class ArrayDataset(Dataset):
    """Arrays of an ``.npz`` by input name, already preprocessed; the first axis counts the samples.

    The arrays are read as a stream, so the file may be larger than memory. Floating-point inputs become float32.

    Args:
        path: the file.
        name: the path as given.
        choose: the samples to use, given their number.
        classes: class names in label order; empty when unknown.

    Raises:
        UsageError: no such file, no ``.npz``, no input, lengths that differ, pickled objects, or bad labels.
    """

    def __init__(self, path: Path, name: str, choose: Chooser, classes: tuple[str, ...]) -> None:
        self.name, self.path, self.classes = name, path, classes
        self.shapes = _shapes(path)
        lengths = {key: shape[0] if shape else 0 for key, shape in self.shapes.items()}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{key} {count}" for key, count in lengths.items())
            raise UsageError(f"{path}: the arrays differ in their number of samples: {listed}")
        self.total = next(iter(lengths.values()))
        if self.total == 0:
            raise UsageError(f"{path}: holds no samples")
        self.inputs = tuple(key for key in self.shapes if key != LABELS)
        if not self.inputs:
            raise UsageError(f"{path}: holds labels only", fix="add one array per network input, under its name")
        self.indices = choose(self.total)
        self.labels = self._read_labels()

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, batch_size: int, free_cores: int = 0) -> Iterator[Batch]:
        """Read ``batch_size`` samples of every input at a time."""
        chosen = set(self.indices)
        with zipfile.ZipFile(self.path) as archive:
            rows = {key: _rows(archive, key, chosen) for key in self.inputs}
            for start in range(0, len(self), batch_size):
                part = self.indices[start : start + batch_size]
                try:
                    inputs = {key: np.stack([next(stream) for _ in part]) for key, stream in rows.items()}
                except (zipfile.BadZipFile, StopIteration, OSError, ValueError) as error:
                    raise UsageError(f"{self.path}: damaged: {error}", fix="write the file again") from error
                labels = None if self.labels is None else self.labels[start : start + batch_size]
                yield Batch({key: _as_input(a) for key, a in inputs.items()}, labels, tuple(map(str, part)))

    def fingerprint(self) -> str:
        """See :meth:`Dataset.fingerprint`."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(repr(self.indices).encode())
        return digest.hexdigest()

    def only(self, identities: Sequence[str]) -> ArrayDataset:
        """See :meth:`Dataset.only`."""
        wanted = {int(identity) for identity in identities}
        if not wanted <= set(self.indices):
            raise KeyError(sorted(wanted - set(self.indices)))
        return ArrayDataset(self.path, self.name, lambda total: sorted(wanted), self.classes)

    def image(self, identity: str) -> None:
        """Tensors have no picture."""
        return None

    def _read_labels(self) -> np.ndarray | None:
        if LABELS not in self.shapes:
            return None
        with np.load(self.path) as archive:
            labels = archive[LABELS]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise UsageError(
                f"{self.path}: labels are {labels.dtype} of shape {labels.shape}",
                fix="labels are one integer class index per sample",
            )
        return labels[self.indices].astype(np.int64)


def _as_input(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every array in the file, from the headers alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [n for n in archive.namelist() if n.endswith(".npy")]
            shapes = {}
            for member in members:
                with archive.open(member) as stream:
                    shapes[member.removesuffix(".npy")] = _header(stream, path, member)[0]
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise UsageError(f"{path}: not a readable .npz: {error}", fix="write it with numpy.savez") from error
    if not shapes:
        raise UsageError(f"{path}: holds no arrays", fix="write it with numpy.savez(path, input_name=array)")
    return shapes


def _header(stream: IO[bytes], path: Path, member: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise UsageError(f"{path}: {member} holds pickled objects, which are never loaded", fix="save plain numbers")
    return shape, fortran, dtype


def _rows(archive: zipfile.ZipFile, key: str, chosen: set[int]) -> Iterator[np.ndarray]:
    """The chosen samples of one array, in order, holding one at a time (Fortran order: the whole array)."""
    with archive.open(f"{key}.npy") as stream:
        shape, fortran, dtype = _header(stream, Path(str(archive.filename)), key)
        count = int(np.prod(shape[1:], dtype=np.int64))
        if fortran:
            whole = np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
            yield from (whole[i] for i in range(shape[0]) if i in chosen)
            return
        for i in range(shape[0]):
            data = stream.read(count * dtype.itemsize)
            if i in chosen:
                yield np.frombuffer(data, dtype, count).reshape(shape[1:])
