"""``bundle.json``: what a bundle is of, and the hash of each of its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from csa_deploy import __version__
from csa_deploy.bundle.needs import Need
from csa_deploy.bundle.samples import StatedSamples
from csa_deploy.bundle.verdict import Verdict
from csa_deploy.errors import UsageError
from csa_deploy.results import IF_KNOWN, Stored

SCHEMA_VERSION = 1
INDEX = "bundle.json"


@dataclass(frozen=True)
class EngineBuilder:
    """What built the engine."""

    backend: str
    version: str


@dataclass(frozen=True, kw_only=True)
class BundleIndex(Stored):
    """What a bundle is of.

    Attributes:
        engine: its path in the bundle; None without one.
        graph: path of the graph in the bundle.
        rebuild: the command that builds the engine again.
        evidence: ``level``, ``why_not_next`` and ``statement`` of the restricted mode; empty without an engine.
        files: path in the bundle -> SHA-256.
        not_included: what it does not hold, and why.
        verdict: what the gates had said; None in bundles of older versions.
        postprocessing: how outputs become boxes; None where nobody states it.
    """

    schema_version: int = SCHEMA_VERSION
    csa_deploy: str = __version__
    network: str
    precision: str
    kind: Literal["engine", "graph"]
    engine: str | None
    builder: EngineBuilder | None
    graph: str
    rebuild: tuple[str, ...] | None
    evidence: dict[str, str | None]
    samples: StatedSamples
    files: dict[str, str]
    not_included: tuple[Need, ...]
    verdict: Verdict | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    postprocessing: Mapping[str, Any] | None = field(default=None, metadata=IF_KNOWN)


def read_index(content: bytes) -> BundleIndex:
    """``bundle.json`` of a bundle; raises UsageError for anything else."""
    try:
        index = json.loads(content)
        version = index["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{INDEX} of the bundle is not readable", fix="ask for the bundle again") from None
    if version != SCHEMA_VERSION:
        raise UsageError(f"the bundle has schema version {version}, known is {SCHEMA_VERSION}", fix="update csa-deploy")
    try:
        return BundleIndex.from_json(index)
    except UsageError as error:
        why = f"{INDEX} of the bundle is not readable: {error.message}"
        raise UsageError(why, fix="ask for the bundle again") from None
