"""What building the bundle's content again takes and the bundle does not hold, each with its hash."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy.errors import CsaDeployError
from csa_deploy.pipeline import stage_key
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.results import Stored
from csa_deploy.stages import STAGES
from csa_deploy.workspace import sha256_of

if TYPE_CHECKING:
    from csa_deploy.context import Context

_CHANGED = "the network, its weights or the tools have changed since the export: this hash may be of another file"


@dataclass(frozen=True)
class Need(Stored):
    """Something that is not in the bundle.

    Attributes:
        what: in one word or two.
        path: where it was, as the command named it.
        sha256: of its content; None where there is none, or it cannot be read now.
        reason: why it is not in the bundle, or what its hash is of.
    """

    what: str
    path: str
    sha256: str | None
    reason: str


def needs_of(context: Context) -> list[Need]:
    """The network's code, its weights and the data of a workspace, as they are now."""
    found = [*_network(context), *_files(context), *_data(context)]
    if _as_exported(context):
        return found
    return [need if need.what.endswith("data") else _doubted(need) for need in found]


def _as_exported(context: Context) -> bool:
    try:
        return context.workspace.is_current("export", stage_key(STAGES["export"], context))
    except CsaDeployError:  # a file that decides the export is gone
        return False


def _doubted(need: Need) -> Need:
    return Need(need.what, need.path, need.sha256, f"{need.reason}; {_CHANGED}")


def _network(context: Context) -> Iterator[Need]:
    source = context.source
    if source.kind in ("registry", "module"):
        reason = "code of an installed package; the hash is over its files, see sbom.cdx.json for its version"
        yield Need("network", source.spec, source.fingerprint(), reason)
        return
    assert source.path is not None
    for label, path in source.files():
        named = source.path if source.kind == "onnx" and label == "onnx" else source.path.parent / label
        what = "network" if path.suffix in (".py", ".onnx") else "weights"
        yield Need(what, str(named), sha256_of(path), "read from here")


def _files(context: Context) -> Iterator[Need]:
    """Files that settings name."""
    config = context.config
    named = {"checkpoint": config.checkpoint, "target": config.target, "timing cache": config.timing_cache}
    for what, name in named.items():
        if name:
            path = Path(name)
            there = path.is_file()
            reason = "named by a setting" + ("" if there else ", and not there any more")
            yield Need(what, name, sha256_of(path) if there else None, reason)


def _data(context: Context) -> Iterator[Need]:
    """Data sets, by the hashes that the results state."""
    workspace, reason = context.workspace, "the hash is over the samples that were used, as the network got them"
    typed = workspace.find(PrecisionRecord)
    if typed and (calibration := typed.calibration):
        with zipfile.ZipFile(workspace.root / calibration.statistics) as archive:
            key = json.loads(archive.read("statistics.json"))["key"]
        yield Need("calibration data", context.config.calib or calibration.data, key["data"], reason)
    if record := workspace.find(VerifyRecord):
        yield Need("evaluation data", context.config.data or record.data.name, record.data.sha256, reason)
