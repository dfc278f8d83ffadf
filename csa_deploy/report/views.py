"""Rows and figures of the page, joined from the one data object; nothing is measured or decided here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from csa_deploy import units
from csa_deploy.graph.operators import QUANTIZERS
from csa_deploy.metrics.table import ordered as in_order
from csa_deploy.records.check import Finding, ScopeRecord, worst
from csa_deploy.records.device import EngineProfile
from csa_deploy.records.localization import Localization
from csa_deploy.records.profile import PERCENTILE_OF, LatencySummary, NodeCost
from csa_deploy.records.report import ReportData, Row
from csa_deploy.report.labels import label_of, rank
from csa_deploy.results import shallow

V = TypeVar("V")
VERDICTS = ("denied", "unknown", "allowed", "note")
BESIDE_MEDIAN = [f"{percentile:g}" for percentile in PERCENTILE_OF.values() if percentile != 50]


@dataclass(frozen=True, kw_only=True)
class ShownNode(NodeCost):
    """A node of a graph as the page shows it.

    Attributes:
        time_us: on this machine's CPU, where it was measured.
        share: of the time of all nodes.
        error: that its module adds, where known.
    """

    time_us: float | None = None
    share: float = 0.0
    error: float | None = None


@dataclass
class Module:
    """Nodes of one PyTorch module: how many, time and multiply-accumulates; None where one's are unknown."""

    module: str
    nodes: int = 0
    macs: int | None = 0
    time_us: float | None = 0.0
    share: float = 0.0


def latency(data: ReportData) -> dict[str, LatencySummary]:
    """Statistics of everything that was timed, graphs before engines."""
    return ordered(data.profiled.latency) if data.profiled else {}


def profiled(data: ReportData) -> list[str]:
    """Labels of the graphs whose layers are shown, the lowest precision first; the plain export only if it is alone."""
    labels = sorted(data.records.profile.cost, key=rank, reverse=True) if data.records.profile else []
    return [label for label in labels if label != "exported"] or labels


def nodes(data: ReportData, label: str) -> list[ShownNode]:
    """Nodes of a graph in its order, with the time of each on this machine's CPU where it was measured."""
    record, measured = data.records.profile, data.profiled
    if record is None or measured is None or label not in record.cost:
        return []
    times = measured.layers[label].times_us if label in measured.layers else {}
    total = sum(times.values())
    return [
        ShownNode(
            **shallow(node), time_us=times.get(node.name), share=times.get(node.name, 0.0) / total if total else 0.0
        )
        for node in record.cost[label].nodes
    ]


def slowest(data: ReportData, label: str) -> list[ShownNode]:
    """The same by time, then by multiply-accumulates; each that is not known after those that are."""
    return sorted(nodes(data, label), key=lambda n: (_descending(n.time_us), _descending(n.macs)))


def _descending(value: float | None) -> tuple[bool, float]:
    return (True, 0.0) if value is None else (False, -value)


def modules(data: ReportData, label: str, depth: int = 2) -> list[Module]:
    """Time and multiply-accumulates by PyTorch module, cut at ``depth`` path elements."""
    found: dict[str, Module] = {}
    for node in nodes(data, label):
        name = ".".join(node.module.split(".")[:depth]) or "(no module)"
        row = found.setdefault(name, Module(name))
        row.nodes += 1
        row.macs = None if row.macs is None or node.macs is None else row.macs + node.macs
        row.time_us = None if row.time_us is None or node.time_us is None else row.time_us + node.time_us
        row.share += node.share
    return sorted(found.values(), key=lambda row: (_descending(row.time_us), _descending(row.macs)))


def engine_layers(engine: EngineProfile) -> list[ShownNode]:
    """Layers of an engine as the charts take them, slowest first; instead of an operator, each has its precision."""
    rows = [
        ShownNode(
            name=layer.name,
            op=layer.precision or "no node",
            module=", ".join(layer.modules),
            precision=layer.precision,
            macs=None,
            operations=layer.operations,
            bytes=layer.bytes,
            shape=None,
            inputs=(),
            time_us=layer.time_us,
            share=layer.share,
        )
        for layer in engine.layers or ()
    ]
    return sorted(rows, key=lambda row: -(row.time_us or 0.0))


def drawn(data: ReportData, label: str) -> list[ShownNode]:
    """Nodes of a graph as the page draws them: without Q/DQ, each with the error that its module adds, where known."""
    rows = layers_of(nodes(data, label), data)
    added = {row.module: row.error_added for found in blame(data) if found.candidate == label for row in found.rows}
    return [replace(row, error=added.get(row.module)) for row in rows]


