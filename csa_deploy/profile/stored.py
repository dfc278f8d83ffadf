"""The measurements of an earlier run, and whether two runs may be compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csa_deploy.errors import UsageError
from csa_deploy.records.profile import ProfileRecord, TimedEntry

SAME_HOST = ("cpu", "cores", "system", "devices")
SAME_CONTRACT = ("timed", "batch", "threads", "inputs")


@dataclass(frozen=True)
class StoredRun:
    """What a workspace holds about latency.

    Attributes:
        root: the workspace.
        network: its network.
        latency: label -> summary with all samples.
        host: machine of the measurement.
        contract: how it was measured.
        measured: what ran.
    """

    root: Path
    network: str
    latency: dict[str, dict[str, Any]]
    host: dict[str, Any]
    contract: dict[str, Any]
    measured: tuple[TimedEntry, ...] = ()


def load_run(root: Path) -> StoredRun:
    """Read a workspace's profile.

    Raises:
        UsageError: no workspace, or nothing was profiled in it.
    """
    try:
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        measured = json.loads((root / "measurements" / "profile.json").read_text(encoding="utf-8"))
        record = ProfileRecord.from_json(json.loads((root / "records" / "profile.json").read_text(encoding="utf-8")))
        network = manifest["config"]["network"]
        return StoredRun(root, network, measured["latency"], measured["host"], record.contract, record.measured)
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        raise UsageError(
            f"{root}: no stored profile of a run", fix="give a workspace in which `csa-deploy profile` was run"
        ) from None


def differences(a: StoredRun, b: StoredRun) -> list[str]:
    """Why two runs were not measured alike; empty when they were."""
    found = [
        f"another machine: {key} {a.host.get(key)} and {b.host.get(key)}"
        for key in SAME_HOST
        if (a.host.get(key) or None) != (b.host.get(key) or None)  # older runs state no devices
    ]
    found += [
        f"another contract: {key} {a.contract.get(key)} and {b.contract.get(key)}"
        for key in SAME_CONTRACT
        if a.contract.get(key) != b.contract.get(key)
    ]
    return found
