"""The handful of figures at the top of the page."""

from __future__ import annotations

from typing import Any

from csa_deploy import units
from csa_deploy.metrics.table import ordered
from csa_deploy.report.labels import label_of

Tile = dict[str, str]


def tiles(data: dict[str, Any]) -> list[Tile]:
    """Each with ``name``, ``value`` and ``note``; only what was measured."""
    rows = {row["label"]: row for row in data["rows"]}
    found = [_accuracy(data, rows), _work(rows), _weights(rows), _latency(data, rows), _evidence(data)]
    return [tile for tile in found if tile]


def _lowest(rows: dict[str, Any]) -> str | None:
    return next((p for p in ("int8", "fp16", "fp32") if p in rows and rows[p]["metrics"]), None)


def _accuracy(data: dict[str, Any], rows: dict[str, Any]) -> Tile | None:
    label = _lowest(rows)
    if label is None:
        return None
    metrics, samples = rows[label]["metrics"], data["records"]["verify"]["data"]["samples"]
    found = [m for m in ordered() if m.heading and metrics.get(m.name) is not None and (m.labels or m.of == "tensor")]
    if not found:
        return None
    metric, own = found[0].name, found[0].beside
    against = f"reference {units.metric(metrics.get(own), own)}" if own else "against the reference"
    low, high = rows[label]["intervals"].get(metric) or (None, None)
    sure = units.span(low, high, lambda end: units.metric(end, metric))
    return {
        "name": f"{found[0].heading}, {label_of(label)}",
        "value": units.metric(metrics[metric], metric),
        "note": f"{against}, {units.counted(samples, 'sample')}, 95 % interval {sure}",
    }


def _work(rows: dict[str, Any]) -> Tile | None:
    if "fp32" not in rows or not rows["fp32"]["macs"]:
        return None
    before = rows["exported"]["macs"] if "exported" in rows else None
    return {
        "name": "multiply-accumulates",
        "value": units.giga(rows["fp32"]["macs"]),
        "note": f"{units.giga(before)} as exported" if before else "per inference",
    }


def _weights(rows: dict[str, Any]) -> Tile | None:
    label = _lowest(rows) or ("fp32" if "fp32" in rows else None)
    if label is None or rows[label]["bytes"] is None:
        return None
    before = f"{units.size(rows['exported']['bytes'])} as exported" if "exported" in rows else ""
    return {"name": f"weights, {label_of(label)}", "value": units.size(rows[label]["bytes"]), "note": before}


def _latency(data: dict[str, Any], rows: dict[str, Any]) -> Tile | None:
    """An engine's median where one ran, else the FP32 graph's, named as what it is."""
    engines = [label for label in rows if label.startswith("engine") and rows[label]["latency_ms"]]
    label = engines[-1] if engines else "fp32"
    if label not in rows or not rows[label]["latency_ms"]:
        return None
    measured_by = {m["label"]: m["evidence"] for m in data["records"]["profile"]["measured"]}
    where = measured_by.get(label, "") if engines else "this machine's CPU, not the target"
    value = units.milliseconds(rows[label]["latency_ms"]["50"])
    return {"name": f"median, {label_of(label)}", "value": value, "note": where}


def _evidence(data: dict[str, Any]) -> Tile | None:
    """Restricted mode of what was built, only where it was asked for; it says where another graph was judged."""
    engines = data["records"].get("build", {}).get("engines", {})
    scopes = [scope for engine in engines.values() for scope in engine.get("scopes", [])]
    if not scopes:
        return None
    verdicts = {scope["verdict"] for scope in scopes}
    worst = next(v for v in ("denied", "unknown", "with GPU fallback", "allowed") if v in verdicts)
    levels = ", ".join(sorted({f"{s['scope']}: {s['level']}" for s in scopes}))
    others = sorted({s["scope"] for s in scopes if s.get("of")})
    note = f"evidence {levels}" + (f"; {', '.join(others)}: not of the graphs that were built" if others else "")
    return {"name": "restricted mode" + ("" if others else ", as built"), "value": worst, "note": note}
