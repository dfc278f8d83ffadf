"""How trtexec builds each part: from which graph, with which types and memory formats at its ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import CsaDeployError
from csa_deploy.graph.interface import interface_of
from csa_deploy.graph.load import load_model
from csa_deploy.precision.trt_cache import read_cache
from csa_deploy.records.check import Fallback
from csa_deploy.records.split import CutTensor, DlaPlacement, PartBuild, SplitFinding, SplitPart
from csa_deploy.restricted.check import check
from csa_deploy.restricted.fallback import within, words
from csa_deploy.spec import TensorSpec
from csa_deploy.split.boundaries import DLA_LINEAR, LINEAR, EnginePart, crossings, kind_of, mismatches, wide
from csa_deploy.trtexec.command import ENGINE, LAYERS_FILE, build_command
from csa_deploy.trtexec.graph_check import check_graph
from csa_deploy.trtexec.settings import TrtexecOptions
from csa_deploy.trtexec.versions import Version

_SHOWN = 3


@dataclass(frozen=True)
class Builds:
    """How the parts of a network are built.

    Attributes:
        findings: what does not fit, or cannot be built.
    """

    crossing: tuple[CutTensor, ...]
    builds: tuple[PartBuild, ...]
    findings: tuple[SplitFinding, ...]


def plan_builds(
    parts: Sequence[SplitPart], root: Path, version: Version, options: TrtexecOptions | None = None
) -> Builds:
    """Commands for a TensorRT version, with formats that fit at the boundaries, as far as they can.

    Args:
        parts: the encoder first.
        root: folder that their paths are in.
        options: asked for beside those of the parts.
    """
    given = options or TrtexecOptions()
    engines = {part.name: _engine(part, root, version) for part in parts}
    tensors = crossings(list(engines.values()))
    findings = [*mismatches(tensors), *wide(engines, tensors)]
    builds = []
    for part in parts:
        engine = engines[part.name]
        built = part.floating if engine.floating else part.graph
        graph = root / built
        formats = _formats(engine, graph, tensors, version)
        try:
            asked = _options(part, root, given, version, formats)
            plan = BuildPlan(backend="trtexec", precision=part.setting.precision)  # type: ignore[arg-type]
            check_graph(graph, plan, asked, version)
            cache = part.cache if asked.calibration_cache else None
            command = tuple(_named(word, part, root) for word in build_command(plan, asked, version, built, cache))
        except CsaDeployError as error:
            findings.append(SplitFinding("not built", part.name, error.message, error.fix or ""))
            command = ()
        builds.append(PartBuild(part.name, built, command))
    return Builds(tensors, tuple(builds), tuple(findings))


def _weak(part: SplitPart, version: Version) -> bool:
    """Whether TensorRT makes the precision of a part itself, of its FP32 graph."""
    weak = TrtexecOptions(dla_core=part.setting.dla_core).weakly_typed(version)
    return weak and (part.setting.precision == "fp16" or part.setting.dla_core is not None)


def _engine(part: SplitPart, root: Path, version: Version) -> EnginePart:
    graph, weak = load_model(root / part.graph, full_check=False), _weak(part, version)
    scales = read_cache(root / part.cache)[1] if weak and part.cache else {}
    return EnginePart(part.name, part.setting, graph, weak, scales)


def _options(
    part: SplitPart, root: Path, given: TrtexecOptions, version: Version, formats: tuple[str | None, str | None]
) -> TrtexecOptions:
    on_dla = part.setting.dla_core is not None
    cached = _weak(part, version) and part.setting.precision == "int8" and part.cache
    return replace(
        given,
        dla_core=part.setting.dla_core,
        gpu_fallback=given.gpu_fallback and on_dla,
        dla_standalone=given.dla_standalone and on_dla,
        input_formats=formats[0],
        output_formats=formats[1],
        calibration_cache=root / part.cache if cached and part.cache else None,
    )


def _formats(
    engine: EnginePart, graph: Path, tensors: Sequence[CutTensor], version: Version
) -> tuple[str | None, str | None]:
    """Formats of inputs and outputs, one for each; None where all are trtexec's own choice."""
    built = interface_of(load_model(graph, full_check=False))
    return _said(engine, built[0], engine.inputs, tensors, version), _said(
        engine, built[1], engine.outputs, tensors, version
    )


def _said(
    engine: EnginePart,
    built: Sequence[TensorSpec],
    typed: Mapping[str, TensorSpec],
    tensors: Sequence[CutTensor],
    version: Version,
) -> str | None:
    sides = {(t.name, s.part): s for t in tensors for s in (*([t.producer] if t.producer else []), *t.consumers)}
    formats = []
    for spec in built:
        side = sides.get((spec.name, engine.name))
        if side is not None:
            formats.append((side.kind, side.layout))
        elif engine.on_dla:
            formats.append((engine.kind(typed[spec.name]), DLA_LINEAR))
        else:
            formats.append((kind_of(spec), LINEAR))
    if formats == [(kind_of(spec), LINEAR) for spec in built]:
        return None
    return ",".join(layout if version.major >= 11 else f"{kind}:{layout}" for kind, layout in formats)  # fmt: skip


def _named(word: str, part: SplitPart, root: Path) -> str:
    """trtexec's word with the names of what it writes; it runs in the folder that paths are in."""
    stem = (root / part.graph).stem
    return word.replace(f"={ENGINE}", f"={stem}.engine").replace(f"={LAYERS_FILE}", f"={stem}.{LAYERS_FILE}")


def place_parts(
    parts: Sequence[SplitPart], root: Path, scopes: Sequence[str], max_fallback: Mapping[str, int]
) -> tuple[list[DlaPlacement], list[SplitFinding]]:
    """What DLA runs of the parts that are for it, by scope, and what falls back to the GPU.

    Args:
        parts: any.
        root: folder that their paths are in.
        scopes: of DLA.
        max_fallback: what may fall back.
    """
    placements, findings = [], []
    for part in (part for part in parts if part.setting.dla_core is not None):
        for report in check(root / part.floating, scopes, name=part.name).scopes:
            report = within(report, max_fallback)
            placement = report.placement
            assert placement is not None  # of scopes of DLA
            said, back = words(placement), placement.fallbacks
            placements.append(DlaPlacement(part.name, report.scope, report.verdict, said, back))
            if back and not report.accepted:
                message = f"{part.name} on {part.setting.target}, by {report.scope}: {said}; {_listed(back)}"
                fix = "add --fix, which repairs what can be, or allow so much with --max-fallback"
                findings.append(SplitFinding("falls back", part.name, message, fix))
    return placements, findings


def _listed(fallbacks: Sequence[Fallback]) -> str:
    more = f" and {len(fallbacks) - _SHOWN} more" if len(fallbacks) > _SHOWN else ""
    return ", ".join(f"{one.node} ({one.op}): {one.why}" for one in fallbacks[:_SHOWN]) + more
