"""The report as one self-contained HTML file: no network access, no scripts from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from csa_deploy import units
from csa_deploy.report.console import NAMES

TEMPLATES = Path(__file__).parent / "templates"


def render(data: dict[str, Any], pictures: dict[str, str]) -> str:
    """The page for a data object of :func:`csa_deploy.report.data.collect`.

    Args:
        data: every number on the page comes from it.
        pictures: data URLs of samples by identity.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Network names, file names and messages come from outside, so everything is escaped.
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    for name in ("percent", "decibel", "scientific", "milliseconds", "size", "giga"):
        environment.filters[name] = getattr(units, name)
    environment.filters["label"] = lambda label: NAMES.get(label, label)
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, sort_keys=True, default=str)
    environment.filters["strip"] = latency_strip
    return environment.get_template("report.html.j2").render(d=data, pictures=pictures)


def latency_strip(latency: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Positions in percent of the widest sample, for drawing every timed inference as one mark."""
    longest = max((max(m["samples_ms"]) for m in latency.values()), default=1.0)
    return [
        {
            "label": label,
            "marks": [round(100 * v / longest, 2) for v in m["samples_ms"]],
            "median": round(100 * m["percentiles_ms"]["50"] / longest, 2),
            "longest_ms": longest,
        }
        for label, m in latency.items()
    ]
