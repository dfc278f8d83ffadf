"""Findings that say the same of many nodes, as one group; what people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Group:
    """Findings of one rule about one layer type.

    Attributes:
        first: the first of them.
        places: node and module of each.
    """

    first: Mapping[str, Any]
    places: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of findings."""
        return len(self.places)


def grouped(findings: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Findings grouped by verdict, rule and layer type, in order of appearance."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for finding in findings:
        found.setdefault((finding["verdict"], finding["rule"], finding["layer"]), []).append(finding)
    return [Group(group[0], tuple(place(finding) for finding in group)) for group in found.values()]


def place(finding: Mapping[str, Any]) -> str:
    """Where a finding is: the node, and the PyTorch module it came from."""
    if not finding["node"]:
        return "the network"
    return f"{finding['node']} (in {finding['module']})" if finding["module"] else str(finding["node"])


def places(group: Group, shown: int) -> str:
    """The first places of a group in words."""
    rest = group.count - shown
    return ", ".join(group.places[:shown]) + (f" and {rest} more" if rest > 0 else "")
