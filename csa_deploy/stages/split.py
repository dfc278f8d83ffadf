"""The split stage: the typed graph cut into encoder and heads, each for its target, and whether they fit together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.builders import stated_version
from csa_deploy.errors import OperationRejectedError
from csa_deploy.graph.interface import interface_of
from csa_deploy.graph.load import load_model, save_model
from csa_deploy.graph.split import crossing, extract_part, plan_cut
from csa_deploy.precision.trt_cache import cache_text, read_cache
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.records.split import SplitPart, SplitRecord
from csa_deploy.restricted.schema import load_pack, pack_files
from csa_deploy.runners.chained_runner import open_chain
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.source import slug_of
from csa_deploy.split.building import place_parts, plan_builds
from csa_deploy.trtexec.settings import parse_options
from csa_deploy.trtexec.versions import Version
from csa_deploy.units import counted
from csa_deploy.verify.candidates import rounding_runner
from csa_deploy.workspace import StageOutput, sha256_of

if TYPE_CHECKING:
    import onnx

    from csa_deploy.config import Config
    from csa_deploy.context import Context
    from csa_deploy.runners.base import Runner

_VERSIONS = {"8.6": Version(8, 6, 12), "10": Version(10, 3), "11": Version(11, 1)}
"""What commands are for where no target states a version: DRIVE OS 6, JetPack 6, and the last that is known."""
_DLA = ("dla-orin",)
_RANDOM = 2


def key_parts(context: Context) -> dict[str, Any]:
    """The rules of DLA and the version that commands are for."""
    files = pack_files()
    return {
        "packs": {name: sha256_of(files[name]) for name in _scopes(context.config)},
        "version": str(version_of(context.config)),
    }


def version_of(config: Config) -> Version:
    """The TensorRT that commands are for: the target's where its file states one."""
    return stated_version(config) or _VERSIONS[config.tensorrt]


def _scopes(config: Config) -> list[str]:
    """The scopes of DLA that parts are judged by."""
    return [name for name in config.scope if load_pack(name).kind == "dla"] or list(_DLA)


def run(context: Context) -> StageOutput[SplitRecord]:
    """Cut, check and word the builds."""
    config, floating = context.config, load_model(context.path(context.floating().graph), full_check=False)
    planned = plan_cut(floating, config.split, config.part)
    used = {part.setting.precision for part in planned}
    precision = next(p for p in ("int8", "fp16", "fp32") if p in used)
    typed = load_model(context.path(context.graphs()[precision]), full_check=False)
    artifacts: dict[str, Path] = {}
    crosses = crossing(typed, planned)
    parts = []
    for number, part in enumerate(planned):
        stem = f"{context.name}.{slug_of(part.name.replace('+', '-'))}"
        plain = extract_part(floating, part, {})
        quantized = part.setting.precision == "int8"
        parts.append(
            SplitPart(
                name=part.name,
                setting=part.setting,
                nodes=len(part.nodes),
                inputs=part.inputs,
                outputs=part.outputs,
                graph=_written(
                    context, extract_part(typed, part, crosses), f"{stem}.{part.setting.precision}", artifacts
                ),
                floating=_written(context, plain, stem, artifacts),
                cache=_write_cache(context, plain, stem, artifacts) if quantized else None,
            )
        )
        context.progress(number + 1, len(planned))
    record = _record(context, precision, typed, parts)
    return StageOutput(record, artifacts=artifacts, failure=_rejection(config, record))


def _rejection(config: Config, record: SplitRecord) -> OperationRejectedError | None:
    """The error of a part that its DLA does not take, where restricted mode was asked for."""
    counted_as = ("denied", "unknown") if config.strict else ("denied",)
    for placed in record.placements if config.restricted else ():
        if placed.verdict in counted_as:
            found = next(
                (one for one in record.findings if one.kind == "falls back" and one.where == placed.part), None
            )
            said = found.message if found else f"{placed.part}: {placed.verdict} in {placed.scope}: {placed.said}"
            return OperationRejectedError(said, fix=found.fix if found else "`csa-deploy check` shows all")
    return None