def layers_of(rows: Sequence[ShownNode], data: ReportData) -> list[ShownNode]:
    """Nodes that do the network's work: Q/DQ, which an engine fuses, and what only types weights are read past."""
    inputs = (
        {math.prod(extent or 0 for extent in spec.shape) for spec in data.records.export.inputs}
        if data.records.export
        else set()
    )
    through = {row.name: row.inputs for row in rows if row.op in QUANTIZERS}

    def sources(names: Sequence[str]) -> list[str]:
        return [source for name in names for source in (sources(through[name]) if name in through else [name])]

    kept = []
    for row in rows:
        if row.name in through:
            continue
        read = tuple(sources(row.inputs))
        # The cost has no constants, so a cast of a weight looks like one of a network input, but for its size.
        if not read and row.op == "Cast" and math.prod(row.shape or ()) not in inputs:
            through[row.name] = ()
            continue
        kept.append(replace(row, inputs=read))
    return kept


def ordered(found: Mapping[str, V]) -> dict[str, V]:
    """The same by label or precision: exported, FP32, FP16, INT8, then engines."""
    return {label: found[label] for label in sorted(found, key=rank)}


def blame(data: ReportData) -> list[Localization]:
    """Per candidate the modules that its error comes from, where the comparison looked for them; the guilty first."""
    found = data.records.verify.localization if data.records.verify else ()
    return sorted(found, key=lambda explained: not explained.culprits)


def evidence(data: ReportData) -> dict[str, list[str]]:
    """Labels of what was timed, by where and how."""
    found: dict[str, list[str]] = defaultdict(list)
    for label, said in data.records.profile.evidence.items() if data.records.profile else ():
        found[said].append(label)
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


def accuracy_columns(data: ReportData) -> list[tuple[str, str]]:
    """Heading and metric of the accuracy columns that any row fills: no top-1 where there are no labels or classes.

    The maps of a detector hold scores and distances, so that no pixel has a class: what is said of these is left out.
    """
    there = {metric for row in data.rows for metric in row.metrics}
    hidden = {"map"} if data.config.get("task") == "detection" else set()
    shown = [m for m in in_order() if m.heading and m.name in there and m.of not in hidden]
    return [(m.heading.format(data.reference), m.name) for m in shown]


class Tile(NamedTuple):
    """A figure at the top of the page."""

    name: str
    value: str
    note: str


def tiles(data: ReportData) -> list[Tile]:
    """The handful of figures at the top of the page; only what was measured."""
    rows = {row.label: row for row in data.rows}
    lowest = next((rows[p] for p in ("int8", "fp16", "fp32") if p in rows and rows[p].metrics), None)
    exported, fp32 = rows.get("exported"), rows.get("fp32")
    found = [lowest and _accuracy(data, lowest)]
    if fp32 and fp32.macs:
        note = f"{units.giga(exported.macs)} as exported" if exported and exported.macs else "per inference"
        found.append(Tile("multiply-accumulates", units.giga(fp32.macs), note))
    weighed = lowest or fp32
    if weighed and weighed.bytes is not None:
        note = f"{units.size(exported.bytes)} as exported" if exported else ""
        found.append(Tile(f"weights, {label_of(weighed.label)}", units.size(weighed.bytes), note))
    return [tile for tile in (*found, _latency(data, rows), _evidence(data)) if tile]


def _accuracy(data: ReportData, row: Row) -> Tile | None:
    metrics, verified = row.metrics, data.records.verify
    found = [m for m in in_order() if m.heading and metrics.get(m.name) is not None and (m.labels or m.of == "tensor")]
    if not found or verified is None:
        return None
    metric, own = found[0].name, found[0].beside
    against = f"reference {units.metric(metrics.get(own), own)}" if own else "against the reference"
    low, high = row.intervals.get(metric) or (None, None)
    sure = units.span(low, high, lambda end: units.metric(end, metric))
    note = f"{against}, {units.counted(verified.data.samples, 'sample')}, 95 % interval {sure}"
    return Tile(f"{found[0].heading}, {label_of(row.label)}", units.metric(metrics[metric], metric), note)


def _latency(data: ReportData, rows: Mapping[str, Row]) -> Tile | None:
    """An engine's median where one ran, else the FP32 graph's, named as what it is."""
    engines = [label for label, row in rows.items() if label.startswith("engine") and row.latency_ms]
    label = engines[-1] if engines else "fp32"
    timed = rows[label].latency_ms if label in rows else None
    if not timed or data.records.profile is None:
        return None
    where = data.records.profile.evidence.get(label, "") if engines else "this machine's CPU, not the target"
    return Tile(f"median, {label_of(label)}", units.milliseconds(timed["50"]), where)


def _evidence(data: ReportData) -> Tile | None:
    """Restricted mode of what was built, only where it was asked for; it says where another graph was judged."""
    engines = data.records.build.engines.values() if data.records.build else ()
    scopes = [scope for engine in engines for scope in engine.scopes]
    if not scopes:
        return None
    levels = ", ".join(sorted({f"{scope.scope}: {scope.level}" for scope in scopes}))
    others = sorted({scope.scope for scope in scopes if scope.of})
    note = f"evidence {levels}" + (f"; {', '.join(others)}: not of the graphs that were built" if others else "")
    return Tile("restricted mode" + ("" if others else ", as built"), worst({s.verdict for s in scopes}), note)
