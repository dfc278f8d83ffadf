"""The build stage: one engine per precision, from the graph of that precision, each with its passport."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.builders import Builder, builder_key, check_settings, opened_builder, stated_version
from csa_deploy.engine.backends import choose_backend
from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.obtained import obtained_precision
from csa_deploy.engine.parts import parts_folder
from csa_deploy.engine.passport import make_passport, passport_of
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.repeat import Spread, require_identical, spread_of
from csa_deploy.engine.result import BuildResult
from csa_deploy.errors import BuildFailedError, UsageError
from csa_deploy.export.opsets import exported_opset
from csa_deploy.graph.load import load_model
from csa_deploy.installing import versions
from csa_deploy.options import BY_VERB, INT8, flag_words
from csa_deploy.profile.trial import run_each
from csa_deploy.records.build import BuildRecord, EngineRecord, JudgedScope, RestrictedFlag
from csa_deploy.records.obtained import ObtainedPrecision
from csa_deploy.records.passport import Passport
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.restricted.as_built import judge_as_built
from csa_deploy.restricted.scopes import gates_of
from csa_deploy.results import jsonable
from csa_deploy.trtexec.graph_check import require_opset
from csa_deploy.workspace import StageOutput, dump_json, write_atomic

if TYPE_CHECKING:
    from csa_deploy.context import Context
    from csa_deploy.trtexec.versions import Version

_SHOWN = 8  # layers in a message

# What differs from run to run; the rest of a build's result is the same for the same graph, plan and version.
_MEASURED = ("parse_seconds", "build_seconds", "peak_memory_bytes")
_OF_FILE = ("engine_sha256", "engine_bytes")
_PACKAGES = ("tensorrt", "tensorrt-rtx", "polygraphy", "onnx", "onnxruntime", "torch")


def preflight(context: Context) -> None:
    """Refuse settings that do not go together, a builder or target that is not there, and a graph it could not read."""
    config = context.config
    check_settings(config)
    gates_of(config)
    if unbuilt := [name for name in config.min_share if name not in config.precision]:
        raise UsageError(
            f"--min-share asks for a share of {' and '.join(unbuilt)}, which is not built",
            fix=f"build it with --precision {unbuilt[0]}, or leave its share out",
        )
    for precision in config.precision:
        plan_for(context, precision)
    _require_opset(context, stated_version(config))  # before a target is reached
    with opened_builder(config) as builder:
        if builder.machine is None:
            choose_backend(config.backend)
        else:
            _require_opset(context, builder.machine.version)


def _require_opset(context: Context, version: Version | None) -> None:
    if version is not None and context.source.kind != "onnx":
        require_opset(exported_opset(context.config), context.name, version)


def key_parts(context: Context) -> dict[str, Any]:
    """The builder that would be used, and what it builds for."""
    return builder_key(context.config)


@dataclass
class _Made:
    """What the stage hands over, as it grows."""

    engines: dict[str, EngineRecord] = field(default_factory=dict)
    obtained: dict[str, ObtainedPrecision] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    unhashed: dict[str, Path] = field(default_factory=dict)


def run(context: Context) -> StageOutput[BuildRecord]:
    """Build; see :func:`csa_deploy.engine.build.build`."""
    made = _Made()
    with opened_builder(context.config) as builder:
        for precision in context.config.precision:
            _build(context, builder, precision, made)
    record = BuildRecord(summary=_summary(made.engines), engines=made.engines)
    gates = [
        share_failure(obtained, context.config.min_share.get(asked), context.name)
        for asked, obtained in made.obtained.items()
    ]
    failure = next((gate for gate in gates if gate), None)
    measured = {"engines": made.measured}
    return StageOutput(record, measured, made.artifacts, made.unhashed, failure)


def share_failure(obtained: ObtainedPrecision, least: float | None, name: str) -> BuildFailedError | None:
    """What is wrong where too little obtained the precision; by default where nothing did.

    What nothing tells does not count as obtained where a share was asked for.
    """
    share = obtained.share
    if not obtained.missed if least is None else share is not None and share >= least:
        return None
    said = f"{name}: {obtained.statement}"
    if least is not None:
        said += f", --min-share asks for {100 * least:g} %"
    stayed = [f"{layer.name} ({layer.type})" for layer in obtained.stayed]
    listed = ", ".join(stayed[:_SHOWN]) + (f" and {len(stayed) - _SHOWN} more" if len(stayed) > _SHOWN else "")
    return BuildFailedError(
        f"{said}; wider: {listed}" if stayed else said,
        fix="see why with `csa-deploy quantize --why GRAPH.onnx`, or ask for the precision that it is with --precision"
        if obtained.asked == "int8"
        else "convert these layers too (--keep-fp32 keeps layers), or ask for less with --min-share",
    )


def plan_for(context: Context, precision: Any) -> BuildPlan:
    """The plan of one engine."""
    config = context.config
    return BuildPlan(
        backend=config.backend,
        precision=precision,
        restricted=config.restricted,
        compute_capabilities=config.compute_capability,
        timing_cache=Path(config.timing_cache) if config.timing_cache else None,
    )


def graph_for(context: Context, builder: Builder, precision: str) -> Path:
    """The graph that is built.

    That is the FP32 graph where TensorRT makes the precision itself: FP16 in version 8 and on DLA up to 10.7, INT8 of
    a calibration cache.
    """
    machine = builder.machine
    makes_fp16 = precision == "fp16" and machine is not None and builder.options.weakly_typed(machine.version)
    makes_int8 = precision == "int8" and builder.options.calibration_cache is not None
    return context.path(context.graphs()["fp32" if makes_fp16 or makes_int8 else precision])


def scopes_for(context: Context, builder: Builder, precision: str) -> list[JudgedScope]:
    """What the scopes that decide say of an engine; none where they were not asked. Raises where one denies it."""
    if not context.config.restricted:
        return []
    return judge_as_built(context, builder, precision, graph_for(context, builder, precision))


def _build(context: Context, builder: Builder, precision: str, made: _Made) -> None:
    config, name = context.config, f"{context.name}.{precision}.engine"
    graph, plan = graph_for(context, builder, precision), plan_for(context, precision)
    scopes = scopes_for(context, builder, precision)
    builds = max(config.builds, 2 if config.reproducible else 1)
    base, total = 100 * len(made.engines), 100 * len(config.precision)
    results = []
    for attempt in range(builds):

        def progress(done: int, of: int, attempt: int = attempt) -> None:
            context.progress(base + (100 * attempt + (100 * done) // max(of, 1)) // builds, total)

        out = context.scratch / (f"{attempt}.{name}" if attempt else name)
        try:
            results.append(builder.build(graph, out, plan, progress, attempt))
        except BuildFailedError as error:
            raise _with_kept_log(error, context, f"{out.name}.log") from None
    spread = None
    if builds > 1:
        spread = spread_of(results, *run_each(builder, results, config))
        if config.reproducible:
            require_identical(spread, f"{context.name} {precision}")
    _keep(context, builder, graph, results[0], scopes, spread, made)


def _keep(
    context: Context,
    builder: Builder,
    graph: Path,
    result: BuildResult,
    scopes: list[JudgedScope],
    spread: Spread | None,
    made: _Made,
) -> None:
    """Put an engine and what belongs to it among the artifacts."""
    precision, name = result.plan.precision, result.engine.name
    reproducible = result.backend == "tensorrt-rtx"  # TensorRT times tactics, so its engines differ between builds
    scopes = [_with_evidence(scope, result.restricted) for scope in scopes]
    obtained = obtained_precision(result, load_model(graph, full_check=False))
    result = replace(result, builder_option=context.config.builder_option)
    measured = {key: getattr(result, key) for key in (*_MEASURED, *(() if reproducible else _OF_FILE))}
    if spread is not None:
        measured["spread"] = spread.to_json()
    layers = context.scratch / f"{name}.network.json"
    layers.write_text(dump_json(jsonable(result.layers)))
    passport = passport_of(result.engine)
    passport.write_text(dump_json(_passport(context, builder, graph, result, scopes).to_json()))
    made.measured[precision] = measured
    made.obtained[precision] = obtained
    made.engines[precision] = result.stated(tuple(scopes), obtained, reproducible=reproducible)
    stable = made.artifacts if reproducible else made.unhashed
    stable[f"engines/{name}"] = result.engine
    stable[f"engines/{passport.name}"] = passport
    made.artifacts[f"engines/{layers.name}"] = layers
    made.unhashed[f"engines/{result.log.name}"] = result.log
    parts = parts_folder(result.engine)
    made.unhashed |= {f"engines/{parts.name}/{part.file}": parts / part.file for part in result.parts}
    if result.inspection:
        made.unhashed[f"engines/{result.inspection.name}"] = result.inspection


def _with_evidence(scope: JudgedScope, flag: RestrictedFlag) -> JudgedScope:
    """A scope's verdict on the graph that was built, with what a safety build adds to it; the verdict stays."""
    if scope.of or not flag.is_safe or flag.level is None:
        return scope
    return replace(scope, level=flag.level, why_not_next=flag.why_not_next)


