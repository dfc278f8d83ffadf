"""What the scopes that decide say of the graph that an engine is built from, or of what their own TensorRT takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy.records.build import JudgedScope
from csa_deploy.restricted.inspection import inspect, rejection
from csa_deploy.restricted.schema import Pack, load_pack, version_key
from csa_deploy.restricted.scopes import Platform, gates_of_whole, platform_of

if TYPE_CHECKING:
    from csa_deploy.builders import Builder
    from csa_deploy.context import Context

FIRST_TYPED = (10,)  # first TensorRT with strongly typed networks


def judge_as_built(context: Context, builder: Builder, precision: str, graph: Path) -> list[JudgedScope]:
    """Hold what is built against the scopes that decide; the check stage saw the exported graph.

    Each entry says which graph was judged, and under ``of`` why it is not the one that is built, where it is not.

    Raises:
        OperationRejectedError: a scope denies it.
        UsageError: a scope says nothing about the target.
    """
    strict = context.config.strict
    found = []
    for scope in gates_of_whole(context.config, _platform(context, builder)).scopes:
        judged, of = judged_graph(context, builder, precision, graph, load_pack(scope))
        result = inspect(judged, [scope], strict=strict, parsed=False).allowing(context.config.max_fallback)
        what = f"{judged.name} ({of})" if of else judged.name
        if rejected := rejection(result, strict, what, fixed=context.config.fix):
            raise rejected
        verdict = result.scopes[0]
        found.append(
            JudgedScope(
                scope=scope,
                graph=judged.name,
                of=of,
                verdict=verdict.verdict,
                said=verdict.combined.said,
                level=verdict.level,
                why_not_next=verdict.why_not_next,
                unknown_by=tuple(dict.fromkeys(f.rule for f in verdict.combined.findings if f.verdict == "unknown")),
            )
        )
    return found


def _platform(context: Context, builder: Builder) -> Platform | None:
    """The target as it was found; trtexec on this machine is no target, but a scope that is asked for must fit it."""
    stated, machine = platform_of(context.config), builder.machine
    if machine is None:
        return stated
    if stated is not None:
        return replace(stated, tensorrt=str(machine.version))
    return Platform("trtexec on this machine", tensorrt=str(machine.version)) if context.config.scope else None


def judged_graph(context: Context, builder: Builder, precision: str, graph: Path, pack: Pack) -> tuple[Path, str]:
    """The graph that a scope judges, and what it is where it is not the one that is built.

    TensorRT 8 takes no typed graph: FP16 is a flag of its builder on the FP32 graph, INT8 on DLA a flag and a
    calibration cache (DLA takes no Q/DQ). So where a builder of 10 or later stands in for it, and only there, the graph
    that 8 would build is judged.
    """
    builder_is_typed = builder.machine is None or builder.machine.version.strongly_typed
    scope_is_typed = version_key(pack.tensorrt) >= FIRST_TYPED
    if builder_is_typed == scope_is_typed:
        return graph, ""
    graphs = {label: context.path(path) for label, path in context.graphs().items()}
    flags = ""
    judged = graphs[precision]
    if not scope_is_typed and precision == "fp16":
        judged, flags = graphs["fp32"], " with the FP16 flag"
    elif not scope_is_typed and precision == "int8" and pack.kind == "dla":
        judged, flags = graphs["fp32"], " with the INT8 flag and a calibration cache"
    if judged == graph:
        return graph, ""
    return judged, f"not the graph that was built: TensorRT {pack.tensorrt} would build {judged.name}{flags}"
