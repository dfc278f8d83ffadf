"""Rows of the page, joined from the one data object; nothing is measured or decided here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from csa_deploy.graph.operators import QUANTIZERS
from csa_deploy.metrics.table import ordered as in_order
from csa_deploy.records.check import Finding, ScopeRecord
from csa_deploy.report.labels import rank

Row = dict[str, Any]
VERDICTS = ("denied", "unknown", "allowed", "note")


def latency(data: Row) -> dict[str, Row]:
    """Statistics of everything that was timed, graphs before engines."""
    return ordered(data["measurements"].get("profile", {}).get("latency", {}))


def profiled(data: Row) -> list[str]:
    """Labels of the graphs whose layers are shown, the lowest precision first; the plain export only if it is alone."""
    labels = sorted(data["records"].get("profile", {}).get("cost", {}), key=rank, reverse=True)
    return [label for label in labels if label != "exported"] or labels


def nodes(data: Row, label: str) -> list[Row]:
    """Nodes of a graph in its order, with the time of each on this machine's CPU where it was measured."""
    cost = data["records"].get("profile", {}).get("cost", {}).get(label)
    if cost is None:
        return []
    times = data["measurements"]["profile"].get("layers", {}).get(label, {}).get("times_us", {})
    total = sum(times.values())
    return [
        {**node, "time_us": times.get(node["name"]), "share": times.get(node["name"], 0.0) / total if total else 0.0}
        for node in cost["nodes"]
    ]


def slowest(data: Row, label: str) -> list[Row]:
    """The same by time, then by multiply-accumulates; each that is not known after those that are."""
    return sorted(nodes(data, label), key=lambda n: (_descending(n["time_us"]), _descending(n["macs"])))


def _descending(value: float | None) -> tuple[bool, float]:
    return (True, 0.0) if value is None else (False, -value)


def modules(data: Row, label: str, depth: int = 2) -> list[Row]:
    """Time and multiply-accumulates by PyTorch module, cut at ``depth`` path elements; None where one's are unknown."""
    found: dict[str, Row] = defaultdict(lambda: {"nodes": 0, "macs": 0, "time_us": 0.0, "share": 0.0})
    for node in nodes(data, label):
        row = found[".".join(node["module"].split(".")[:depth]) or "(no module)"]
        row["nodes"] += 1
        for key in ("macs", "time_us"):
            row[key] = None if row[key] is None or node[key] is None else row[key] + node[key]
        row["share"] += node["share"]
    rows = [{"module": name, **row} for name, row in found.items()]
    return sorted(rows, key=lambda row: (_descending(row["time_us"]), _descending(row["macs"])))


def engine_layers(engine: Row) -> list[Row]:
    """Layers of an engine as the charts take them, slowest first."""
    rows = [
        {
            **layer,
            "op": layer["precision"] or "no node",
            "module": ", ".join(layer["modules"]),
            "intensity": layer["operations"] / layer["bytes"] if layer["operations"] and layer["bytes"] else None,
        }
        for layer in engine["layers"]
    ]
    return sorted(rows, key=lambda row: -row["time_us"])


def drawn(data: Row, label: str) -> list[Row]:
    """Nodes of a graph as the page draws them: without Q/DQ, each with the error that its module adds, where known."""
    rows = layers_of(nodes(data, label), data)
    added = {
        r["module"]: r["error_added"] for found in blame(data) if found["candidate"] == label for r in found["rows"]
    }
    return [{**row, "error": added[row["module"]]} if row["module"] in added else row for row in rows]


def layers_of(rows: list[Row], data: Row) -> list[Row]:
    """Nodes that do the network's work: Q/DQ, which an engine fuses, and what only types weights are read past."""
    inputs = {math.prod(i["shape"]) for i in data["records"].get("export", {}).get("inputs", [])}
    through = {row["name"]: row["inputs"] for row in rows if row["op"] in QUANTIZERS}

    def sources(names: list[str]) -> list[str]:
        return [source for name in names for source in (sources(through[name]) if name in through else [name])]

    kept = []
    for row in rows:
        if row["name"] in through:
            continue
        read = sources(row["inputs"])
        # The cost has no constants, so a cast of a weight looks like one of a network input, but for its size.
        if not read and row["op"] == "Cast" and math.prod(row["shape"] or ()) not in inputs:
            through[row["name"]] = []
            continue
        kept.append({**row, "inputs": read})
    return kept


def ordered(found: Row) -> Row:
    """The same by label or precision: exported, FP32, FP16, INT8, then engines."""
    return {label: found[label] for label in sorted(found, key=rank)}


def blame(data: Row) -> list[Row]:
    """Per candidate the modules that its error comes from, where the comparison looked for them; the guilty first."""
    found = data["records"].get("verify", {}).get("localization", [])
    return sorted(found, key=lambda explained: not explained["culprits"])


def evidence(data: Row) -> dict[str, list[str]]:
    """Labels of what was timed, by where and how."""
    found: dict[str, list[str]] = defaultdict(list)
    for measured in data["records"].get("profile", {}).get("measured", []):
        found[measured["evidence"]].append(measured["label"])
    return dict(found)


@dataclass
class RuleFound:
    """What one rule found at one set of places: its finding, the places, how often, and the scopes that say so."""

    finding: Finding
    places: tuple[str, ...]
    times: int
    scopes: list[str] = field(default_factory=list)


def by_rule(scopes: Sequence[ScopeRecord]) -> list[RuleFound]:
    """Findings of one rule, verdict and set of places as one, with the scopes that say so; denied before unknown."""
    found: dict[tuple[Any, ...], RuleFound] = {}
    for scope in scopes:
        groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
        for finding in scope.findings:
            groups[finding.verdict, finding.rule].append(finding)
        for (verdict, rule), group in groups.items():
            places = tuple(dict.fromkeys(p for f in group if (p := f.module or f.node)))
            row = RuleFound(group[0], places, len(group))
            found.setdefault((verdict, rule, places), row).scopes.append(scope.scope)
    return sorted(found.values(), key=lambda row: VERDICTS.index(row.finding.verdict))


def accuracy_columns(data: Row, reference: str) -> list[tuple[str, str]]:
    """Heading and metric of the accuracy columns that any row fills: no top-1 where there are no labels or classes.

    The maps of a detector hold scores and distances, so that no pixel has a class: what is said of these is left out.
    """
    there = {metric for row in data["rows"] for metric in row["metrics"]}
    hidden = {"map"} if data.get("config", {}).get("task") == "detection" else set()
    shown = [m for m in in_order() if m.heading and m.name in there and m.of not in hidden]
    return [(m.heading.format(reference), m.name) for m in shown]
