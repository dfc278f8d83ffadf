"""Copies files to and from a target: resumed after a lost connection, checked by hash, whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.trtexec.transport import ConnectionLostError, Transport, run_script, unasked
from csa_deploy.workspace import sha256_of

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")
Progress = Callable[[int, int], None]

ATTEMPTS = 4
_PAUSE_S = 1.0
_CHUNK = 1 << 18
_DAMAGED, _UNPROVED = 4, 5

# The hash of standard input, or - where nothing there makes one: POSIX has no such tool, and QNX may have none.
_HASH = """hash() {
  if command -v sha256sum >/dev/null 2>&1; then sha256sum | cut -c1-64
  elif command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 -r | cut -c1-64
  else echo -; fi
}
"""
# Prints the hash of each file that is there, its size, and the path as given.
_LIST = f"""{_HASH}for path; do
  if [ -f "$path" ]; then echo "$(hash < "$path") $(wc -c < "$path" | tr -d ' ') $path"; fi
done"""
# Appends what comes in; the last bytes make the file, if its hash is the one that was announced.
_APPEND = f"""{_HASH}cat >> "$1" || exit 3
[ "$(wc -c < "$1" | tr -d ' ')" -ge "$4" ] || exit 0
sum=$(hash < "$1")
if [ "$sum" = "$3" ]; then mv -f "$1" "$2"
elif [ "$sum" = - ]; then mv -f "$1" "$2" && exit 5
else rm -f "$1"; exit 4; fi"""
_TAIL = 'tail -c "+$2" "$1"'
# Readable by its owner alone; one that another user made is not taken (workdir often lies under /tmp).
_MAKE_FOLDER = """umask 077
mkdir -p "$1" || exit 1
[ -w "$1" ] && [ -O "$1" ] && [ -O "${1%/*}" ] || { echo "it belongs to another user" >&2; exit 1; }
{ df -Pk "$1" || df -k "$1"; } 2>/dev/null | { read -r _; read -r _ _ _ free _; echo "$free"; }"""


@dataclass(frozen=True)
class Remote:
    """A file on a target: path, SHA-256 and size in bytes."""

    path: str
    sha256: str
    size: int


def persistently(action: Callable[[], _Result], transport: Transport) -> _Result:
    """Do something that can be done again, until the connection holds; raises after :data:`ATTEMPTS` losses."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except ConnectionLostError as error:
            if attempt == ATTEMPTS:
                raise
            _logger.info("%s; trying again (%d of %d)", error.message, attempt, ATTEMPTS - 1)
            time.sleep(_PAUSE_S * attempt)
    raise AssertionError("unreachable")


def make_folder(transport: Transport, folder: str) -> int | None:
    """Make a directory.

    Returns:
        Bytes free there; None when the target does not tell.

    Raises:
        EnvironmentLacksError: it cannot be made or written.
    """
    done = persistently(lambda: run_script(transport, _MAKE_FOLDER, folder), transport)
    if done.status:
        raise EnvironmentLacksError(
            f"{transport.name}: {folder} cannot be used: {done.complaint or 'no permission'}",
            fix="set workdir: in the target's file to a directory that may be written",
        )
    return int(done.text) * 1024 if done.text.isdigit() else None


def listing(transport: Transport, paths: Iterable[str]) -> dict[str, Remote]:
    """Those of the files that are there, by path."""
    text = persistently(lambda: run_script(transport, _LIST, *paths), transport).text
    rows = (line.split(" ", 2) for line in text.splitlines())
    return {
        path: Remote(path, _read_back(transport, path) if digest == "-" else digest, int(size))
        for digest, size, path in rows
    }


def _read_back(transport: Transport, path: str) -> str:
    """The hash of a file on a target that can make none: of what comes back of it."""
    return hashlib.sha256(persistently(lambda: run_script(transport, 'cat "$1"', path), transport).output).hexdigest()


def put(transport: Transport, local: Path, remote: str, progress: Progress | None = None) -> None:
    """Copy a file to the target; one that is there with the same content is left alone.

    Raises:
        EnvironmentLacksError: the target cannot be reached, has no space, or the copy differs.
    """
    digest, size = sha256_of(local), local.stat().st_size
    persistently(lambda: _upload(transport, local, remote, digest, progress), transport)
    if progress:
        progress(size, size)


def _upload(transport: Transport, local: Path, remote: str, digest: str, progress: Progress | None) -> None:
    partial, size = f"{remote}.{digest[:16]}.partial", local.stat().st_size
    found = listing(transport, [remote, partial])
    if remote in found and found[remote].sha256 == digest:
        return
    there = found[partial].size if partial in found else 0
    with local.open("rb") as source, tempfile.TemporaryFile() as complaint:
        source.seek(there)
        process = subprocess.Popen(
            transport.command(_APPEND, partial, remote, digest, str(size)),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaint,
            start_new_session=True,
            env=unasked(),
        )
        assert process.stdin is not None
        try:
            while chunk := source.read(_CHUNK):
                process.stdin.write(chunk)
                there += len(chunk)
                if progress:
                    progress(there, size)
            process.stdin.close()
        except BrokenPipeError:  # its exit status says why
            pass
        except BaseException:
            process.kill()
            raise
        finally:
            status = process.wait()
        if status == _UNPROVED and _read_back(transport, remote) == digest:
            return
        if status in (_DAMAGED, _UNPROVED):
            raise ConnectionLostError(f"{local.name} arrived damaged on {transport.name}", fix="run the command again")
        _raise_for(transport, status, complaint, f"{local.name} could not be copied to {transport.name}")


def get(transport: Transport, remote: Remote, local: Path, progress: Progress | None = None) -> None:
    """Copy a file from the target.

    Raises:
        EnvironmentLacksError: the target cannot be reached, or the copy differs.
    """
    partial = local.with_name(f".{local.name}.{remote.sha256[:16]}.partial")
    try:
        persistently(lambda: _download(transport, remote, partial, progress), transport)
        partial.replace(local)
    finally:
        partial.unlink(missing_ok=True)


def _download(transport: Transport, remote: Remote, partial: Path, progress: Progress | None) -> None:
    with partial.open("ab") as sink, tempfile.TemporaryFile() as complaint:
        done = sink.tell()
        process = subprocess.Popen(
            transport.command(_TAIL, remote.path, str(done + 1)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaint,
            start_new_session=True,
            env=unasked(),
        )
        assert process.stdout is not None
        try:
            while chunk := process.stdout.read(_CHUNK):
                sink.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, remote.size)
        except BaseException:
            process.kill()
            raise
        finally:
            status = process.wait()
        _raise_for(transport, status, complaint, f"{remote.path} could not be copied from {transport.name}")
    if sha256_of(partial) != remote.sha256:
        partial.unlink()
        raise ConnectionLostError(f"{remote.path} arrived damaged from {transport.name}", fix="run the command again")


def _raise_for(transport: Transport, status: int, complaint: IO[bytes], what: str) -> None:
    if status == 0:
        return
    complaint.seek(0)
    text = complaint.read().decode(errors="replace").strip()
    failure = transport.failure(status, text)
    if failure is not None:
        raise failure
    full = "No space left" in text
    raise EnvironmentLacksError(
        f"{what}: {'its disk is full' if full else text or f'status {status}'}",
        fix="free space under its workdir, or set another workdir" if full else "check workdir: in the target's file",
    )
