"""Deterministic tar archives, and reading those of others without trust.

Bundles are plain, uncompressed tar: every tool unpacks them, the same files give the same bytes, and nothing can unpack
to more than it is.
"""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from csa_deploy.errors import EnvironmentLacksError, UsageError

MAX_MEMBERS = 10_000
_MAX_BYTES = 64 << 30
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ @-]*")


def write_archive(path: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write files in order of name, with fixed times, owners and modes; under a temporary name until it is whole.

    Raises:
        EnvironmentLacksError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in sorted(files):
                _add(archive, name, files[name])
        partial.replace(path)
    except OSError as error:
        raise EnvironmentLacksError(f"cannot write {path}: {error.strerror}", fix="free or unlock the disk") from None
    finally:
        partial.unlink(missing_ok=True)


def _add(archive: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    info = tarfile.TarInfo(check_name(name))
    info.mode = 0o755 if name.endswith(".sh") else 0o644
    if isinstance(content, bytes):
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
        return
    info.size = content.stat().st_size
    with content.open("rb") as stream:
        archive.addfile(info, stream)


def check_name(name: str) -> str:
    """A member's name as it is; raises UsageError for one that could lead outside or confuse a shell."""
    parts = name.split("/")
    if not all(_PART.fullmatch(part) for part in parts) or len(name) > 200:
        raise UsageError(f"{name!r} is no name for a file in a bundle", fix="use letters, digits and . _ - only")
    return name


class Archive:
    """An archive from somewhere, opened for reading; nothing in it is trusted.

    Raises:
        UsageError: no plain tar, or a member that is no plain file, leads outside, comes twice, or is too large.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tar = tarfile.open(path, mode="r:")  # noqa: SIM115 - closed by __exit__; "r:" takes no compression
            self._members = self._checked()
        except FileNotFoundError:
            raise UsageError(f"no such bundle: {path}", fix="check the path") from None
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            raise UsageError(f"{path}: no bundle, or cut short ({error})", fix="copy it again") from None

    def _checked(self) -> dict[str, tarfile.TarInfo]:
        found: dict[str, tarfile.TarInfo] = {}
        size = self.path.stat().st_size
        for count, member in enumerate(self._tar, start=1):
            if count > MAX_MEMBERS:
                raise self._refused(f"more than {MAX_MEMBERS} files")
            self._check(member, found, size)
            found[member.name] = member
        if not found:
            raise self._refused("nothing is in it")
        return found

    def _check(self, member: tarfile.TarInfo, found: Mapping[str, tarfile.TarInfo], size: int) -> None:
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise self._refused(f"{member.name!r} is no plain file (links, devices and sparse files are refused)")
        try:
            check_name(member.name)
        except UsageError:
            raise self._refused(f"{member.name!r} would lead outside, or is no plain name") from None
        if member.name in found:
            raise self._refused(f"{member.name!r} is in it twice")
        if member.size < 0 or member.offset_data + member.size > min(size, _MAX_BYTES):
            raise self._refused(f"{member.name!r} is larger than what is there")

    def _refused(self, reason: str) -> UsageError:
        return UsageError(f"{self.path}: refused: {reason}", fix="ask for the bundle again, from its maker")

    @property
    def names(self) -> list[str]:
        """Names of the files."""
        return list(self._members)

    def open(self, name: str) -> io.BufferedReader:
        """A file of the archive; raises UsageError when it is not in it."""
        if name not in self._members:
            raise UsageError(f"{self.path}: {name} is missing", fix="it is no bundle of csa-deploy, or incomplete")
        stream = self._tar.extractfile(self._members[name])
        assert isinstance(stream, io.BufferedReader)  # plain files only
        return stream

    def read(self, name: str, limit: int = 1 << 26) -> bytes:
        """A small file's content."""
        if name in self._members and self._members[name].size > limit:
            raise self._refused(f"{name} is larger than {limit} bytes")
        with self.open(name) as stream:
            return stream.read()

    def unpack(self, folder: Path) -> None:
        """Write all files below a folder that is new or empty."""
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty", fix="unpack into a new folder")
        for name in self.names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as stream, self.open(name) as source:
                shutil.copyfileobj(source, stream)
            target.chmod(0o755 if name.endswith(".sh") else 0o644)

    def __enter__(self) -> Archive:
        """It is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._tar.close()
