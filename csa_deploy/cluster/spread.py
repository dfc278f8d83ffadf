"""Sends the shares of a job to workers and gives their parts back in the order of the samples.

Nothing here decides a number: a part is what a worker's process gives for the same samples in the same batches, and
whoever takes the parts puts them together in order. A worker gets a share only after it has given, to the bit, what
this process gives for the first one. What a worker cannot do is tried here before it is called an error, so that an
unreadable sample is reported as without a cluster.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from csa_deploy.cluster.connection import DECIDING, addresses, connected, described
from csa_deploy.cluster.parts import KeptShares, SharePart, shares_of
from csa_deploy.cluster.worker import Run, SampleJob, Sent, ShareAnswer, content_of, name_of, run_share
from csa_deploy.errors import CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.installing import versions
from csa_deploy.workspace import key_of, sha256_of

if TYPE_CHECKING:
    from distributed import Client, Future, as_completed

    from csa_deploy.config import Config

logger = logging.getLogger(__name__)
_RETRIES = 2
_EACH = 4
"""Shares on their way per worker: it has the next ones when it ends one."""
_POLL = 0.01  # seconds between two looks at what has ended
_ALONE = 30  # seconds without a worker, in which one may start again
_GO_ON = "run the same command again: shares that are done are kept"
Progress = Callable[..., None]
"""Called with (samples done, samples, what is said beside)."""


class Gathered(Protocol):
    """What is known of the samples so far."""

    def share(self, indices: range) -> SharePart:
        """Run samples apart from what is known."""

    def add(self, part: SharePart) -> None:
        """Put what came of the next samples behind it."""

    def run(self, progress: Callable[[int, int], None], indices: range) -> None:
        """Run the next samples on it."""


def run_on_cluster(cluster: str, job: SampleJob, gathered: Gathered, kept: KeptShares, progress: Progress) -> None:
    """Run all samples of a job on the workers of a cluster.

    Raises:
        CsaDeployError: see :func:`csa_deploy.cluster.connection.connected` and :func:`parts_of`, and what one process
            raises.
    """
    with connected(cluster) as client:
        shares = shares_of(len(job.data), job.batch)
        for share, part in parts_of(client, job, shares, gathered.share, kept, progress):
            if part is None:
                gathered.run(lambda done, total: None, share)
            else:
                gathered.add(part)
    kept.forget()


def parts_of(
    client: Client, job: SampleJob, shares: Sequence[range], here: Run, kept: KeptShares, progress: Progress
) -> Iterator[tuple[range, SharePart | None]]:
    """All shares in order, each with its part; None where the caller has to run it, as no worker could.

    Args:
        client: of the cluster.
        job: what workers run.
        shares: consecutive, from the first sample on.
        here: runs samples in this process, apart from all others: the first share, which every worker is held to.
        kept: parts of an earlier run; those that come are put there.
        progress: see :data:`Progress`.

    Raises:
        EnvironmentLacksError: a worker that lacks something, or gives other numbers; named. Or no worker is left.
    """
    first, total = shares[0], shares[-1].stop
    try:
        proof = here(first)
    except CsaDeployError:
        yield first, None
        raise
    yield first, proof
    found: dict[range, SharePart | ShareAnswer] = dict(kept.of(shares[1:]))
    if done := sum(map(len, found)):
        logger.info("%d of %d samples are kept from an interrupted run", done, total)
    done += len(first)
    progress(done, total, described(client))
    missing = [share for share in shares[1:] if share not in found]
    with contextlib.closing(_answers(client, job, first, proof, missing)) as answers:
        for share in shares[1:]:
            while share not in found:
                came, answer = next(answers)
                found[came] = answer.part or answer
                done += len(came)
                if answer.part is not None:
                    _require_same_files(job, came, answer)
                    kept.put(came, answer.part)
                progress(done, total, described(client))
            part = found.pop(share)
            if isinstance(part, SharePart):
                yield share, part
                continue
            yield share, None  # raises what one process raises, unless the worker is the reason
            raise EnvironmentLacksError(
                f"worker {part.worker} cannot run {_words(share)}, this machine can: {part.stopped}",
                fix="give every worker the same data as this machine",
            )


def _answers(
    client: Client, job: SampleJob, first: range, given: SharePart, missing: Sequence[range]
) -> Generator[tuple[range, ShareAnswer]]:
    """The shares as they end; whatever ends this cancels those that are on their way.

    These are few. A scheduler under load takes nothing for a while, and where more waits for it than sockets hold for
    30 seconds (``distributed.comm.timeouts.tcp``, Linux' ``TCP_USER_TIMEOUT``), the connection is lost.
    """
    from distributed import as_completed

    if not missing:
        return
    futures: dict[Future, range] = {}
    ahead, waiting = iter(missing), as_completed()
    with _published(client, job) as (digest, files):
        sent = Sent(digest, files, client.id, str(Path.cwd()), first, given.sha256())

        room = 0

        def send() -> None:
            nonlocal room
            if len(futures) > room // 2:
                return  # the scheduler is not asked for its workers each time
            room = _EACH * max(len(addresses(client)), 1)
            for share in itertools.islice(ahead, max(room - len(futures), 0)):
                future = client.submit(run_share, sent, share, retries=_RETRIES, pure=False)
                futures[future] = share
                waiting.add(future)

        try:
            send()
            for future in _ended(client, waiting):
                share = futures.pop(future)
                send()
                yield share, _answer(share, future)
        finally:
            client.cancel(list(futures), force=True)


def _ended(client: Client, waiting: as_completed) -> Iterator[Future]:
    """The futures as they end; raises EnvironmentLacksError where nobody is left to end them."""
    alone_since = None
    while waiting.count():
        if batch := waiting.next_batch(block=False):
            alone_since = None
            for future in batch:
                if future.status == "cancelled" or client.status != "running":
                    raise EnvironmentLacksError("the scheduler is gone", fix=_GO_ON)
                if future.status in ("finished", "error") and _there(future):
                    yield future
                else:  # its worker died before the result was fetched, and Dask runs it again
                    waiting.add(future)
            continue
        if addresses(client):
            alone_since = None
        elif time.monotonic() - (alone_since := alone_since or time.monotonic()) > _ALONE:
            raise EnvironmentLacksError(f"the cluster has had no worker for {_ALONE} seconds", fix=_GO_ON)
        time.sleep(_POLL)


def _there(future: Future) -> bool:
    """Whether the result of a task that ended can be fetched."""
    if future.status == "finished":
        with contextlib.suppress(TimeoutError):
            future.result(timeout=_ALONE)
    return bool(future.status in ("finished", "error"))


def _answer(share: range, future: Future) -> ShareAnswer:
    """What a worker says of a share; raises EnvironmentLacksError where it must not or cannot go on."""
    if future.status == "error":  # what no try elsewhere made better
        said = str(future.exception()).split("\n", 1)[0]
        raise EnvironmentLacksError(f"no worker could run {_words(share)}: {said}", fix=_GO_ON)
    answer: ShareAnswer = future.result()
    if answer.unfit:
        raise EnvironmentLacksError(
            f"worker {answer.worker} cannot take part: {answer.stopped}",
            fix="give every worker the data, code and kind of processor of this machine; see docs/cluster.md",
        )
    return answer


@contextlib.contextmanager
def _published(client: Client, job: SampleJob) -> Iterator[tuple[str, dict[str, str]]]:
    """The job and its files on the scheduler, by their hashes, where each worker takes them from once."""
    from distributed.protocol.pickle import dumps

    contents = {str(path): path.read_bytes() for path in job.files()}
    files = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    pickled = dumps(job)
    digest = hashlib.sha256(pickled).hexdigest()
    own = {digest: pickled, **{files[path]: content for path, content in contents.items()}}
    names = [name_of(client.id, key) for key in own]
    try:
        for name, content in zip(names, own.values(), strict=True):
            client.publish_dataset(content, name=name)
        yield digest, files
    finally:
        for name in names if client.status == "running" else ():
            client.unpublish_dataset(name)


def _require_same_files(job: SampleJob, share: range, answer: ShareAnswer) -> None:
    ours, theirs = content_of(job.data, share), answer.content or {}
    for sample, digest in ours.items():
        if theirs.get(sample) != digest:
            raise EnvironmentLacksError(
                f"worker {answer.worker} has another file of sample {sample} than this machine",
                fix="give every worker the same data as this machine",
            )


def _words(share: range) -> str:
    return f"samples {share.start + 1} to {share.stop}"


def require_apart(why: str | None) -> None:
    """Raise UsageError where samples cannot be run apart, for a reason."""
    if why:
        raise UsageError(f"--cluster: {why}, so its samples cannot be run apart", fix="leave out --cluster")


def decided_by(job: SampleJob, config: Config, **more: Any) -> str:
    """Key of all that decides the parts of a job: its data, files, settings and the versions that compute."""
    settings = config.model_dump(mode="json", exclude={"cluster"})
    files = [sha256_of(path) for path in job.files() if path.suffix != ".json"]
    return key_of(
        {
            "data": job.data.fingerprint(),
            "files": files,
            "settings": settings,
            "versions": versions(DECIDING),
            "batch": job.batch,
            **more,
        }
    )
