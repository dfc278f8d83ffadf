"""The target's side of a build on a host: what must be there, and what an ended build leaves running.

A target may be QNX: POSIX sh and its utilities, nothing else.
"""

from __future__ import annotations

import logging
import re

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.trtexec.files import persistently
from csa_deploy.trtexec.safe.remote_config import RemoteConfig
from csa_deploy.trtexec.transport import Transport, run_script
from csa_deploy.trtexec.versions import Version, version_of_help

_logger = logging.getLogger(__name__)

# $1: executables, $2: libraries, $3: trtexec_safe, may be empty. Prints what is not there, then what tells a version:
# the names of the safety libraries, and what trtexec_safe says of itself when it is given no engine.
_LOOK = """[ -d "$1" ] || echo "missing $1"
[ -d "$2" ] || echo "missing $2"
for file in "$2"/libnvinfer_safe*.so.*; do [ -f "$file" ] && echo "library ${file##*/}"; done
if [ -n "$3" ]; then
  if [ -x "$3" ]; then
    cd "${TMPDIR:-/tmp}" 2>/dev/null
    LD_LIBRARY_PATH="$2:$LD_LIBRARY_PATH" "$3" --loadEngine=/nonexistent/csa-deploy </dev/null 2>&1
  else
    echo "missing $3"
  fi
fi
exit 0"""
# Processes whose command names a file below $1, one number a line. QNX has pidin where there is no ps.
_RUNNING = """{ ps -A -o pid= -o args= 2>/dev/null || pidin ar 2>/dev/null; } | while read -r pid words; do
  case $pid in *[!0-9]* | '') continue ;; esac
  case " $words" in *" $1/"*) [ "$pid" = $$ ] || echo "$pid" ;; esac
done"""
_STOP = 'for pid; do kill "$pid" 2>/dev/null; done; exit 0'
_LIBRARY = re.compile(r"^library libnvinfer_safe\w*\.so\.(\d+)\.(\d+)\.(\d+)", re.MULTILINE)


def require_target(
    transport: Transport, folders: tuple[str, str], runner: str | None, told: Version | None, host: Version | None
) -> Version | None:
    """See that the target has what a build or a run needs, and the host's TensorRT.

    Args:
        folders: those of its tuning program and of its libraries.
        runner: path of trtexec_safe there, if there is to be one.
        told: version that trtexec there stated, where it did.
        host: the host's, where it is to build.

    Returns:
        TensorRT's version there; None where nothing there tells it.

    Raises:
        EnvironmentLacksError: a directory or program is missing.
        UsageError: its TensorRT is another.
    """
    text = persistently(lambda: run_script(transport, _LOOK, *folders, runner or ""), transport).text
    for line in text.splitlines():
        if line.startswith("missing "):
            raise EnvironmentLacksError(
                f"{transport.name}: there is no {line.removeprefix('missing ')}",
                fix="install DRIVE OS's TensorRT there, or correct remote_exec_path:, remote_lib_path: or "
                "trtexec_safe: in the target's file",
            )
    library = _LIBRARY.search(text)
    found = told or version_of_help(text) or (Version(*map(int, library.groups())) if library else None)
    if found is not None and host is not None and found != host:
        raise UsageError(
            f"{transport.name} has TensorRT {found}, this machine's trtexec is of {host}",
            fix="install the same version on both: engine, tuning and safety runtime belong to one",
        )
    return found


class Leftovers:
    """What a build starts on the target, as far as it lies below the directory of the tuning program.

    Whether an ended build leaves a process there is not documented; one that it left would disturb the next.

    Args:
        remote: where the program lies.
    """

    def __init__(self, transport: Transport, remote: RemoteConfig) -> None:
        self._transport, self._folder = transport, remote.exec_path
        self._before = self._running()

    def end(self) -> int:
        """End what was not there before; returns how many."""
        left = sorted(self._running() - self._before)
        if left:
            _logger.warning("%s: ending %d processes that the build left there", self._transport.name, len(left))
            run_script(self._transport, _STOP, *left)
        return len(left)

    def _running(self) -> set[str]:
        return set(run_script(self._transport, _RUNNING, self._folder).text.split())
