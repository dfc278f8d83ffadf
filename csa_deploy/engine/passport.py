"""The passport: one JSON beside every engine that says what it is made of, how, by what, and what was proved of it.

Its ``seal`` is the hash of all the rest, so that a slip of the hand is noticed; it is no signature (bundles have one).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from csa_deploy import __version__
from csa_deploy.engine.device import CudaState
from csa_deploy.engine.parts import artifact_hash, check_parts
from csa_deploy.engine.result import BuildResult
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.records.build import JudgedScope
from csa_deploy.records.passport import SCHEMA_VERSION, EngineFile, GraphFile, LayerPrecision, Passport
from csa_deploy.workspace import dump_json, sha256_of

_SUFFIX = ".passport.json"
_PLAN_TAGS = {b"ftrt": "TensorRT", b"vtrt": "TensorRT-RTX"}


def passport_of(engine: Path) -> Path:
    """Where an engine's passport lies."""
    return engine.with_name(engine.name + _SUFFIX)


def make_passport(
    result: BuildResult,
    graph: Path,
    *,
    rebuild: Sequence[str],
    packages: Mapping[str, str | None],
    device: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    scopes: Sequence[JudgedScope] = (),
    postprocessing: Mapping[str, Any] | None = None,
) -> Passport:
    """The passport of a build of a graph; see :class:`Passport` for what else it takes."""
    cache, whole = result.plan.timing_cache, artifact_hash(result.engine_sha256, result.parts)
    return sealed(
        Passport(
            engine=EngineFile(
                file=result.engine.name,
                sha256=result.engine_sha256,
                bytes=result.engine_bytes,
                backend=result.backend,
                tensorrt=result.version,
                compute_capabilities=result.compute_capabilities,
                parts=result.parts,
                artifact_sha256=whole if result.parts else None,
            ),
            graph=GraphFile(graph.name, sha256_of(graph), weights_hash(graph)),
            calibration=calibration or None,
            timing_cache_sha256=sha256_of(cache) if cache and cache.is_file() else None,
            versions={"csa-deploy": __version__, **packages},
            device=device,
            precision=LayerPrecision(result.plan.precision, *_obtained(result)),
            restricted=result.restricted,
            gates=tuple(scopes),
            postprocessing=postprocessing or None,
            rebuild=tuple(rebuild),
            command=result.command,
            not_done=result.not_done,
        )
    )


def sealed(passport: Passport) -> Passport:
    """The same with the seal of its content."""
    return replace(passport, seal=seal_of(passport.to_json()))


def seal_of(passport: Mapping[str, Any]) -> str:
    """Hash of the content of a passport's file without its seal."""
    body = {key: value for key, value in passport.items() if key != "seal"}
    return hashlib.sha256(dump_json(body).encode()).hexdigest()


def weights_hash(graph: Path) -> str:
    """SHA-256 over the weights of a graph: name, type, shape and bytes of each, in order of name."""
    from onnx import numpy_helper

    from csa_deploy.graph.load import load_model

    digest = hashlib.sha256()
    for tensor in sorted(load_model(graph, full_check=False).graph.initializer, key=lambda item: item.name):
        digest.update(f"{tensor.name}\0{tensor.data_type}\0{list(tensor.dims)}\0".encode())
        digest.update(numpy_helper.to_array(tensor).tobytes())
    return digest.hexdigest()


def _obtained(result: BuildResult) -> tuple[dict[str, str] | None, str]:
    """Type of each layer's output: of the engine's layers where they are known, else of the parsed network's."""
    if result.inspection is not None and (layers := read_layers(result.inspection)):
        return layers, "layers of the engine after fusion"
    if result.layers:
        parsed = {layer.name: "/".join(tensor.dtype for tensor in layer.outputs) for layer in result.layers}
        return parsed, "the network as parsed, before fusion"
    return None, "not measured: neither parsed network nor engine layers are known"


