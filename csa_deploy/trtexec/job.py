"""Runs a command on a target so that it outlives the connection.

A job is a directory named by the hash of what it does and of who asks. Its script is started in the background and
writes its log and, last and by renaming, its exit status. When the connection is lost, the job goes on; whoever asks
for the same job again, from the same account of the same machine, finds it running or done and takes it up from there.

Jobs of one workdir run one after another, whichever machines they come from: two at once would spoil each other's
timings. The lock is a file that the job itself makes on the target, so that it needs no connection to hold; one whose
process is gone is taken over.
"""

from __future__ import annotations

import logging
import os
import platform
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from csa_deploy.errors import CsaDeployError, EnvironmentLacksError
from csa_deploy.trtexec.files import Progress, get, listing, make_folder, persistently, put
from csa_deploy.trtexec.job_scripts import ALIVE, LOCK, LOG, PID, START, STATE, STATUS, STOP
from csa_deploy.trtexec.transport import Transport, UnreachableError, run_script
from csa_deploy.workspace import key_of, sha256_of

_logger = logging.getLogger(__name__)

_SPARE_BYTES = 1 << 24
_STATUS_BYTES = 1 << 16
_ROUNDS = 50


@dataclass(frozen=True)
class Job:
    """A command with its files.

    Attributes:
        argv: program and arguments; run in the job's directory.
        inputs: file name in the job's directory -> file here.
        outputs: names of files to bring back; one that the command does not write is left out.
        attempt: makes a job with the same command another one.
    """

    argv: Sequence[str]
    inputs: Mapping[str, Path]
    outputs: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0

    @property
    def key(self) -> str:
        """Hash of what the job does, and of who asks."""
        return key_of(
            {
                "argv": list(self.argv),
                "inputs": {name: sha256_of(path) for name, path in self.inputs.items()},
                "environment": dict(self.environment),
                "attempt": self.attempt,
                "asked_by": [platform.node(), os.getuid()],
            }
        )

    def script(self) -> str:
        """The shell script that runs it; every word quoted."""
        settings = [f"{name}={value}" for name, value in sorted(self.environment.items())]
        words = shlex.join(["env", *settings, *self.argv] if settings else list(self.argv))
        return (
            f"{ALIVE}"
            f'echo "$$ $(started $$)" > {PID}.new && mv {PID}.new {PID}\n'
            f"{LOCK}"
            f"{words} > {LOG} 2>&1\n"
            f"echo $? > {STATUS}.new && mv {STATUS}.new {STATUS}\n"
        )


@dataclass(frozen=True)
class Finished:
    """A job that ended: exit status, log, and the files that came back by name."""

    status: int
    log: str
    files: Mapping[str, Path]


