"""The build stage: one engine per precision, from the graph of that precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.engine.backend import choose_backend
from csa_deploy.engine.build import build
from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import BuildFailedError
from csa_deploy.pipeline import versions
from csa_deploy.restricted.gate import gate_scopes, inspect, rejection
from csa_deploy.restricted.schema import load_pack, version_key
from csa_deploy.workspace import StageOutput, dump_json, write_atomic

if TYPE_CHECKING:
    from csa_deploy.pipeline import Context

# What differs from run to run; the rest of a build's result is the same for the same graph, plan and version.
FIRST_TYPED = (10,)  # first TensorRT with strongly typed networks

_MEASURED = ("parse_seconds", "build_seconds", "peak_memory_bytes")


def key_parts(context: Context) -> dict[str, Any]:
    """The builder that would be used, and the device that TensorRT builds for."""
    devices = [device.compute_capability for device in cuda_state().devices]
    backend = choose_backend(context.config.backend)
    return {"backend": backend.title, "version": versions(["tensorrt", "tensorrt-rtx"]), "devices": devices}


def run(context: Context) -> StageOutput:
    """Build; see :func:`csa_deploy.engine.build.build`."""
    config = context.config
    engines: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    artifacts: dict[str, Path] = {}
    unhashed: dict[str, Path] = {}
    total = 100 * len(config.precision)
    for index, precision in enumerate(config.precision):

        def progress(done: int, of: int, base: int = 100 * index) -> None:
            context.progress(base + (100 * done) // max(of, 1), total)

        plan = BuildPlan(
            backend=config.backend,
            precision=precision,
            restricted=config.restricted,
            compute_capabilities=config.compute_capability,
        )
        graph = context.path(context.graphs()[precision])
        scopes = _gate(context, graph) if config.restricted else []
        name = f"{context.name}.{precision}.engine"
        try:
            result = build(graph, context.scratch / name, plan, progress)
        except BuildFailedError as error:
            raise _with_kept_log(error, context, f"{name}.log") from None
        reproducible = result.backend == "tensorrt-rtx"  # TensorRT times tactics, so its engines differ between builds
        data = result.to_json()
        measured[precision] = {key: data.pop(key) for key in _MEASURED}
        if not reproducible:
            measured[precision].update(engine_sha256=data.pop("engine_sha256"), engine_bytes=data.pop("engine_bytes"))
        layers = context.scratch / f"{name}.network.json"
        layers.write_text(dump_json(data.pop("layers")))
        engines[precision] = {
            **data,
            "scopes": scopes,
            "path": f"engines/{name}",
            "log": f"engines/{result.log.name}",
            "network": f"engines/{layers.name}",
            "engine_mib": round(result.engine_bytes / 2**20, 1),
        }
        (artifacts if reproducible else unhashed)[f"engines/{name}"] = result.engine
        artifacts[f"engines/{layers.name}"] = layers
        unhashed[f"engines/{result.log.name}"] = result.log
        if result.inspection:
            unhashed[f"engines/{result.inspection.name}"] = result.inspection
    record = {"summary": _summary(engines), "engines": engines}
    return StageOutput(record, measured={"engines": measured}, artifacts=artifacts, unhashed=unhashed)


def _with_kept_log(error: BuildFailedError, context: Context, log: str) -> BuildFailedError:
    """The scratch directory goes, the log that the message names stays."""
    scratch, kept = context.scratch / log, context.path("engines") / log
    if scratch.is_file():
        write_atomic(kept, scratch.read_bytes())
    return BuildFailedError(error.message, fix=(error.fix or "").replace(str(scratch), str(kept)))


def _gate(context: Context, graph: Path) -> list[dict[str, str]]:
    """Hold the very graph that is built against the scopes; the check stage saw the exported one.

    TensorRT 8 takes no typed graph: there, FP16 is a flag of the builder on the FP32 graph, so that one is held
    against the scopes of its versions.

    Raises:
        OperationRejectedError: a scope denies it.
    """
    strict = context.config.strict
    weakly_typed = context.path(context.workspace.record("optimize")["graph"])
    found = []
    for scope in gate_scopes(context.config.scope):
        judged = graph if version_key(load_pack(scope).tensorrt) >= FIRST_TYPED else weakly_typed
        result = inspect(judged, [scope], strict=strict)
        if rejected := rejection(result, strict, judged.name):
            raise rejected
        verdict = result.scopes[0]
        found.append(
            {
                "scope": scope,
                "graph": judged.name,
                "verdict": verdict.verdict,
                "level": verdict.level,
                "why_not_next": verdict.why_not_next,
            }
        )
    return found


def _summary(engines: dict[str, Any]) -> str:
    parts = [f"{precision} {engine['engine_mib']} MiB" for precision, engine in engines.items()]
    first = next(iter(engines.values()))
    capabilities = ", ".join(first["compute_capabilities"])
    return f"{first['backend']} {first['version']} for compute capability {capabilities}: {', '.join(parts)}"
