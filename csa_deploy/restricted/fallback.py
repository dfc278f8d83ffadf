"""``--max-fallback``: how much of a network may fall back from DLA to the GPU, and what a verdict says then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from csa_deploy.errors import UsageError
from csa_deploy.records.check import Finding, Placement, ScopeReport
from csa_deploy.restricted.schema import load_pack
from csa_deploy.units import counted


def require_dla(scopes: Sequence[str], bounds: Mapping[str, int]) -> None:
    """Refuse a bound that none of the scopes (none named: all) knows.

    Raises:
        UsageError: no scope of DLA among them.
    """
    if bounds and scopes and all(load_pack(name).kind != "dla" for name in scopes):
        raise UsageError(
            f"--max-fallback is about DLA, and none of the scopes is: {', '.join(scopes)}",
            fix="add a scope of DLA, such as --scope dla-orin, or leave out --max-fallback",
        )


def within(report: ScopeReport, bounds: Mapping[str, int]) -> ScopeReport:
    """The report of a DLA scope with ``bounds`` on what may fall back; of another scope, or without bounds, itself.

    Within the bounds, what keeps a node from DLA becomes a note, and the verdict is ``with GPU fallback``. Nothing
    else is excused: a finding about the network as a whole stays, and so does a network of which nothing runs on DLA.

    Args:
        bounds: by quantity (``nodes``, ``subgraphs``, ``bytes``) the most that is accepted.
    """
    placement = report.placement
    if not bounds or placement is None or not placement.fallbacks:
        return report
    refused = _refused(placement, bounds)
    if refused:
        return replace(report, fallback=f"not within --max-fallback: {'; '.join(refused)}")
    findings = tuple(map(_noted, report.findings))
    return replace(report, findings=findings, accepted=True, fallback=words(placement))


def words(placement: Placement) -> str:
    """``234 of 237 nodes on DLA, 3 subgraphs, 136 bytes cross``."""
    nodes = len(placement.dla) + len(placement.fallbacks)
    return (
        f"{len(placement.dla)} of {counted(nodes, 'node')} on DLA, {counted(placement.subgraphs, 'subgraph')}, "
        f"{crossing(placement)}"
    )


def crossing(placement: Placement) -> str:
    """Bytes that cross, in words."""
    if placement.bytes_crossing is None:
        return f"bytes that cross unknown for {counted(placement.crossing_unknown, 'tensor')}"
    return f"{counted(placement.bytes_crossing, 'byte')} cross"


def _refused(placement: Placement, bounds: Mapping[str, int]) -> list[str]:
    """What is beyond the bounds, or no matter of them."""
    found = [f"{rule} is about the network, whatever falls back" for rule in placement.whole]
    if not placement.dla:
        found.append("nothing runs on DLA")
    values = {
        "nodes": (len(placement.fallbacks), counted(len(placement.fallbacks), "node") + " off DLA"),
        "subgraphs": (placement.subgraphs, counted(placement.subgraphs, "subgraph")),
        "bytes": (placement.bytes_crossing, crossing(placement)),
    }
    for quantity, most in bounds.items():
        value, said = values[quantity]
        if value is None or value > most:
            found.append(f"{said}, at most {most:,}")
    return found


def _noted(finding: Finding) -> Finding:
    if finding.verdict == "note" or not finding.node:
        return finding
    return replace(finding, verdict="note", message=f"{finding.message} (on the GPU, within --max-fallback)")
