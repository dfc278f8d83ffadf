"""Builds a safety engine on this machine while the target times its kernels, and asks NVIDIA's checkers about it."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from csa_deploy.engine.parts import gather_parts
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import CsaDeployError, EnvironmentLacksError
from csa_deploy.records.build import Part, Role
from csa_deploy.trtexec.command import CACHE, ENGINE
from csa_deploy.trtexec.files import Progress
from csa_deploy.trtexec.job import Finished, Job
from csa_deploy.trtexec.machine import Machine
from csa_deploy.trtexec.safe.commands import BLOB, COMPANION, reference_command
from csa_deploy.trtexec.safe.evidence import REFERENCE_PASSED, REFERENCE_REFUSED
from csa_deploy.trtexec.safe.hold import Hold, held
from csa_deploy.trtexec.safe.host import Host
from csa_deploy.trtexec.safe.options import why_no_reference
from csa_deploy.trtexec.safe.tuning import Leftovers
from csa_deploy.trtexec.safe.watched import run_watched

_logger = logging.getLogger(__name__)
_SPARE_BYTES = 1 << 24
# What trtexec says on its way, in order: the steps of the progress.
_STEPS = (
    "Start parsing network model",
    "Finished parsing network model",
    "Start consistency checking",
    "Engine built in",
    "&&&& PASSED",
)


def build_on_host(machine: Machine, job: Job, folder: Path, plan: BuildPlan, progress: Progress | None) -> Finished:
    """Run a build, and where TensorRT has one its reference checker, with the target held meanwhile.

    Args:
        machine: the target, with its host.
        job: trtexec's command and its input files.
        folder: an empty folder here for what trtexec writes.
        plan: what is built; its time limit counts where it is the smaller one.
        progress: called with (steps done, steps).

    Returns:
        Status, masked log, and every file that the build left; its engine is under ``engine.plan``.

    Raises:
        EnvironmentLacksError: a library or the target is missing, the target was lost, a full disk, the time limit.
    """
    host = machine.host
    assert host is not None
    host.require_ready()
    with _as_environment_error(folder):
        _lay_out(job, folder)
        with held(machine.transport, machine.workdir) as hold, _nothing_left(machine, host):
            told = _Told(progress)
            limit = min(host.limit_s, plan.time_limit_s or host.limit_s)
            status, log = _run(job.argv, folder, host, hold, told, limit)
            if status == 0 and "&&&& PASSED" not in log:
                status = 1  # a program that ends with 0 and does not say so has not passed
            if status == 0 and (folder / ENGINE).is_file() and not why_no_reference(host.version, host.listed):
                status, said = _reference(machine, host, folder, hold, limit)
                log += said
    files = {path.name: path for path in sorted(folder.iterdir()) if path.name not in job.inputs and path.is_file()}
    return Finished(status, log, files)


def _run(argv: Sequence[str], folder: Path, host: Host, hold: Hold, told: _Told, limit_s: float) -> tuple[int, str]:
    return run_watched(
        argv, folder, host.environment, limit_s=limit_s, lost=hold.lost, told=told, terminal=host.remote.prompts
    )


class _Told:
    """Reads the log for progress."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done = progress, 0

    def __call__(self, line: str) -> None:
        for place, said in enumerate(_STEPS, 1):
            if said in line and place > self._done:
                self._done = place
                if self._progress:
                    self._progress(place, len(_STEPS))


def gathered(host: Host, files: Mapping[str, Path], folder: Path) -> tuple[Part, ...]:
    """What belongs to an engine, copied into a new folder.

    Raises:
        EnvironmentLacksError: the disk is full.
        UsageError: two files of one name.
    """
    with _as_environment_error(folder):
        return gather_parts(folder, _parts_of(host, files))


def _parts_of(host: Host, files: Mapping[str, Path]) -> Iterator[tuple[Role, Path, str]]:
    """What a build left besides its engine and log, and the plugin libraries of the engine.

    The name of the companion library is not documented: whatever is a shared library is one.
    """
    for name, path in files.items():
        if name in (ENGINE, CACHE):
            continue
        role: Role = "checker-blob" if name == BLOB else "companion" if ".so" in name else "other"
        yield role, path, ""
    for plugin in host.plugins:
        yield "plugin-run", plugin.run, plugin.names
        if plugin.build.name != plugin.run.name:
            yield "plugin-build", plugin.build, plugin.names


def _reference(machine: Machine, host: Host, folder: Path, hold: Hold, limit_s: float) -> tuple[int, str]:
    """Ask the reference checker.

    Its texts are not public, so that its verdict is the last line, the exit status, and no error between.
    """
    _logger.info("%s: asking the reference checker, which runs every generated kernel there", machine.name)
    blob, pair = ((folder / name).is_file() for name in (BLOB, COMPANION))
    argv = [host.trtexec, *reference_command(host, blob=blob, pair=pair)]
    status, log = _run(argv, folder, host, hold, _Told(None), limit_s)
    if status == 0 and "&&&& PASSED" in log and "[E]" not in log:
        return 0, f"{log}{REFERENCE_PASSED}\n"
    said = next((line.partition("[E]")[2].strip() for line in log.splitlines() if "[E]" in line), f"status {status}")
    return 1, f"{log}[E] {REFERENCE_REFUSED}: {said}\n"


def _lay_out(job: Job, folder: Path) -> None:
    """The input files under the names that the command gives them."""
    sizes = sum(path.stat().st_size for path in job.inputs.values())
    free, needed = shutil.disk_usage(folder).free, 2 * sizes + _SPARE_BYTES
    if free < needed:
        raise OSError(errno.ENOSPC, f"{free >> 20} MiB are free, about {needed >> 20} MiB are needed")
    for name, path in job.inputs.items():
        (folder / name).symlink_to(path.resolve())


@contextmanager
def _nothing_left(machine: Machine, host: Host) -> Iterator[None]:
    """End on the target what an unfinished build left there, as far as the target can be reached."""
    leftovers = Leftovers(machine.transport, host.remote)
    try:
        yield
    except BaseException:
        with suppress(CsaDeployError):
            leftovers.end()
        raise
    leftovers.end()


@contextmanager
def _as_environment_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        what = "its disk is full" if full else "the build cannot run"
        raise EnvironmentLacksError(
            f"this machine: {what} ({error.strerror}): {folder.parent}",
            fix="free space there, or use --workspace on another disk"
            if full
            else "check host_trtexec: and the folder",
        ) from error
