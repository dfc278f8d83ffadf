"""Builds an engine from an ONNX graph in a child process and collects the evidence."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from csa_deploy import errors
from csa_deploy.engine import log as build_log
from csa_deploy.engine.backend import Backend, version_pair
from csa_deploy.engine.backends import choose_backend
from csa_deploy.engine.monitor import THOUSANDTHS
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.protocol import BuildRequest, Event, FailedBuild, FinishedBuild, line_of
from csa_deploy.engine.result import BuildResult
from csa_deploy.engine.tensorrt_rtx import FIRST_DEFAULT
from csa_deploy.errors import BuildFailedError, CsaDeployError, OperationRejectedError, UsageError
from csa_deploy.processes import child_environment
from csa_deploy.records.build import RestrictedFlag
from csa_deploy.results import shallow

_logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_LARGE, _LARGE_BYTES = 3, 8 << 20  # from so many times the graph, and so many bytes more, a size is explained

# "... Cannot compile operation 'linear' for Turing (SM75): FP32 GEMM is not supported ..."
_GENERATION = re.compile(r"\(SM(?P<major>\d+)(?P<minor>\d)\)")


def build(model_path: Path, out: Path, plan: BuildPlan, progress: Progress | None = None) -> BuildResult:
    """Build an engine.

    Writes ``out`` (atomically), ``<out>.log`` and, where a CUDA device is, ``<out>.layers.json`` (the engine
    inspector's answer). An interrupt ends the child process and leaves neither engine nor temporary file.

    Args:
        model_path: static-shape ONNX graph; its tensor types decide the engine's precision.
        out: path of the engine; its folder is made when missing.
        plan: what to build; for trtexec see :mod:`csa_deploy.builders`.
        progress: called with (done, total) as the builder advances.

    Returns:
        The result with the parsed network, flags, sizes, seconds, and what was not done.

    Raises:
        UsageError: no such file, or a graph or plan that cannot be built as asked.
        EnvironmentLacksError: no builder on this machine (the message holds the install line), or a full disk.
        OperationRejectedError: the builder's safety-scope check refused a layer.
        BuildFailedError: the builder refused the graph, crashed or ran out of time.
    """
    if not model_path.is_file():
        raise UsageError(f"no such file: {model_path}", fix="check the path")
    backend = choose_backend(plan.backend)
    log = out.with_name(out.name + ".log")
    partial = out.with_name(f".{out.name}.partial")
    with _as_environment_error(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    try:
        finished, left_out = _run_without_impossible(backend, model_path, partial, log, plan, progress)
        with _as_environment_error(out):
            inspection = _save_inspection(finished.inspection, out)
            partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    _logger.info("built %s with %s %s", out.name, backend.title, finished.version)
    result = _result(backend, finished, model_path, out, log, inspection, plan, left_out)
    return replace(result, size_note=_why_large(result, model_path))


def _why_large(result: BuildResult, model: Path) -> str:
    """What an engine that is much larger than its graph holds; that of old GPUs is measured by a build without them."""
    weights = sum(file.stat().st_size for file in (model, *model.parent.glob(f"{model.name}.data")))
    if result.engine_bytes < _LARGE * weights + _LARGE_BYTES:
        return ""
    said = f"{_mib(result.engine_bytes)} for {_mib(weights)} of graph"
    old = [item for item in result.compute_capabilities if item[0].isdigit() and version_pair(item) < FIRST_DEFAULT]
    others = tuple(item for item in result.compute_capabilities if item not in old)
    if not old or not others:
        return said
    with tempfile.TemporaryDirectory() as folder:
        plan = replace(result.plan, backend="tensorrt-rtx", compute_capabilities=others)
        smaller = build(model, Path(folder) / result.engine.name, plan).engine_bytes
    return f"{said}: {_mib(result.engine_bytes - smaller)} are for compute capability {', '.join(old)}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


class _CapabilityError(BuildFailedError):
    """The network cannot be built for one compute capability; another may do."""

    def __init__(self, capability: str, why: str, message: str, fix: str) -> None:
        super().__init__(message, fix=fix)
        self.capability = capability
        self.why = why


def _run_without_impossible(
    backend: Backend, model: Path, partial: Path, log: Path, plan: BuildPlan, progress: Progress | None
) -> tuple[FinishedBuild, dict[str, str]]:
    """Run the child process, again without a compute capability that is impossible and that nobody asked for.

    Returns:
        What the process says, and the compute capabilities that were left out, each with the builder's reason.
    """
    left_out: dict[str, str] = {}
    while True:
        try:
            return _run(backend, model, partial, log, plan, progress, left_out), left_out
        except _CapabilityError as error:
            if plan.compute_capabilities or error.capability in left_out:
                raise
            left_out[error.capability] = error.why
            _logger.warning("%s: not built for compute capability %s: %s", model.name, error.capability, error.why)


def _run(
    backend: Backend,
    model: Path,
    partial: Path,
    log: Path,
    plan: BuildPlan,
    progress: Progress | None,
    left_out: Mapping[str, str],
) -> FinishedBuild:
    """Run the child process; returns what it says in the end, raises its error."""
    cache = plan.timing_cache.resolve() if plan.timing_cache else None
    asked = replace(plan, backend=backend.name, timing_cache=cache)
    request = BuildRequest(model.resolve(), partial.resolve(), tuple(left_out), asked)
    last = Event()
    expired = threading.Event()
    with _child(backend, log, request, plan.time_limit_s, expired) as (process, events):
        for line in events:
            last = Event.from_json(json.loads(line))
            if progress and last.progress:
                progress(*last.progress)
        status = process.wait()
    if last.result is not None:
        if progress:
            progress(THOUSANDTHS, THOUSANDTHS)
        return last.result
    if expired.is_set():
        raise BuildFailedError(
            f"{backend.title} did not build {model.name} within {plan.time_limit_s:g} s", fix="raise the time limit"
        )
    raise _failure(last.error, status, backend, model, log)


@contextmanager
def _child(
    backend: Backend, log: Path, request: BuildRequest, limit: float | None, expired: threading.Event
) -> Iterator[tuple[subprocess.Popen[str], TextIO]]:
    """The build process and its events; it does not outlive the block."""
    reading, writing = os.pipe()
    environment = child_environment(POLYGRAPHY_USE_TENSORRT_RTX="1" if backend.name == "tensorrt-rtx" else "0")
    with log.open("wb") as output, os.fdopen(reading) as events:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "csa_deploy.engine._child", str(writing)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                env=environment,
                text=True,
                start_new_session=True,  # ctrl-C reaches this process only, which then ends the child
            )
        finally:
            os.close(writing)

        def expire() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(limit or 0, expire)
        try:
            if limit is not None:
                timer.start()
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as stdin:  # its exit status says more than the pipe
                stdin.write(line_of(request))
            yield process, events
        finally:
            timer.cancel()
            process.kill()
            process.wait()


def _failure(error: FailedBuild | None, status: int, backend: Backend, model: Path, log: Path) -> CsaDeployError:
    """The exception that a failed child process means."""
    text = log.read_text(errors="replace")
    if error is not None and error.kind:
        kind: type[CsaDeployError] = getattr(errors, error.kind)
        return kind(error.message, fix=error.fix)
    refusals = build_log.scope_refusals(text)
    if refusals:
        return OperationRejectedError(
            f"{model.name}: {backend.title} refused it in restricted mode: {'; '.join(refusals)}",
            fix="run `csa-deploy check` on it: its findings say what to write instead",
        )
    cause = build_log.first_error(text)
    if "MODEL_DESERIALIZE_FAILED" in cause:
        return UsageError(f"{model.name} is no complete ONNX file: {cause}", fix="export the network again")
    if error is not None:
        why = cause or error.message
    elif status == -signal.SIGKILL:
        why = "its process was killed, perhaps for lack of memory"
    else:
        why = f"its process ended with {_status_name(status)}" + (f" after: {cause}" if cause else "")
    message, fix = f"{backend.title} did not build {model.name}: {why}", f"see {log} for the whole log"
    if generation := _GENERATION.search(why):
        capability = f"{generation['major']}.{generation['minor']}"
        fix = f"leave {capability} out with --compute-capability, or {fix}"
        return _CapabilityError(capability, why, message, fix)
    return BuildFailedError(message, fix=fix)


def _status_name(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _save_inspection(told: str | None, out: Path) -> Path | None:
    path = out.with_name(out.name + ".layers.json")
    path.unlink(missing_ok=True)  # never leave one that belongs to an earlier engine
    if told is None:
        return None
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(told)
    return partial.replace(path)


@contextmanager
def _as_environment_error(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.EnvironmentLacksError(
            f"cannot write {out}: {error.strerror}", fix="free or unlock the disk, or choose another folder"
        ) from error


def _result(
    backend: Backend,
    finished: FinishedBuild,
    model: Path,
    out: Path,
    log: Path,
    inspection: Path | None,
    plan: BuildPlan,
    left_out: Mapping[str, str],
) -> BuildResult:
    text = log.read_text(errors="replace")
    not_done = [f"not built for compute capability {capability}: {why}" for capability, why in left_out.items()]
    if inspection is None:
        not_done.append(f"layers of the engine after fusion: not measured: {finished.not_inspected}")
    if plan.timing_cache is not None and backend.name != "tensorrt":
        not_done.append(f"timing cache: not used: {backend.title} times no tactics when it builds")
    said = shallow(finished)
    del said["inspection"], said["not_inspected"]
    return BuildResult(
        **said,
        backend=backend.name,
        model=model.name,
        plan=plan,
        engine=out,
        log=log,
        inspection=inspection,
        warnings=build_log.warnings(text),
        restricted=RestrictedFlag.told(
            builder=f"{backend.title} {finished.version}",
            requested=plan.restricted,
            accepted="SAFETY_SCOPE" in finished.flags,
            acts=backend.restricted_acts(finished.version),
            evidence=backend.restricted_evidence,
            skipped=build_log.scope_skipped(text),
        ),
        not_done=tuple(not_done),
    )