def read_layers(inspection: Path) -> dict[str, str]:
    """Layer -> type of its outputs, from the engine inspector's JSON; empty when it holds names only."""
    try:
        layers = json.loads(inspection.read_text(encoding="utf-8"))["Layers"]
        return {
            layer["Name"]: "/".join(output["Format/Datatype"] for output in layer["Outputs"])
            for layer in layers
            if isinstance(layer, dict)
        }
    except (ValueError, KeyError, TypeError):
        return {}


def read_passport(path: Path) -> Passport:
    """Read a passport and check its seal.

    Raises:
        UsageError: not readable, of another schema, or edited.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: no readable passport ({error})", fix="build the engine again") from None
    return parse_passport(content, str(path))


def parse_passport(content: bytes, where: str) -> Passport:
    """The passport in a file's content; its seal is of what stands there, also of what this version does not know.

    Raises:
        UsageError: not readable, of another schema, or edited.
    """
    try:
        stated = json.loads(content)
        version, seal = stated["schema_version"], stated["seal"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{where}: no readable passport ({error})", fix="build the engine again") from None
    if version != SCHEMA_VERSION:
        raise UsageError(f"{where}: schema version {version}, known is {SCHEMA_VERSION}", fix="use that csa-deploy")
    if seal != seal_of(stated):
        raise UsageError(f"{where}: it was edited: its seal does not match", fix="build the engine again")
    try:
        return Passport.from_json(stated)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", fix="build the engine again") from None


def check_engine(engine: Path) -> Passport | None:
    """Hold an engine against its passport.

    Returns:
        The passport; None when there is none.

    Raises:
        UsageError: the passport was edited, or the engine is not the one that it describes.
    """
    path = passport_of(engine)
    if not path.is_file():
        return None
    passport = read_passport(path)
    stated, size = passport.engine, engine.stat().st_size
    if size != stated.bytes and not stated.parts:  # of a set, the hashes tell which file is of which build
        what = "cut short" if size < stated.bytes else "longer"
        raise UsageError(
            f"{engine}: {what}: {size} bytes, its passport states {stated.bytes}", fix="copy or build it again"
        )
    if (there := sha256_of(engine)) != stated.sha256:
        both = f": {there}, its parts were built with {stated.sha256}" if stated.parts else ""
        raise UsageError(f"{engine}: not the engine that its passport describes{both}", fix="copy or build it again")
    check_parts(engine, stated.parts)
    return passport


def check_here(engine: EngineFile, backend: str, version: str, state: CudaState) -> None:
    """Say in words why an engine cannot run with what is here, before TensorRT does in its own.

    Raises:
        EnvironmentLacksError: built by another TensorRT, or for other GPUs.
    """
    wanted = engine.tensorrt if engine.backend != "trtexec" else engine.tensorrt.rsplit(".", 1)[0]
    family = "tensorrt-rtx" if engine.backend == "tensorrt-rtx" else "tensorrt"
    if family != backend or not f"{version}.".startswith(f"{wanted}."):
        raise EnvironmentLacksError(
            f"{engine.file} was built by {engine.backend} {engine.tensorrt}, here is {backend} {version}",
            fix="build it again here, or install that version",
        )
    here = {device.compute_capability for device in state.devices}
    built_for = {item for item in engine.compute_capabilities if item[:1].isdigit()}
    if built_for and here and not here & built_for:
        raise EnvironmentLacksError(
            f"{engine.file} was built for compute capability {', '.join(sorted(built_for))}, the GPU here has "
            f"{', '.join(sorted(here))}",
            fix="build it again for this GPU",
        )


def plan_version(engine: Path) -> str | None:
    """Product and version in an engine file's own header (``"TensorRT 10.3.0.26"``); None for a file without one.

    Source: ``--getPlanVersionOnly`` of trtexec reads a tag, serialization version 0, and bytes 24 to 27; an engine of
    TensorRT-RTX 1.7.1.116 has the same layout under another tag.
    """
    with engine.open("rb") as stream:
        head = stream.read(28)
    if len(head) < 28 or head[:4] not in _PLAN_TAGS or head[4:8] != bytes(4):
        return None
    return f"{_PLAN_TAGS[head[:4]]} {'.'.join(str(part) for part in head[24:28])}"
