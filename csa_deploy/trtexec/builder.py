"""Builds an engine with trtexec, on this machine or on a target: the target's own TensorRT, no Python there."""

from __future__ import annotations

import logging
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto

from csa_deploy.engine import log as build_log
from csa_deploy.engine.parts import place_parts
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.result import BuildResult
from csa_deploy.errors import BuildFailedError, UsageError
from csa_deploy.graph.load import external_files
from csa_deploy.levels import flag_acts
from csa_deploy.records.build import Part, RestrictedFlag, TensorInfo
from csa_deploy.trtexec.command import CACHE, ENGINE, LAYERS_FILE, MODEL, build_command
from csa_deploy.trtexec.graph_check import check_graph
from csa_deploy.trtexec.job import Finished, Job, run_job
from csa_deploy.trtexec.machine import Machine
from csa_deploy.trtexec.messages import explain, plain
from csa_deploy.trtexec.safe.build import build_on_host, gathered
from csa_deploy.trtexec.safe.commands import host_build_command
from csa_deploy.trtexec.safe.evidence import evidence_of
from csa_deploy.trtexec.safe.secrets import masked, masked_words
from csa_deploy.trtexec.settings import TrtexecOptions
from csa_deploy.workspace import sha256_of, write_atomic

_logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_LEAST_BYTES = 512
_WEIGHTS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8)
_CALIBRATION = "calibration.cache"
_BUILT = re.compile(r"Engine built in ([\d.]+) sec")
# What trtexec says of the device that it uses; a Jetson of JetPack 5 and DRIVE have no nvidia-smi to ask.
_DEVICE = {
    "gpu": re.compile(r"^\[I\] Selected Device: (.+?) *$", re.MULTILINE),
    "compute_capability": re.compile(r"^\[I\] Compute Capability: (\d+\.\d+)", re.MULTILINE),
}
_WITHOUT_RANGE = re.compile(r"Missing scale and zero-point for tensor (.+?), expect fall back")


def trtexec_build(
    machine: Machine,
    model_path: Path,
    out: Path,
    plan: BuildPlan,
    options: TrtexecOptions | None = None,
    progress: Progress | None = None,
    *,
    attempt: int = 0,
) -> BuildResult:
    """Build with a machine's trtexec.

    Writes ``out``, ``<out>.log`` and, where trtexec gives it, ``<out>.layers.json``.

    Args:
        model_path: static-shape ONNX graph.
        out: path of the engine here; its folder is made when missing.
        options: what only trtexec can be asked for.
        progress: called with (done, total) as the graph is sent.
        attempt: number of this build among several of the same.

    Raises:
        UsageError: a graph or plan that cannot be built as asked by this version.
        EnvironmentLacksError: the target lacks something, cannot be reached, or the connection was lost.
        OperationRejectedError: refused in restricted mode.
        BuildFailedError: trtexec refused or failed; its known messages are translated.
    """
    options = options or TrtexecOptions()
    inputs, outputs = check_graph(model_path, plan, options, machine.version)
    job = _job(machine, model_path, plan, options, attempt)
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_name(out.name + ".log")
    with tempfile.TemporaryDirectory(prefix=".trtexec-", dir=out.parent) as folder:
        finished = _finished(machine, job, Path(folder), plan, progress)
        write_atomic(log, finished.log)
        if finished.status:
            raise explain(finished.log, finished.status, f"building {model_path.name} on {machine.name}", str(log))
        if ENGINE not in finished.files:
            raise BuildFailedError(
                f"building {model_path.name} on {machine.name}: trtexec says that it passed and wrote no engine",
                fix=f"see {log}",
            )
        if why := implausible(finished.files[ENGINE], model_path, stripped=options.strip_weights):
            raise BuildFailedError(
                f"building {model_path.name} on {machine.name}: trtexec says that it passed, and {why}",
                fix=f"see {log}; try that trtexec by hand",
            )
        if plan.timing_cache is not None and CACHE in finished.files:
            finished.files[CACHE].replace(plan.timing_cache)
        inspection = _keep_layers(finished, out)
        parts = gathered(machine.host, finished.files, Path(folder) / "parts") if machine.host else ()
        finished.files[ENGINE].replace(out)
        if machine.host:
            place_parts(Path(folder) / "parts", out)
    _logger.info("built %s with trtexec of TensorRT %s on %s", out.name, machine.version, machine.name)
    result = _result(machine, job, finished, model_path, out, log, inspection, plan, options, inputs, outputs)
    return replace(result, parts=parts, not_done=(*result.not_done, *_not_done_on_host(machine, plan, parts)))


