"""Whether this machine's loader finds the libraries that a safety build opens at its start or at its end.

trtexec says so itself, but of the checker only when hours of building are over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from csa_deploy.errors import EnvironmentLacksError

SAFE_RUNTIME, CHECKER, DRIVER = "libnvinfer_safe.so", "libnvinfer_checker_shared.so", "libcuda.so.1"
_LIMIT_S = 120
# Opens each as trtexec does (RTLD_LAZY; the safety runtime also RTLD_GLOBAL), in a process of its own.
_OPEN = """import ctypes, json, os, sys
found = {}
for name in sys.argv[1:]:
    try:
        ctypes.CDLL(name, mode=os.RTLD_LAZY)
        found[name] = ""
    except OSError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def why_not_loaded(names: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """What the loader says of each library; empty for one that it opens.

    Args:
        environment: trtexec's, beside this process's own.

    Raises:
        EnvironmentLacksError: one of them ends the process that opens it.
    """
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, *names],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
    if done.returncode:
        said = " ".join(done.stderr.split())[-200:] or f"status {done.returncode}"
        raise EnvironmentLacksError(
            f"this machine: opening {', '.join(names)} ends its process: {said}",
            fix="look at host_environment: in the target's file; host libraries of one TensorRT version are needed",
        )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def require_libraries(environment: Mapping[str, str], *, checker: bool) -> None:
    """Refuse a build whose libraries are not found.

    Raises:
        EnvironmentLacksError: names the first, and what it lacks itself.
    """
    wanted = (SAFE_RUNTIME, *([CHECKER] if checker else []))
    for name, said in why_not_loaded(wanted, environment).items():
        if not said:
            continue
        also = "; the safety runtime needs a driver library even where nothing is run" if DRIVER in said else ""
        raise EnvironmentLacksError(
            f"this machine cannot load {name}, which trtexec needs for safety builds: {said}{also}",
            fix="install the host package of DRIVE OS's TensorRT, or set LD_LIBRARY_PATH under host_environment:",
        )
