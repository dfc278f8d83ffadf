"""What runs in a worker: artifacts by their hash, the job that is open, and one share of its samples at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from csa_deploy.cluster.parts import SharePart
from csa_deploy.data.base import Dataset, ImageDataset
from csa_deploy.data.shards import Member
from csa_deploy.errors import CsaDeployError, EnvironmentLacksError
from csa_deploy.workspace import key_of, write_atomic

TOPIC = "csa-deploy"
"""Of the events that workers log: each artifact that one fetched."""

Local = Callable[[Path], Path]
"""Where a file of the job lies in this process."""

Run = Callable[[range], SharePart]
"""Runs samples."""


class SampleJob(Protocol):
    """What is run on samples; it travels pickled."""

    @property
    def data(self) -> Dataset:
        """The samples."""

    @property
    def batch(self) -> int:
        """Samples of a step."""

    def files(self) -> Sequence[Path]:
        """Absolute paths of the files that travel with it."""

    def open(self, stack: ExitStack, local: Local) -> Run:
        """What runs samples; what it opens is closed with the stack."""


@dataclass(frozen=True)
class Sent:
    """A job as workers find it.

    Attributes:
        job: SHA-256 of the pickled job.
        files: SHA-256 by path on the machine that sent it.
        sender: of the artifacts.
        folder: that it was sent from; relative paths of data are from there.
        first: the first share.
        proof: what it gave there.
    """

    job: str
    files: Mapping[str, str]
    sender: str
    folder: str
    first: range
    proof: str

    def opened_as(self) -> str:
        """Key of what a worker has open: a pickled job names files by their paths, which hold something else later."""
        return key_of({**dataclasses.asdict(self), "sender": None})


@dataclass(frozen=True)
class ShareAnswer:
    """Of a worker, for one share.

    Attributes:
        worker: its address.
        part: what came out; None where something stopped it.
        stopped: what did.
        unfit: whether the worker itself is the reason, whatever the samples.
        content: SHA-256 of each of the files that it read, by sample.
    """

    worker: str
    part: SharePart | None = None
    stopped: str = ""
    unfit: bool = False
    content: Mapping[str, str] | None = None


@dataclass
class _Opened:
    sent: Sent
    stack: ExitStack
    job: SampleJob
    run: Run


_one_at_a_time = threading.Lock()  # a network computes on all threads that it has; tasks of a worker share its process
_opened: dict[str, _Opened] = {}


def run_share(sent: Sent, share: range) -> ShareAnswer:
    """Run samples of a job, which stays open for the next share.

    What is wrong with samples is an answer; what may go better elsewhere is raised, and Dask tries again.
    """
    from distributed import get_worker

    worker = get_worker().address
    with _one_at_a_time, inside(sent.folder):
        try:
            opened = _open(sent)
        except Exception as error:  # other people's networks say in many ways what this worker lacks
            return ShareAnswer(worker, stopped=_said(error), unfit=True)
        try:
            return ShareAnswer(worker, opened.run(share), content=content_of(opened.job.data, share))
        except CsaDeployError as error:
            return ShareAnswer(worker, stopped=error.message)


def content_of(data: Dataset, share: range) -> dict[str, str]:
    """SHA-256 of the files of samples, by identity; of pixels that no file holds nothing."""
    if not isinstance(data, ImageDataset):
        return {}
    samples = (data.samples[index] for index in share)
    return {s.id: s.digest().hex() for s in samples if isinstance(s.source, (Path, Member))}


def artifact(digest: str, sender: str) -> Path:
    """The file of an artifact in this worker's own folder, fetched from the scheduler where it is not there yet."""
    from distributed import get_client, get_worker

    worker = get_worker()
    path = Path(worker.local_directory) / TOPIC / digest
    if not path.is_file():
        content = bytes(get_client().get_dataset(name_of(sender, digest)))
        if hashlib.sha256(content).hexdigest() != digest:
            raise EnvironmentLacksError(f"artifact {digest[:12]} arrived damaged", fix="run the command again")
        write_atomic(path, content)
        worker.log_event(TOPIC, {"fetched": digest, "bytes": len(content)})
    return path


def name_of(sender: str, digest: str) -> str:
    """Under which the scheduler holds an artifact: one's own, as another sender takes its own away at its end."""
    return f"{sender}-{digest}"


def _open(sent: Sent) -> _Opened:
    """The job, opened and proved: it gives here what it gave on the machine that sent it."""
    key = sent.opened_as()
    if key in _opened:
        return _opened[key]
    while _opened:  # one job at a time holds memory
        _opened.popitem()[1].stack.close()
    pickled = artifact(sent.job, sent.sender)
    root = pickled.with_name(f"{key}.files")
    for path, digest in sent.files.items():
        link = root / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        source = artifact(digest, sent.sender)
        with contextlib.suppress(FileExistsError):
            os.link(source, link)
    job: SampleJob = pickle.loads(pickled.read_bytes())  # noqa: S301 (of the client whose tasks this worker runs)
    with ExitStack() as stack:
        run = job.open(stack, lambda path: root / str(path.absolute()).lstrip("/"))
        if run(sent.first).sha256() != sent.proof:
            raise EnvironmentLacksError("it gives other numbers for the first samples than the machine that sent them")
        opened = _opened[key] = _Opened(sent, stack.pop_all(), job, run)
    return opened


def inside(folder: str) -> Any:
    """A context in which relative paths are from a folder, where it is there."""
    return contextlib.chdir(folder) if Path(folder).is_dir() else contextlib.nullcontext()


def _said(error: Exception) -> str:
    if isinstance(error, CsaDeployError):
        return error.message
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]
