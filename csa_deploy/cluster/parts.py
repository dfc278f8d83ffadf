"""What workers give back of some samples, how samples are cut into shares, and the shares that are kept on disk."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csa_deploy.workspace import write_atomic

_FACTS = "facts"
_FIRST = 2
"""Batches of the first share, which this process runs itself: the batches that are run again in other batches."""
_SHARES = 128
"""Of all others at the most: enough that a slow worker holds the end up by less than 1 % on two workers."""


@dataclass(frozen=True)
class SharePart:
    """What came of consecutive samples: arrays, and what JSON can say."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]

    def to_bytes(self) -> bytes:
        """As an ``.npz``; equal parts give equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.arrays, **{_FACTS: np.asarray(json.dumps(self.facts))})  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> SharePart:
        """The part; raises ValueError where the bytes are none."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = dict(archive.items())
            return cls(arrays, json.loads(str(arrays.pop(_FACTS))))
        except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
            raise ValueError(str(error)) from error

    def sha256(self) -> str:
        """Of its bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def shares_of(samples: int, batch: int) -> list[range]:
    """Consecutive samples in whole batches, but for the last batch: the first share has :data:`_FIRST` batches.

    How many workers there are does not matter, so that shares that are kept fit a later run on others.
    """
    batches = -(-samples // batch)
    size = -(-max(batches - _FIRST, 0) // _SHARES) * batch
    starts = [0, *(range(_FIRST * batch, samples, size) if size else ())]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], samples], strict=True)]


class KeptShares:
    """Parts of an unfinished run, in a folder of its own: a later run takes them over.

    Args:
        folder: of all runs of this kind.
        key: of all that decides the parts.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self._own = folder, folder / key[:16]

    def put(self, share: range, part: SharePart) -> None:
        """Keep a part."""
        write_atomic(self._path(share), part.to_bytes())

    def of(self, shares: Sequence[range]) -> Iterator[tuple[range, SharePart]]:
        """Those that are there and whole."""
        for share in shares:
            try:
                yield share, SharePart.from_bytes(self._path(share).read_bytes())
            except (OSError, ValueError):
                continue

    def forget(self) -> None:
        """Remove them, and those of other settings: everything was put together."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()  # of an evaluation nothing else may be there

    def _path(self, share: range) -> Path:
        return self._own / f"{share.start}-{share.stop}.npz"
