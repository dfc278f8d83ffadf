"""The safety flow of the stand-in for trtexec: libraries, remote tuning over real ssh, companion files, checkers.

The program that NVIDIA runs on the target is not public, and neither are its messages; here it is ``tuner``, a script
that a test puts into ``remote_exec_path``.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from standin_parser import FailedError, Version

FIRST_PAIR = (11, 3)
COMPANION = "generated_host_code.so"  # its real name is not documented
_TEXT = re.compile(r"ssh://([^@:]+)(:PROMPT)?@([^:?]+)(?::(\d+))?\?(.*)")


def log(severity: str, text: str) -> None:
    print(f"[11/23/2026-04:00:00] [{severity}] {text}", flush=True)


def require_runtime(options: dict[str, str]) -> None:
    """What trtexec opens at its start; STANDIN_LIBRARIES turns it on, as most machines have none of NVIDIA's."""
    if "--safe" not in options or not os.environ.get("STANDIN_LIBRARIES"):
        return
    try:
        ctypes.CDLL("libnvinfer_safe.so", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        raise FailedError("Safety is not supported because safety runtime library is unavailable.") from None


def remote(options: dict[str, str]) -> str:
    return options.get("--remoteAutoTuningConfig") or options.get("--remoteConfig") or ""


def tune(options: dict[str, str], mode: str) -> None:
    """Time kernels on the target: a real ssh to it, and its tuning program."""
    text = remote(options)
    if not text:
        return
    match = _TEXT.fullmatch(text)
    if not match:
        log("E", "Failed to set remote auto tuning config")
        raise FailedError("Network And Config setup failed")
    user, asks, host, port, query = match.groups()
    if asks:
        with Path("/dev/tty").open("r+b", buffering=0) as terminal:
            terminal.write(b"password: ")
            log("I", f"a password of {len(terminal.readline().strip())} characters")
    paths = dict(item.split("=", 1) for item in query.split("&"))
    config = os.environ.get("STANDIN_SSH_CONFIG")
    words = ["ssh", *(["-F", config] if config else []), "-o", "BatchMode=yes", "-o", "ServerAliveInterval=1"]
    words += ["-l", user, "-p", port or "22", "--", host, f"{paths['remote_exec_path']}/tuner {mode}"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"[TRT] remote tuning: ssh ended with {done.returncode}: {done.stderr.strip()}")
    log("I", f"[TRT] timed there: {done.stdout.strip()}")


def companion_for(engine: bytes) -> bytes:
    """The companion library of an engine; it knows its engine, as the two are built together."""
    return b"\x7fELF stand-in " + hashlib.sha256(engine).hexdigest().encode() + b"\n"


def require_companion(engine: bytes, beside: Path, version: Version, named: Path | None = None) -> None:
    """Loading an engine from 11.3: its companion lies beside it, and is its own."""
    if version < FIRST_PAIR:
        return
    found = [beside.parent / COMPANION, beside.with_name(f"{beside.name}.so")]
    path = named or next((one for one in found if one.is_file()), found[0])
    if not path.is_file():
        raise FailedError(f"SAFE API Error: [createTRTGraph]: INVALID_ARGUMENT (no companion {path})")
    if path.read_bytes() != companion_for(engine):
        raise FailedError("SAFE API Error: [createTRTGraph]: UNSUPPORTED_STATE (companion of another engine)")


def after_build(options: dict[str, str], engine: bytes, version: Version) -> None:
    """Checker and files beside a safe engine."""
    if "--safe" not in options:
        return
    if "--consistency" in options:
        log("I", "Start consistency checking.")
        if version[:2] == (10, 15):
            raise FailedError("Cannot perform consistency check because the checker is not loaded.")
        if os.environ.get("STANDIN_INCONSISTENT"):
            raise FailedError("Consistency validation failed.")
        log("I", "Consistency validation passed.")
    if "--saveEngine" not in options:
        return
    path = Path(options["--saveEngine"])
    if {"--dumpKernelText", "--dumpCheckerBlob"} & options.keys():
        if os.environ.get("STANDIN_NO_KERNELS"):
            log("E", "Failed to create kernel CPP.") if version < FIRST_PAIR else None
            log("W", f"Kernel text was not produced; skipping dump to {path}.txt")
        else:
            Path(f"{path}.txt").write_text("// kernels of the stand-in\n")
    if version >= FIRST_PAIR:
        named = options.get("--saveEngineSo")
        (Path(named) if named else path.parent / COMPANION).write_bytes(companion_for(engine))


def reference(options: dict[str, str]) -> None:
    """The reference checker, which runs kernels on the target."""
    blob = options.get("--loadCheckerBlob")
    if blob and "kernels of the stand-in" not in Path(blob).read_text():
        raise FailedError("the checker blob is not of this engine")
    tune(options, "reference")
    if os.environ.get("STANDIN_NO_REFERENCE"):
        raise FailedError("kernel 3 differs from its reference")
    log("I", "reference validation passed")
    sys.stdout.flush()