def _passport(
    context: Context, builder: Builder, graph: Path, result: BuildResult, scopes: list[JudgedScope]
) -> Passport:
    here = cuda_state()
    device = result.machine if builder.machine else {**here.to_json(), "power_mode": "not read here"}
    return make_passport(
        result,
        graph,
        rebuild=rebuild_command(context, result.plan.precision),
        packages=versions(_PACKAGES),
        device=device,
        calibration=_calibration(context) if result.plan.precision == "int8" else None,
        scopes=scopes,
        postprocessing=context.decoding,
    )


def _calibration(context: Context) -> dict[str, Any] | None:
    """What the graph was calibrated on, with the hashes of its files."""
    stated = context.workspace.read(PrecisionRecord).calibration
    entry = context.workspace.stages.get("precision")
    if stated is None or entry is None:
        return None
    hashes = {path: item.sha256 for path, item in entry.made.items()}
    return {**jsonable(stated), "sha256": hashes}


# Said in another way, or with no part in what one engine becomes.
_NOT_REBUILT = ("precision", "fp32", "fp16", "int8", "safe", "builds")
_OF_INT8 = (*INT8, "budget", "data", "task", "metric")  # calibration, and the search for layers that stay floating


def rebuild_command(context: Context, precision: str) -> list[str]:
    """The csa-deploy command that builds one engine again: `build` with its settings that are not at their defaults.

    What steers INT8 alone is left out for the other precisions.
    """
    config = context.config
    words = ["csa-deploy", "build", config.network]
    defaults = type(config)(network=config.network)
    for key in BY_VERB["build"]:
        if key in _NOT_REBUILT or (key in _OF_INT8 and precision != "int8"):
            continue
        value = getattr(config, key)
        if value == getattr(defaults, key):
            continue
        words += flag_words(key, {"int8": value.get("int8", {})} if key == "budget" else value)
    return [*words, "--precision", precision]


def _with_kept_log(error: BuildFailedError, context: Context, log: str) -> BuildFailedError:
    """The scratch directory goes, the log that the message names stays."""
    scratch, kept = context.scratch / log, context.path("engines") / log
    if scratch.is_file():
        write_atomic(kept, scratch.read_bytes())
    return BuildFailedError(error.message, fix=(error.fix or "").replace(str(scratch), str(kept)))


def _summary(engines: dict[str, EngineRecord]) -> str:
    """``tensorrt-rtx 1.7 for compute capability 8.0, 8.6: fp32 2.6 MiB, fp16 2.2 MiB``; apart where they differ."""
    first = next(iter(engines.values()))
    alike: dict[str, list[str]] = {}
    for precision, engine in engines.items():
        capabilities = ", ".join(engine.compute_capabilities)
        made_for = f"compute capability {capabilities}" if capabilities else "the target's own GPU"
        why = f" ({engine.size_note})" if engine.size_note else ""
        alike.setdefault(made_for, []).append(f"{precision} {engine.engine_mib} MiB{why}")
    parts = [f"for {made_for}: {', '.join(sizes)}" for made_for, sizes in alike.items()]
    return f"{first.backend} {first.version} {'; '.join(parts)}"
