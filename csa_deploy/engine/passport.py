"""The passport: one JSON beside every engine that says what it is made of, how, by what, and what was proved of it.

Its ``seal`` is the hash of all the rest, so that a slip of the hand is noticed; it is no signature (bundles have one).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from csa_deploy import __version__
from csa_deploy.engine.device import CudaState
from csa_deploy.engine.parts import artifact_hash, check_parts
from csa_deploy.engine.result import BuildResult
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.workspace import dump_json, sha256_of

SCHEMA_VERSION = 1
_SUFFIX = ".passport.json"
_PLAN_TAGS = {b"ftrt": "TensorRT", b"vtrt": "TensorRT-RTX"}


def passport_of(engine: Path) -> Path:
    """Where an engine's passport lies."""
    return engine.with_name(engine.name + _SUFFIX)


def make_passport(
    result: BuildResult,
    graph: Path,
    *,
    rebuild: list[str],
    packages: Mapping[str, str | None],
    device: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    scopes: list[dict[str, str]] | None = None,
    postprocessing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The passport of a build.

    Args:
        result: what the build gave.
        graph: the ONNX graph that was built.
        rebuild: the command that builds it again.
        packages: versions of the Python packages involved.
        device: driver, CUDA, GPU, power mode of the machine that built it, as far as known.
        calibration: hashes of calibration data and cache; None for a build without.
        scopes: verdicts of the restricted-mode gate on the graph.
        postprocessing: how its outputs become boxes; None where nobody states it.
    """
    cache = result.plan.timing_cache
    body = {
        "schema_version": SCHEMA_VERSION,
        "engine": {
            "file": result.engine.name,
            "sha256": result.engine_sha256,
            "bytes": result.engine_bytes,
            "backend": result.backend,
            "tensorrt": result.version,
            "compute_capabilities": list(result.compute_capabilities),
            **_whole(result),
        },
        "graph": {"file": graph.name, "sha256": sha256_of(graph), "weights_sha256": weights_hash(graph)},
        "calibration": dict(calibration) if calibration else None,
        "timing_cache_sha256": sha256_of(cache) if cache and cache.is_file() else None,
        "versions": {"csa-deploy": __version__, **packages},
        "device": dict(device),
        "precision": {"asked": result.plan.precision, **_obtained(result)},
        "restricted": result.restricted.to_json(),
        "gates": scopes or [],
        **({"postprocessing": dict(postprocessing)} if postprocessing else {}),
        "rebuild": rebuild,
        "command": list(result.command),
        "not_done": list(result.not_done),
    }
    return {**body, "seal": seal_of(body)}


def _whole(result: BuildResult) -> dict[str, Any]:
    """The parts of an engine of several files, and one hash over all; nothing for an engine of one."""
    if not result.parts:
        return {}
    parts = [part.to_json() for part in result.parts]
    return {"parts": parts, "artifact_sha256": artifact_hash(result.engine_sha256, parts)}


def seal_of(passport: Mapping[str, Any]) -> str:
    """Hash of a passport's content without its seal."""
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


def _obtained(result: BuildResult) -> dict[str, Any]:
    """Type of each layer's output: of the engine's layers where they are known, else of the parsed network's."""
    if result.inspection is not None:
        layers = read_layers(result.inspection)
        if layers:
            return {"obtained": layers, "obtained_from": "layers of the engine after fusion"}
    if result.layers:
        parsed = {layer.name: "/".join(tensor.dtype for tensor in layer.outputs) for layer in result.layers}
        return {"obtained": parsed, "obtained_from": "the network as parsed, before fusion"}
    return {"obtained": None, "obtained_from": "not measured: neither parsed network nor engine layers are known"}


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


def read_passport(path: Path) -> dict[str, Any]:
    """Read a passport and check its seal.

    Raises:
        UsageError: not readable, of another schema, or edited.
    """
    try:
        passport = json.loads(path.read_text(encoding="utf-8"))
        version, seal = passport["schema_version"], passport["seal"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: no readable passport ({error})", fix="build the engine again") from None
    if version != SCHEMA_VERSION:
        raise UsageError(f"{path}: schema version {version}, known is {SCHEMA_VERSION}", fix="use that csa-deploy")
    if seal != seal_of(passport):
        raise UsageError(f"{path}: it was edited: its seal does not match", fix="build the engine again")
    assert isinstance(passport, dict)
    return passport


def check_engine(engine: Path) -> dict[str, Any] | None:
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
    stated, size = passport["engine"], engine.stat().st_size
    if size != stated["bytes"] and not stated.get("parts"):  # of a set, the hashes tell which file is of which build
        what = "cut short" if size < stated["bytes"] else "longer"
        raise UsageError(
            f"{engine}: {what}: {size} bytes, its passport states {stated['bytes']}", fix="copy or build it again"
        )
    if (there := sha256_of(engine)) != stated["sha256"]:
        both = f": {there}, its parts were built with {stated['sha256']}" if stated.get("parts") else ""
        raise UsageError(f"{engine}: not the engine that its passport describes{both}", fix="copy or build it again")
    check_parts(engine, stated.get("parts", ()))
    return passport


def check_here(passport: Mapping[str, Any], backend: str, version: str, state: CudaState) -> None:
    """Say in words why an engine cannot run with what is here, before TensorRT does in its own.

    Raises:
        EnvironmentLacksError: built by another TensorRT, or for other GPUs.
    """
    engine = passport["engine"]
    wanted = engine["tensorrt"] if engine["backend"] != "trtexec" else engine["tensorrt"].rsplit(".", 1)[0]
    family = "tensorrt-rtx" if engine["backend"] == "tensorrt-rtx" else "tensorrt"
    if family != backend or not f"{version}.".startswith(f"{wanted}."):
        raise EnvironmentLacksError(
            f"{engine['file']} was built by {engine['backend']} {engine['tensorrt']}, here is {backend} {version}",
            fix="build it again here, or install that version",
        )
    here = {device.compute_capability for device in state.devices}
    built_for = {item for item in engine["compute_capabilities"] if item[:1].isdigit()}
    if built_for and here and not here & built_for:
        raise EnvironmentLacksError(
            f"{engine['file']} was built for compute capability {', '.join(sorted(built_for))}, the GPU here has "
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
