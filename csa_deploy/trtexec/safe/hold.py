"""Holds a target for work that another machine does on it: the lock of its jobs, for as long as a connection lasts.

The lock is that of :mod:`csa_deploy.trtexec.job`, so that neither jobs nor other tunings run meanwhile. Its holder
reads its standard input until that ends, which it does with this process, with the connection, or with either machine.
"""

from __future__ import annotations

import logging
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from csa_deploy.errors import CsaDeployError, EnvironmentLacksError
from csa_deploy.trtexec.files import make_folder, persistently
from csa_deploy.trtexec.job_scripts import ALIVE, LOCK, PID
from csa_deploy.trtexec.transport import Transport, unasked

_logger = logging.getLogger(__name__)
_SOON_S = 3.0
# $1: workdir. Its trap replaces the lock's: the holder's own folder goes too.
_HOLD = f"""{ALIVE}umask 077
mkdir -p "$1/hold.$$" && cd "$1/hold.$$" || exit 1
echo "$$ $(started $$)" > {PID}.new && mv {PID}.new {PID} || exit 1
{LOCK}trap 'rm -f ../lock; cd ..; rm -rf "hold.$$"' EXIT
echo held
cat > /dev/null
"""


@dataclass
class Hold:
    """A target that is held.

    Args:
        process: the local end of its holder.
    """

    transport: Transport
    process: subprocess.Popen[bytes]

    def lost(self) -> CsaDeployError | None:
        """Why the target is held no more; None while it is."""
        status = self.process.poll()
        if status is None:
            return None
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode(errors="replace").strip()
        return self.transport.failure(status, said) or EnvironmentLacksError(
            f"{self.transport.name}: it let go of its lock: {said or f'status {status}'}", fix="run the command again"
        )


@contextmanager
def held(transport: Transport, workdir: str) -> Iterator[Hold]:
    """Hold a target; waits for whoever uses it.

    Raises:
        EnvironmentLacksError: its workdir cannot be used, or the connection broke.
    """
    make_folder(transport, workdir)
    process = persistently(lambda: _started(transport, workdir), transport)
    try:
        yield Hold(transport, process)
    finally:
        _end(process)


def _started(transport: Transport, workdir: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        transport.command(_HOLD, workdir),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=unasked(),
    )
    assert process.stdout is not None
    try:
        if not select.select([process.stdout], [], [], _SOON_S)[0]:
            _logger.warning("%s: waiting for another command that uses it", transport.name)
        if process.stdout.readline().strip() == b"held":
            return process
        process.wait()
        error = Hold(transport, process).lost()
        assert error is not None
        raise error
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its input, which ends it there; a connection that hangs is cut."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
