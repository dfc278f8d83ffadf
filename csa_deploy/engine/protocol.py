"""What a build and the process that does it say to each other, as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.result import ParsedLayer
from csa_deploy.records.build import TensorInfo
from csa_deploy.results import IF_KNOWN, Stored


@dataclass(frozen=True)
class BuildRequest(Stored):
    """What the process is asked: a graph, where its engine goes, and compute capabilities not to build for."""

    model: Path
    engine: Path
    left_out: tuple[str, ...]
    plan: BuildPlan


@dataclass(frozen=True, kw_only=True)
class FinishedBuild:
    """What a process that wrote its engine says.

    Attributes:
        inspection: the engine inspector's JSON; None where it could not be asked.
    """

    version: str
    engine_bytes: int
    engine_sha256: str
    compute_capabilities: tuple[str, ...]
    flags: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: tuple[ParsedLayer, ...]
    parse_seconds: float
    build_seconds: float
    peak_memory_bytes: int | None
    inspection: str | None
    not_inspected: str


@dataclass(frozen=True)
class FailedBuild:
    """Why there is none: a class of :mod:`csa_deploy.errors`, or None where the log holds the cause."""

    kind: str | None
    message: str
    fix: str | None


@dataclass(frozen=True)
class Event(Stored):
    """One line from the process: how far it is (done, total), or how it ended."""

    progress: tuple[int, int] | None = field(default=None, metadata=IF_KNOWN)
    result: FinishedBuild | None = field(default=None, metadata=IF_KNOWN)
    error: FailedBuild | None = field(default=None, metadata=IF_KNOWN)


def line_of(said: BuildRequest | Event) -> str:
    """One line of JSON."""
    return json.dumps(said.to_json(), default=str) + "\n"
