"""The measurements of an earlier run, and whether two runs may be compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from csa_deploy.errors import UsageError
from csa_deploy.records.profile import Contract, HostMachine, LatencySummary, Profiled, ProfileRecord, TimedEntry
from csa_deploy.workspace import MANIFEST, Workspace

SAME_HOST = ("cpu", "cores", "system", "devices")
SAME_CONTRACT = ("timed", "batch", "threads", "inputs")


@dataclass(frozen=True)
class StoredRun:
    """What a workspace holds about latency.

    Attributes:
        latency: label -> summary with all samples.
        measured: what ran.
    """

    root: Path
    network: str
    latency: dict[str, LatencySummary]
    host: HostMachine
    contract: Contract
    measured: tuple[TimedEntry, ...] = ()


def load_run(root: Path) -> StoredRun:
    """Read a workspace's profile.

    Raises:
        UsageError: no workspace, nothing was profiled in it, or what it holds is damaged.
    """
    if not (root / MANIFEST).is_file() or not (root / "records" / "profile.json").is_file():
        fix = "give a workspace in which `csa-deploy profile` was run"
        raise UsageError(f"{root}: no stored profile of a run", fix=fix)
    try:
        workspace = Workspace(root)
        network, record = workspace.config["network"], workspace.read(ProfileRecord)
        measured = Profiled.from_json(workspace.measured(ProfileRecord.stage))
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        said = error.message if isinstance(error, UsageError) else f"{type(error).__name__} {error}"
        raise UsageError(f"{root}: its stored profile is damaged: {said}", fix="profile again there") from None
    return StoredRun(root, network, measured.latency, measured.host, record.contract, record.measured)


def differences(a: StoredRun, b: StoredRun) -> list[str]:
    """Why two runs were not measured alike; empty when they were."""
    stated = [
        ("machine", SAME_HOST, a.host.to_json(), b.host.to_json()),
        ("contract", SAME_CONTRACT, a.contract.to_json(), b.contract.to_json()),
    ]
    return [
        f"another {what}: {key} {first[key]} and {second[key]}"
        for what, keys, first, second in stated
        for key in keys
        if first[key] != second[key]
    ]