def run_job(
    transport: Transport,
    workdir: str,
    job: Job,
    into: Path,
    *,
    progress: Progress | None = None,
    limit_s: float | None = None,
) -> Finished:
    """Run a job, or take up one that a lost connection left behind, and bring its files back.

    Args:
        transport: the way to the target, entered.
        workdir: directory for jobs on the target.
        into: existing directory here for the outputs.
        progress: called with bytes sent of bytes to send.
        limit_s: seconds after which the job is ended.

    Returns:
        Exit status, log and files; a failed command is no error here.

    Raises:
        UnreachableError: the target cannot be reached, or not any more; a job that was started goes on there.
        EnvironmentLacksError: the target cannot be written, lacks space, or ended the job without a trace.
    """
    key = job.key[:24]
    with _alone(f"{transport.name}-{key}"):
        return _run_job(transport, workdir, f"{workdir}/{key}", job, into, progress, limit_s)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold a job on this machine: a second process that asks for the same one waits, and then runs it anew."""
    from filelock import FileLock, Timeout

    locks = Path(tempfile.gettempdir()) / f"csa-deploy-jobs-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(locks / f"{name.replace('/', '_')}.lock")
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        _logger.warning("waiting for another command here that runs the same on %s", name.rpartition("-")[0])
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _run_job(
    transport: Transport,
    workdir: str,
    folder: str,
    job: Job,
    into: Path,
    progress: Progress | None,
    limit_s: float | None,
) -> Finished:
    started = False
    try:
        if _state(transport, folder) == "gone":
            _prepare(transport, workdir, folder, job, progress)
            started = True  # from here on it may run, even when no answer comes
            _start(transport, folder, job)
        else:
            started = True
            _logger.info("%s: taking up the job that an earlier command started", transport.name)
        status = _wait(transport, folder, limit_s)
        finished = _collect(transport, folder, job, into, status)
    except UnreachableError as error:
        if not started:
            raise
        raise UnreachableError(
            f"{error.message}; what was started goes on there", fix="run the same command again: it takes the job up"
        ) from None
    except KeyboardInterrupt:
        run_script(transport, STOP, folder)
        raise
    persistently(lambda: run_script(transport, 'rm -rf "$1"', folder), transport)
    return finished


def _state(transport: Transport, folder: str, rounds: int = 0) -> str:
    return persistently(lambda: run_script(transport, STATE, folder, str(rounds)), transport).text


def _prepare(transport: Transport, workdir: str, folder: str, job: Job, progress: Progress | None) -> None:
    free = make_folder(transport, folder)
    sizes = {name: path.stat().st_size for name, path in job.inputs.items()}
    total, sent = sum(sizes.values()), 0
    needed = 2 * total + _SPARE_BYTES  # what is sent, and an engine of about its size
    if free is not None and free < needed:
        raise EnvironmentLacksError(
            f"{transport.name}: {free >> 20} MiB are free under {workdir}, about {needed >> 20} MiB are needed",
            fix="free space there, or set workdir: in the target's file to another disk",
        )
    for name, path in job.inputs.items():
        report = _offset(progress, sent, total)
        put(transport, path, f"{folder}/{name}", report)
        sent += sizes[name]


def _offset(progress: Progress | None, base: int, total: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, _: progress(base + done, total)


def _start(transport: Transport, folder: str, job: Job) -> None:
    script = job.script().encode()
    done = persistently(lambda: run_script(transport, START, folder, data=script), transport)
    if done.status:
        raise EnvironmentLacksError(
            f"{transport.name}: the job did not start: {done.complaint or 'no process'}",
            fix="check the space and the permissions under its workdir",
        )


def _wait(transport: Transport, folder: str, limit_s: float | None) -> int:
    begun, told = time.monotonic(), False
    while True:
        state = _state(transport, folder, _ROUNDS)
        if state.startswith("status "):
            return int(state.split()[1])
        if state == "waiting":
            if not told:
                _logger.warning("%s: waiting for another command that uses it", transport.name)
            begun, told = time.monotonic(), True
        elif state != "running":
            raise _without_trace(transport, folder)
        if limit_s is not None and time.monotonic() > begun + limit_s:
            run_script(transport, STOP, folder)
            raise _late(transport, limit_s)


def _without_trace(transport: Transport, folder: str) -> CsaDeployError:
    """Neither process nor exit status: a full disk takes no status either."""
    free = make_folder(transport, folder)
    if free is not None and free < _STATUS_BYTES:
        return EnvironmentLacksError(
            f"{transport.name}: its disk is full",
            fix="free space under its workdir, or set workdir: in the target's file to another disk",
        )
    return EnvironmentLacksError(
        f"{transport.name}: the job ended without a trace; was the target switched off, or the job killed?",
        fix="run the command again",
    )


def _late(transport: Transport, limit_s: float | None) -> CsaDeployError:
    return EnvironmentLacksError(f"{transport.name}: not done within {limit_s:g} s, ended", fix="raise the time limit")


def _collect(transport: Transport, folder: str, job: Job, into: Path, status: int) -> Finished:
    there = listing(transport, [f"{folder}/{name}" for name in (LOG, *job.outputs)])
    files = {}
    for path, remote in there.items():
        name = path.removeprefix(f"{folder}/")
        get(transport, remote, into / name)
        files[name] = into / name
    log = files.pop(LOG, None)
    return Finished(status, log.read_text(encoding="utf-8", errors="replace") if log else "", files)