def _finished(machine: Machine, job: Job, folder: Path, plan: BuildPlan, progress: Progress | None) -> Finished:
    if machine.host is not None:
        return build_on_host(machine, job, folder, plan, progress)
    finished = run_job(machine.transport, machine.workdir, job, folder, progress=progress, limit_s=plan.time_limit_s)
    return replace(finished, log=masked(finished.log))


def implausible(engine: Path, model: Path, *, stripped: bool) -> str:
    """Why a file is no engine of a graph, by what is sure of every format: empty where nothing speaks against it.

    Every plan and every DLA loadable has a header and tensor descriptions, and holds its weights unless they were
    stripped: no format stores one in less than a bit.
    """
    size = engine.stat().st_size
    if size < _LEAST_BYTES:
        return f"its engine is a file of {size} bytes"
    tensors = onnx.load(model, load_external_data=False).graph.initializer
    weights = sum(math.prod(t.dims) for t in tensors if t.data_type in _WEIGHTS)
    if not stripped and size < weights / 8:
        return f"its engine of {size} bytes cannot hold {weights} weights"
    return ""


def planned_job(machine: Machine, model_path: Path, plan: BuildPlan, options: TrtexecOptions) -> Job:
    """What a build would run and copy, without running it."""
    check_graph(model_path, plan, options, machine.version)
    return _job(machine, model_path, plan, options, 0)


def _job(machine: Machine, model: Path, plan: BuildPlan, options: TrtexecOptions, attempt: int) -> Job:
    files = {MODEL: model, **_weights(model)}
    cache = options.calibration_cache
    if cache is not None:
        if not cache.is_file():
            raise UsageError(f"no such calibration cache: {cache}", fix="check the path")
        files[_CALIBRATION] = cache
    if plan.timing_cache is not None and plan.timing_cache.is_file():
        files[CACHE] = plan.timing_cache
    if machine.host is not None:
        return Job([machine.host.trtexec, *host_build_command(plan, options, machine.host, MODEL)], files)
    arguments = build_command(
        plan, options, machine.version, MODEL, _CALIBRATION if cache else None, listed=machine.listed
    )
    outputs = [ENGINE, *([LAYERS_FILE] if options.inspectable else []), *([CACHE] if plan.timing_cache else [])]
    return Job([machine.trtexec, *arguments], files, outputs, machine.environment, attempt)


def _weights(model: Path) -> dict[str, Path]:
    """Files that hold the weights of a large graph; they lie beside it on the target as they do here."""
    found = external_files(model)
    for name in found:
        if "/" in name or name in (MODEL, _CALIBRATION, CACHE):
            raise UsageError(
                f"{model.name}: its external data {name!r} cannot be sent under that name",
                fix="save it again with one data file beside it (onnx.save_model(..., save_as_external_data=True))",
            )
    return found


def _keep_layers(finished: Finished, out: Path) -> Path | None:
    path = out.with_name(out.name + ".layers.json")
    path.unlink(missing_ok=True)  # never leave one that belongs to an earlier engine
    return finished.files[LAYERS_FILE].replace(path) if LAYERS_FILE in finished.files else None


