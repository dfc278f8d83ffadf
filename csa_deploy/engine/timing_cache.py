"""A timing cache that several builds share: locked while one uses it, and checked by its hash before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.workspace import dump_json, sha256_of, write_atomic


def stamp_of(cache: Path) -> Path:
    """The file beside a timing cache that holds its hash and what it is valid for."""
    return cache.with_name(cache.name + ".json")


@contextmanager
def held_cache(cache: Path | None, who: Mapping[str, Any], *, wait_s: float = 600.0) -> Iterator[None]:
    """Hold a timing cache for one build; a new or updated one is stamped afterwards.

    Args:
        cache: its file; None holds nothing.
        who: TensorRT version and GPU that the timings are of.
        wait_s: seconds to wait for another build that holds it.

    Raises:
        UsageError: it is not the file that was stamped, or is of another TensorRT or GPU.
        EnvironmentLacksError: another build holds it, or it cannot be written.
    """
    if cache is None:
        yield
        return
    from filelock import FileLock, Timeout

    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache.with_name(f".{cache.name}.held"), timeout=wait_s)
        lock.acquire()
    except Timeout:
        raise EnvironmentLacksError(f"{cache}: another build holds it", fix="wait, or use another cache") from None
    except OSError as error:
        raise EnvironmentLacksError(f"{cache}: cannot be written ({error.strerror})", fix="use another path") from None
    try:
        _check(cache, dict(who))
        yield
        if cache.is_file():
            write_atomic(stamp_of(cache), dump_json({"sha256": sha256_of(cache), **who}))
    finally:
        lock.release()


def _check(cache: Path, who: dict[str, Any]) -> None:
    if not cache.is_file():
        return
    try:
        stamp = json.loads(stamp_of(cache).read_text(encoding="utf-8"))
        digest = stamp.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError):
        raise UsageError(
            f"{cache}: no readable {stamp_of(cache).name} beside it, so nobody can say what it holds timings of",
            fix="delete the cache; the next build makes a new one",
        ) from None
    if digest != sha256_of(cache):
        raise UsageError(f"{cache}: it was changed since it was stamped", fix="delete the cache; it is made anew")
    if stamp != who:
        raise UsageError(
            f"{cache}: timings of TensorRT {stamp.get('tensorrt')} on {stamp.get('machine')}, this build is with "
            f"{who.get('tensorrt')} on {who.get('machine')}",
            fix="use one cache per TensorRT version and GPU",
        )
