"""What trtexec_safe's output means. Its exit status is no verdict: it is 0 for FAILED as well.

Success is the exit status 0, its own line of success, and no error between (samples/trtSafeExec of 10.15 to 11.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from csa_deploy.errors import CsaDeployError, EnvironmentLacksError
from csa_deploy.trtexec.messages import explain
from csa_deploy.trtexec.safe.secrets import masked

_PASSED = re.compile(r"^&&&& PASSED TensorRT\.trtexec_safe\b", re.MULTILINE)
_ERROR = re.compile(r"\[E\]\s*(.+)")
_RUN = re.compile(r"Average over 1 runs - GPU latency: ([\d.eE+-]+) ms - Host latency: ([\d.eE+-]+) ms")


@dataclass(frozen=True)
class Latencies:
    """Every timed inference, in ms.

    Attributes:
        gpu: on the device.
        host: from the launch until its end is known here; nothing is copied.
    """

    gpu: tuple[float, ...]
    host: tuple[float, ...]


def why_not_passed(log: str, status: int, runs: int) -> CsaDeployError | None:
    """The error that a run of trtexec_safe means; None where it passed.

    Args:
        log: its standard output and error.
        status: exit status; 128 and more for a signal.
        runs: how many times it ran.
    """
    errors = _ERROR.findall(log)
    passed = len(_PASSED.findall(log))
    if status == 0 and passed == runs and not errors:
        return None
    if status == 0 and not errors:
        return EnvironmentLacksError(
            "trtexec_safe ends with status 0 and does not say that it passed, which counts as failed",
            fix="see its log with -vv",
        )
    return explain(masked(log), status or 1, "running trtexec_safe", "the message with -vv")


def latencies_of(log: str) -> Latencies:
    """The per-inference lines; its own summary is not used: its median of an even number is one place too high.

    Raises:
        EnvironmentLacksError: no line of an inference.
    """
    found = _RUN.findall(log)
    if not found:
        raise EnvironmentLacksError(
            "trtexec_safe passed and printed no latencies: a build for NVIDIA's own log (ENABLE_NVLOG) keeps them from "
            "the connection",
            fix="read them in the target's own log, or use a trtexec_safe that prints them",
        )
    return Latencies(tuple(float(gpu) for gpu, _ in found), tuple(float(host) for _, host in found))
