"""Ask NVIDIA's own safety-scope validator about a network, in a child process with a time limit.

The validator is part of TensorRT-RTX 1.4.0.76 (TensorRT 10's builder); later releases accept the flag and ignore
it. It validates only strongly typed networks with static shapes. A crash or a hang of the native code is an
answer like any other, never the end of the caller.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.records.check import RefusedLayer, ValidatorVerdict
from csa_deploy.restricted.validator_install import (
    INSTALL_COMMAND,
    VERSION,
    install_validator,
    validator_directory,
    validator_status,
)

__all__ = [
    "RefusedLayer",
    "ValidatorSession",
    "ValidatorVerdict",
    "install_validator",
    "validate",
    "validator_directory",
    "validator_status",
]


COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")
_CHILD = Path(__file__).with_name("validator_child.py")
_REFUSED = re.compile(r'Layer \{(?P<layer>[^}]*)\} "(?P<name>.*)" failed safety scope validation', re.DOTALL)
_NETWORK_REFUSED = "Network IO tensors are not in safety scope"
_SKIPPED = ("Safety scope check skipped", "Safety scope validation skipped", "but no optimization profile has been")


def validate(
    model_path: Path | str,
    *,
    timeout: float = 120.0,
    compute_capability: str = "8.6",
    directory: Path | None = None,
) -> ValidatorVerdict:
    """Validate one ONNX file.

    Args:
        model_path: the ONNX file; external data is looked for beside it.
        timeout: seconds until the child process is ended.
        compute_capability: one of :data:`COMPUTE_CAPABILITIES`.
        directory: where the validator is installed; by default as :func:`validator_directory` says.

    Raises:
        UsageError: the file does not exist, or the compute capability is not one of TensorRT-RTX's.
    """
    path = Path(model_path)
    if not path.is_file():
        raise UsageError(f"no such model file: {path}", fix="give the path of an ONNX file")
    if not validator_status(directory).installed:
        reason = f"NVIDIA's validator is not installed: run {INSTALL_COMMAND}"
        return ValidatorVerdict("not-available", reason=reason, compute_capability=compute_capability)
    with ValidatorSession(directory, timeout=timeout, compute_capability=compute_capability) as session:
        return session.ask({"model": str(path.resolve())})


class ValidatorSession:
    """A child process that answers many requests; it is started again after a crash or a time-out.

    Args:
        directory: where the validator is installed; by default as :func:`validator_directory` says.
        timeout: seconds per request.
        compute_capability: one of :data:`COMPUTE_CAPABILITIES`.
        child: the script to run, which serves requests as :mod:`validator_child` does.

    Raises:
        EnvironmentLacksError: the validator is not installed or does not start.
        UsageError: TensorRT-RTX does not know the compute capability.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        timeout: float = 120.0,
        compute_capability: str = "8.6",
        child: Path = _CHILD,
    ) -> None:
        if compute_capability not in COMPUTE_CAPABILITIES:
            known = ", ".join(COMPUTE_CAPABILITIES)
            raise UsageError(f"compute capability {compute_capability} is unknown here", fix=f"use one of {known}")
        status = validator_status(directory)
        if not status.installed:
            raise EnvironmentLacksError("NVIDIA's validator is not installed", fix=f"run {INSTALL_COMMAND}")
        self.directory = Path(status.directory).resolve()
        self.timeout = timeout
        self.compute_capability = compute_capability
        self.version = VERSION
        self._child = child
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the session
        self._pending = b""

    def __enter__(self) -> ValidatorSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child process."""
        self._end()
        self._stderr.close()

    def ask(self, request: dict[str, Any]) -> ValidatorVerdict:
        """Send one request and return the verdict, whatever happens to the child process."""
        start = time.monotonic()
        reply = self.exchange(request)
        fields = interpret(reply)
        return ValidatorVerdict(
            **fields,
            compute_capability=self.compute_capability,
            seconds=round(time.monotonic() - start, 4),
        )

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the child's raw reply, or ``{"end": why}`` when it gave none."""
        deadline = time.monotonic() + self.timeout
        if self._process is None and (failure := self._start(deadline)):
            return failure
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._ended()
        return self._read(deadline)

    def _start(self, deadline: float) -> dict[str, Any] | None:
        # -I: neither the environment, the user's site nor the current directory takes part.
        command = [sys.executable, "-I", str(self._child), str(self.directory), self.compute_capability]
        self._stderr.seek(0)
        self._stderr.truncate()
        self._pending = b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, start_new_session=True
        )
        hello = self._read(deadline)
        if "version" not in hello:
            if hello["end"] == "timed-out":
                return hello
            raise EnvironmentLacksError(
                f"NVIDIA's validator in {self.directory} does not start: {hello['reason']}",
                fix=f"remove that directory and run {INSTALL_COMMAND}",
            )
        if hello["version"] != VERSION:
            self._end()
            raise EnvironmentLacksError(
                f"{self.directory} holds TensorRT-RTX {hello['version']}, which does not validate the safety scope",
                fix=f"point CSA_DEPLOY_VALIDATOR at TensorRT-RTX {VERSION}, or unset it and run {INSTALL_COMMAND}",
            )
        return None

    def _read(self, deadline: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        stream = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                self._end()
                return {"end": "timed-out", "reason": f"no answer within {self.timeout:g} s"}
            chunk = os.read(stream, 1 << 20)
            if not chunk:
                return self._ended()
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _ended(self) -> dict[str, Any]:
        """Describe a child that ended by itself."""
        assert self._process is not None
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._stderr.seek(0)
        tail = self._stderr.read().decode(errors="replace").strip().splitlines()
        self._end()
        return {"end": "crashed", "reason": f"{how}: {tail[-1]}" if tail else how}

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None


def interpret(reply: dict[str, Any]) -> dict[str, Any]:
    """Turn a child's raw reply into the fields of a :class:`ValidatorVerdict`."""
    if "end" in reply:
        return {"answer": reply["end"], "reason": reply["reason"]}
    log = tuple(message for _, message in reply["rows"])
    first = next((line for line in log), "no reason given").strip().splitlines()[0]
    if not reply["parsed"]:
        return {"answer": "not-parsed", "reason": first, "log": log}
    for line in log:
        if any(mark in line for mark in _SKIPPED):
            return {"answer": "skipped", "reason": line, "log": log}
    refused = _refused_layers(log)
    if refused:
        names = ", ".join(sorted({item.layer for item in refused}))
        return {"answer": "refused", "refused": refused, "reason": f"out of safety scope: {names}", "log": log}
    if reply["reached_build"]:
        return {"answer": "accepted", "log": log}
    return {"answer": "not-parsed", "reason": first, "log": log}


def _refused_layers(log: tuple[str, ...]) -> tuple[RefusedLayer, ...]:
    """Pair each refusal with the limits listed in the message before it."""
    refused = []
    reasons: tuple[str, ...] = ()
    for message in log:
        match = _REFUSED.search(message)
        if match:
            refused.append(RefusedLayer(match["layer"], match["name"], reasons))
        elif _NETWORK_REFUSED in message:
            refused.append(RefusedLayer("Network", "", reasons))
        else:
            reasons = tuple(line for line in message.splitlines() if "] [E] " in line)
            continue
        reasons = ()
    return tuple(refused)