def _result(
    machine: Machine,
    job: Job,
    finished: Finished,
    model: Path,
    out: Path,
    log: Path,
    inspection: Path | None,
    plan: BuildPlan,
    options: TrtexecOptions,
    inputs: tuple[TensorInfo, ...],
    outputs: tuple[TensorInfo, ...],
) -> BuildResult:
    text = plain(finished.log)
    words = masked_words(job.argv[1:])
    built = _BUILT.search(text)
    told = {key: match[1] for key, pattern in _DEVICE.items() if (match := pattern.search(text))}
    stated = {**machine.to_json(), **told}
    capability = stated.get("compute_capability")
    version = machine.version
    return BuildResult(
        backend="trtexec",
        version=str(version),
        model=model.name,
        plan=replace(plan, backend="trtexec"),
        engine=out,
        engine_bytes=out.stat().st_size,
        engine_sha256=sha256_of(out),
        log=log,
        inspection=inspection,
        compute_capabilities=(capability,) if capability else (),
        flags=tuple(word for word in words if not word.startswith(("--onnx", "--saveEngine", "--export"))),
        inputs=inputs,
        outputs=outputs,
        layers=(),
        warnings=build_log.warnings(text),
        restricted=_evidence(machine, job, plan, options, text),
        parse_seconds=None,
        build_seconds=float(built[1]) if built else None,
        peak_memory_bytes=None,
        not_done=_not_done(machine, plan, options, inspection, text),
        command=("trtexec", *words),
        machine=stated,
    )


def _evidence(machine: Machine, job: Job, plan: BuildPlan, options: TrtexecOptions, log: str) -> RestrictedFlag:
    """What the build shows: a safety engine by itself, another by the flag where it acts."""
    safe = options.safe and not options.loadable
    on_drive = machine.platform.startswith("drive") or "drive_os" in machine.facts.values
    host = machine.host
    listed = host.listed if host else machine.listed
    level, beyond = "restricted-build", ""
    if safe:
        level, beyond = evidence_of(log, machine.version, listed, on_host=host is not None)
    return RestrictedFlag.told(
        builder=f"trtexec of TensorRT {machine.version}",
        requested=plan.restricted,
        accepted=safe or "--restricted" in job.argv,
        acts=safe or flag_acts(machine.version.pair, on_drive=on_drive),
        evidence=level,
        skipped=build_log.scope_skipped(log),
        beyond=beyond,
    )


def _not_done_on_host(machine: Machine, plan: BuildPlan, parts: Sequence[Part]) -> Iterator[str]:
    if machine.host is None:
        return
    if not any(part.role == "checker-blob" for part in parts):
        yield "kernel text: not kept: trtexec produced none"
    if plan.timing_cache is not None and machine.host.cpu_only:
        yield "timing cache: not used: trtexec takes none with --cpuOnly"


def _not_done(
    machine: Machine, plan: BuildPlan, options: TrtexecOptions, inspection: Path | None, log: str
) -> tuple[str, ...]:
    found = ["the network as parsed: not recorded: trtexec does not tell it", "memory of the build: not measured there"]
    if inspection is None:
        why = "trtexec wrote none" if options.inspectable else "trtexec tells none of a safe engine or DLA loadable"
        found.append(f"layers of the engine after fusion: not measured: {why}")
    if without := {match[1] for match in _WITHOUT_RANGE.finditer(log)}:
        first = ", ".join(sorted(without)[:3])
        found.append(f"INT8 of {len(without)} tensors: not done: the calibration cache has no range for {first}")
    if options.sparsity == "force":
        found.append("weights of the graph: not kept: sparsity=force overwrites them with a sparse pattern")
    if options.weakly_typed(machine.version) and plan.precision != "fp32":
        said = "; the layers of the engine say what was chosen" if inspection else ""
        found.append(
            f"types of the graph: not binding: TensorRT {machine.version} builds this weakly typed and may run any "
            f"layer in FP16{said}"
        )
    return tuple(found)
