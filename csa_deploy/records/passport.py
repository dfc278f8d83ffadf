"""What a passport states of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from csa_deploy.records.build import JudgedScope, Part, RestrictedFlag
from csa_deploy.results import IF_KNOWN, Stored

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class EngineFile(Stored):
    """The engine.

    Attributes:
        backend: its builder.
        tensorrt: the builder's version.
        compute_capabilities: what it was built for.
        artifact_sha256: one hash over engine and parts; None for an engine of one file.
    """

    file: str
    sha256: str
    bytes: int
    backend: str
    tensorrt: str
    compute_capabilities: tuple[str, ...]
    parts: tuple[Part, ...] = field(default=(), metadata=IF_KNOWN)
    artifact_sha256: str | None = field(default=None, metadata=IF_KNOWN)


@dataclass(frozen=True)
class GraphFile:
    """The graph that was built; ``weights_sha256`` is over its weights alone."""

    file: str
    sha256: str
    weights_sha256: str


@dataclass(frozen=True)
class LayerPrecision:
    """Type of each layer's output, what tells it, and the precision that was asked for; None where nothing tells."""

    asked: str
    obtained: dict[str, str] | None
    obtained_from: str


@dataclass(frozen=True, kw_only=True)
class Passport(Stored):
    """What an engine is made of, how, by what, and what was proved of it.

    Attributes:
        graph: the graph that was built.
        calibration: data and hashes of the files of calibration; None for a build without.
        timing_cache_sha256: of the cache, after the build; None without one.
        versions: of csa-deploy and the Python packages involved.
        device: driver, CUDA, GPU, power mode of the machine that built it, as far as known.
        precision: asked for, and obtained.
        restricted: the safety-scope flag and what it proves.
        gates: what scopes that decide say of the graph.
        postprocessing: how its outputs become boxes; None where nobody states it.
        rebuild: the command that builds it again.
        command: the builder's command line; empty where it has none.
        not_done: what was not done or measured, each with its reason.
        seal: hash of all the rest.
    """

    schema_version: int = SCHEMA_VERSION
    engine: EngineFile
    graph: GraphFile
    calibration: Mapping[str, Any] | None
    timing_cache_sha256: str | None
    versions: dict[str, str | None]
    device: Mapping[str, Any]
    precision: LayerPrecision
    restricted: RestrictedFlag
    gates: tuple[JudgedScope, ...]
    postprocessing: Mapping[str, Any] | None = field(default=None, metadata=IF_KNOWN)
    rebuild: tuple[str, ...]
    command: tuple[str, ...]
    not_done: tuple[str, ...]
    seal: str = ""
