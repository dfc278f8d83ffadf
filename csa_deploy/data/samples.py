"""One image of a data set, and lists of them that stay small."""

from __future__ import annotations

import hashlib
import io
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from csa_deploy.data.images import check_image, decode
from csa_deploy.data.shards import Member
from csa_deploy.data.targets import Target, TargetReader

Source = Path | np.ndarray | Member | Callable[[], np.ndarray]
"""An image: its file, its pixels uint8 (H, W) or (H, W, 3), a shard's member, or what makes its pixels."""


@dataclass(frozen=True)
class Sample:
    """One image.

    Attributes:
        id: unique in its data set.
        target: what is true of it, or what reads or makes that; None when unknown. A mask has the size of the image.
        source: the image.
    """

    id: str
    target: Target | TargetReader | Callable[[], Target] | None
    source: Source

    @property
    def label(self) -> int | None:
        """Its class index, if it has one."""
        return self.target if isinstance(self.target, int) else None

    def read_target(self, size: tuple[int, int]) -> Target | None:
        """What is true of the image, which has (height, width) pixels; raises UsageError when it cannot be read."""
        if isinstance(self.target, TargetReader):
            return self.target.read(size)
        return self.target() if callable(self.target) else self.target

    def target_digest(self) -> bytes:
        """SHA-256 of its mask or boxes; nothing for a class, which :attr:`label` tells."""
        target = self.target() if callable(self.target) else self.target
        return b"" if target is None or isinstance(target, int) else target.digest()

    def check(self) -> None:
        """Read the header of the file; raises UsageError when it is no image, or its target is of another one."""
        if isinstance(self.source, Path):
            size = check_image(self.source)
        elif isinstance(self.source, Member):
            size = check_image(io.BytesIO(self.source.read()), f"{self.source.file}:{self.source.name}")
        else:
            return
        if isinstance(self.target, TargetReader):
            self.target.check(size)

    def image(self) -> Image.Image:
        """The decoded image in mode RGB or L; raises UsageError when it cannot be read."""
        if isinstance(self.source, Path):
            return decode(self.source, self.source)
        if isinstance(self.source, Member):
            return decode(io.BytesIO(self.source.read()), str(self.source))
        return Image.fromarray(self._pixels())

    def digest(self) -> bytes:
        """SHA-256 of the file's bytes or of the pixels; of a file that cannot be opened, of the reason."""
        try:
            if isinstance(self.source, Path):
                content = self.source.read_bytes()
            elif isinstance(self.source, Member):
                content = self.source.read()
            else:
                content = np.ascontiguousarray(self._pixels()).tobytes()
        except OSError as error:
            content = f"unreadable: {error.strerror}".encode()
        return hashlib.sha256(content).digest()

    def _pixels(self) -> np.ndarray:
        assert not isinstance(self.source, (Path, Member))
        return self.source() if callable(self.source) else self.source


class Endless(Sequence[Sample]):
    """Samples that are made, so that each epoch of a training can have new ones."""

    @abstractmethod
    def of_epoch(self, epoch: int, *, crowded: bool) -> Sequence[Sample]:
        """As many samples of an epoch, counted from 0, all new ones; ``crowded``: with more objects each."""


class LabelledFiles(Sequence[Sample]):
    """Images with class indices, made into samples one by one: a list of a million stays small, also for workers.

    Args:
        files: members of shards, or paths below ``folder``, which are the identities too.
        labels: class index of each; None where it has none.
    """

    def __init__(self, files: Sequence[Member | str], labels: Sequence[int | None], folder: Path = Path()) -> None:
        self.files, self.labels, self.folder = files, labels, folder

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        """The sample at an index."""
        file = self.files[index]
        return Sample(str(file), self.labels[index], file if isinstance(file, Member) else self.folder / file)