def _written(context: Context, model: onnx.ModelProto, stem: str, artifacts: dict[str, Path]) -> str:
    path = context.scratch / "onnx" / f"{stem}.onnx"
    save_model(model, path)
    artifacts[f"onnx/{path.name}"] = path
    return f"onnx/{path.name}"


def _write_cache(context: Context, plain: onnx.ModelProto, stem: str, artifacts: dict[str, Path]) -> str | None:
    """The calibration cache of a part: the network's, with the scales that the typed graph has where it has one."""
    int8 = context.workspace.read(PrecisionRecord).int8
    if int8 is None:
        return None  # a graph that was given with its Q/DQ
    _, scales = read_cache(context.path(int8.cache))
    made = [name for node in plain.graph.node for name in node.output]
    names = [*(spec.name for spec in interface_of(plain)[0]), *made]
    path = context.scratch / "calibration" / f"{stem}.cache"
    path.parent.mkdir(exist_ok=True)
    own = {name: int8.scales.get(name, scales.get(name)) for name in names}
    known = {name: scale for name, scale in own.items() if scale is not None}
    path.write_text(cache_text(known, version=version_of(context.config).digits))
    artifacts[f"calibration/{path.name}"] = path
    return f"calibration/{path.name}"


def chained_error(split: SplitRecord, root: Path, typed: onnx.ModelProto, seed: int) -> float:
    """See :attr:`SplitRecord.error`."""

    def opened(path: Path, name: str) -> Runner:
        return rounding_runner(load_model(path, full_check=False), threads=1, name=name)

    with open_chain(split, root, opened) as chain, rounding_runner(typed, threads=1, name="whole") as whole:
        differences = [0.0]
        for number in range(_RANDOM):
            feeds = random_feeds(whole.input_specs, seed + number)
            got, want = chain.run(feeds), whole.run(feeds)
            differences += [_difference(got[name], want[name]) for name in want]
    return max(differences)


def _difference(got: np.ndarray, want: np.ndarray) -> float:
    """The largest one; infinite where one has a number that is not finite and the other has another one there."""
    if np.array_equal(got, want, equal_nan=want.dtype.kind == "f"):
        return 0.0
    apart = np.abs(got.astype("f8") - want.astype("f8"))
    return float(apart.max()) if np.isfinite(apart).all() else float("inf")


def _record(context: Context, precision: str, typed: onnx.ModelProto, parts: list[SplitPart]) -> SplitRecord:
    config, version = context.config, version_of(context.config)
    options = parse_options(config.builder_option)
    found = plan_builds(parts, context.scratch, version, options)
    placements, fallbacks = place_parts(parts, context.scratch, _scopes(config), config.max_fallback)
    findings = (*found.findings, *fallbacks)
    wrong = [finding for finding in findings if finding.kind != "note"]
    said = ", ".join(f"{part.name} {part.setting}" for part in parts)
    record = SplitRecord(
        summary=f"{said}; {counted(len(found.crossing), 'tensor')} cross"
        + (f"; {counted(len(wrong), 'finding')}" if wrong else ", both sides of each fit"),
        error=0.0,
        notes=tuple(f"{finding.kind}: {finding.message}; {finding.fix}" for finding in findings),
        tensors=config.split,
        precision=precision,
        graph=context.graphs()[precision],
        outputs=tuple(spec.name for spec in interface_of(typed)[1]),
        parts=tuple(parts),
        tensorrt=str(version),
        crossing=found.crossing,
        builds=found.builds,
        placements=tuple(placements),
        findings=findings,
    )
    error = chained_error(record, context.scratch, typed, config.seed)
    same = "every bit as in the uncut graph" if error == 0.0 else f"up to {error:.2g} off the uncut graph"
    return replace(record, error=error, summary=f"{record.summary}; {same}")
