"""Connects to a Dask cluster, or starts one of local processes, and refuses one that would give other numbers."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.installing import install_command, installed

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)
_LOCAL = re.compile(r"local(?::([1-9]\d*))?")
_ADDRESS = re.compile(r"(?:tcp|tls|ws|wss)://[^\s/:]+:\d+")
_ANSWER = "5s"
_WORKERS_COME = 10  # seconds
DECIDING = ("csa-deploy", "torch", "onnxruntime", "onnxruntime-gpu", "numpy")
"""Distributions whose versions decide numbers."""


def checked_cluster(given: str) -> str:
    """``local``, ``local:4``, or a scheduler's address; raises ValueError for anything else."""
    if not (_LOCAL.fullmatch(given) or _ADDRESS.fullmatch(given)):
        raise ValueError(f"'{given}' is no cluster: give local, local:N, or a scheduler such as tcp://host:8786")
    return given


@contextmanager
def connected(given: str) -> Iterator[Client]:
    """A client of the cluster; local workers end with it.

    Raises:
        UsageError: it is no cluster.
        EnvironmentLacksError: Dask is not installed, no scheduler answers, there are no workers, or they have other
            versions than this process.
    """
    try:
        local = _LOCAL.fullmatch(checked_cluster(given))
    except ValueError as error:
        raise UsageError(f"--cluster: {error}") from None
    if not installed("distributed"):
        raise EnvironmentLacksError("--cluster: Dask is not installed", fix=install_command("scale"))
    from distributed import Client, LocalCluster

    for name in ("distributed", *(n for n in logging.root.manager.loggerDict if n.startswith("distributed."))):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said here, in one line
    if local:
        with (
            LocalCluster(
                n_workers=int(local[1]) if local[1] else None,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address=":0",
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            logger.info("cluster: %s", described(client))
            yield client
        return
    try:
        client = Client(given, timeout=_ANSWER)
    except (OSError, ValueError, TypeError) as error:
        logger.debug("no scheduler", exc_info=error)
        raise EnvironmentLacksError(
            f"--cluster {given}: no scheduler answers there within {_ANSWER.rstrip('s')} seconds",
            fix="start one with `dask scheduler`, or give --cluster local",
        ) from None
    with client:
        _require_workers(client, given)
        logger.info("cluster: %s", described(client))
        yield client


def require_cluster(given: str | None) -> None:
    """Raise where :func:`connected` would, before anything else is done; starts no local workers."""
    if given is None or (_LOCAL.fullmatch(given) and installed("distributed")):
        return
    with connected(given):
        pass


def described(client: Client) -> str:
    """``2 workers, http://host:8787/status``."""
    count = len(addresses(client))
    return f"{count} worker{'s' if count != 1 else ''}, {client.dashboard_link}"


def addresses(client: Client) -> list[str]:
    """Of the workers that are there now."""
    return list(client.scheduler_info(n_workers=-1)["workers"])


def _require_workers(client: Client, given: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKERS_COME)
    except TimeoutError:
        raise EnvironmentLacksError(
            f"--cluster {given}: the scheduler has no workers, and none came within {_WORKERS_COME} seconds",
            fix=f"start some with `dask worker {given}`",
        ) from None
    for name in DECIDING:
        ours = _version(name)
        if ours is None:
            continue
        # A function of the standard library, so that a worker without csa-deploy can answer.
        found: dict[str, Any] = client.run(importlib.metadata.version, name, on_error="return")
        for worker, answer in sorted(found.items()):
            theirs = answer if isinstance(answer, str) else None
            if theirs != ours:
                said = f"has {name} {theirs}" if theirs else f"has no {name}"
                raise EnvironmentLacksError(
                    f"--cluster {given}: worker {worker} {said}, this machine has {ours}",
                    fix="install the same versions on every worker: others may give other numbers",
                )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
