"""WebDataset shards: plain tar files in which ``key.jpg`` (or another image) and ``key.cls`` (its class) are a sample.

The members' places are read once, so that each image can be read by itself. The key ends at the first dot of the
file's name.
"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csa_deploy.data.images import SUFFIXES
from csa_deploy.errors import UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A file inside a tar file: where it begins, and its bytes."""

    file: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.file.name}:{self.name}"

    def read(self) -> bytes:
        """Its content."""
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


def read_shard(file: Path) -> list[tuple[Member, int]]:
    """(image, class index) of each complete sample of a shard, in the shard's order; others are counted in a warning.

    Raises:
        UsageError: not a readable shard, or a class that is no index.
    """
    images: dict[str, Member] = {}
    classes: dict[str, int] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                folder, slash, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key, suffix = f"{folder}{slash}{stem}", suffix.lower()
                if f".{suffix}" in SUFFIXES:
                    images[key] = Member(file, member.name, member.offset_data, member.size)
                elif suffix == "cls":
                    stream = archive.extractfile(member)
                    classes[key] = int(stream.read() if stream else b"")
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UsageError(
            f"{file}: not a readable shard: {error}", fix="a shard is a plain .tar of key.jpg and key.cls"
        ) from error
    for key, label in classes.items():
        if not 0 <= label < 2**31:
            raise UsageError(f"{file}: {key}.cls is {label}", fix="classes are indices from 0")
    alone = [key for key in images if key not in classes]
    if alone:
        logger.warning("%s: %d images without a .cls are left out, first %s", file, len(alone), images[alone[0]].name)
    return [(image, classes[key]) for key, image in images.items() if key in classes]


def shards_in(folder: Path) -> Sequence[Path]:
    """The tar files of a folder, in order; none where it holds images or sub-folders: then these are the data."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if any(path.is_dir() or path.suffix.lower() in SUFFIXES for path in found):
        return []
    return sorted(path for path in found if path.suffix == ".tar")
