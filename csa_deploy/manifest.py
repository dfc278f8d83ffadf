"""What the manifest of a workspace states: which stages are current, and with which files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from csa_deploy import __version__
from csa_deploy.results import Stored

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Artifact:
    """What the manifest states of a file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class StageEntry:
    """What the manifest says of a stage that ran.

    Attributes:
        key: hash of what decides what it writes.
        passed: whether its gate did.
        artifacts: path inside the workspace -> what is stated of the file; its record is among them.
        unhashed: paths of files whose bytes differ between runs.
        compared: hash of what decides no more than its measurements.
        outcome: hash of what later stages rest on; manifests of older versions have none.
    """

    key: str
    passed: bool
    artifacts: dict[str, Artifact]
    unhashed: tuple[str, ...]
    compared: str = ""
    outcome: str = ""

    @property
    def made(self) -> dict[str, Artifact]:
        """The artifacts without the record."""
        return {path: stated for path, stated in self.artifacts.items() if not path.startswith("records/")}


@dataclass(frozen=True)
class Manifest(Stored):
    """What is current: the configuration, and the stages that ran."""

    config: dict[str, Any]
    stages: dict[str, StageEntry]
    csa_deploy: str = __version__
    schema_version: int = SCHEMA_VERSION
