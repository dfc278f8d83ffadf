"""Rows of the page, joined from the one data object; nothing is measured or decided here."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Row = dict[str, Any]


def profiled(data: Row) -> list[str]:
    """Labels of the graphs whose cost is known, the plain export last."""
    labels = list(data["records"].get("profile", {}).get("cost", {}))
    return sorted(labels, key=lambda label: label == "exported")


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
    """The same by time, then by multiply-accumulates."""
    return sorted(nodes(data, label), key=lambda n: (-(n["time_us"] or 0.0), -(n["macs"] or 0)))


def modules(data: Row, label: str, depth: int = 2) -> list[Row]:
    """Time and multiply-accumulates by PyTorch module, cut at ``depth`` path elements."""
    found: dict[str, Row] = defaultdict(lambda: {"nodes": 0, "macs": 0, "time_us": 0.0, "share": 0.0})
    for node in nodes(data, label):
        row = found[".".join(node["module"].split(".")[:depth]) or "(no module)"]
        row["nodes"] += 1
        row["macs"] += node["macs"] or 0
        row["time_us"] += node["time_us"] or 0.0
        row["share"] += node["share"]
    rows = [{"module": name, **row} for name, row in found.items()]
    return sorted(rows, key=lambda row: (-row["time_us"], -row["macs"]))


def drawn(data: Row) -> tuple[str, list[Row]]:
    """The graph that the page draws: of the lowest precision, without Q/DQ; times and errors are its own."""
    labels = profiled(data)
    label = next((p for p in ("fp16", "fp32", *labels) if p in labels), "")
    rows = nodes(data, label) if label else []
    added = {
        r["module"]: r["error_added"] for found in blame(data) if found["candidate"] == label for r in found["rows"]
    }
    for row in rows:
        if row["module"] in added:
            row["error"] = added[row["module"]]
    return label, rows


def blame(data: Row) -> list[Row]:
    """Per candidate the modules that its error comes from, where the comparison looked for them."""
    return list(data["records"].get("verify", {}).get("localization", []))


def by_rule(findings: list[Row]) -> list[Row]:
    """Findings of a scope, those of the same rule and verdict as one."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for finding in findings:
        groups[finding["rule"], finding["verdict"]].append(finding)
    return [
        {**group[0], "places": [f.get("module") or f.get("node") or "" for f in group]} for group in groups.values()
    ]


def interval(metrics_of: Row, metric: str) -> list[float] | None:
    """Confidence interval of a metric, where the comparison gave one."""
    found = metrics_of.get("intervals", {}).get(metric)
    return found.get("interval") if isinstance(found, dict) else found
