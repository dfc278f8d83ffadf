"""The report as one self-contained HTML file: no network access, nothing from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from csa_deploy import units
from csa_deploy.report import views
from csa_deploy.report.charts import accuracy, latency, layers
from csa_deploy.report.charts.network import network
from csa_deploy.report.labels import label_of
from csa_deploy.report.tiles import tiles

TEMPLATES = Path(__file__).parent / "templates"
CHARTS = (
    accuracy.calibration,
    accuracy.errors,
    accuracy.pareto,
    latency.distributions,
    latency.growth,
    latency.trend,
    layers.bars,
    layers.roofline,
)


def render(data: dict[str, Any], pictures: dict[str, str]) -> str:
    """The page for a data object of :func:`csa_deploy.report.data.collect`.

    Args:
        data: every number on the page comes from it; the page carries it as well.
        pictures: data URLs of samples by identity.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    # Network names, file names and messages come from outside, so everything is escaped; charts escape their own text.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "decibel", "scientific", "milliseconds", "size", "giga", "thousands"):
        environment.filters[name] = getattr(units, name)
    environment.filters["label"] = label_of
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, sort_keys=True, default=str)
    drawn_label, drawn_rows = views.drawn(data)
    return environment.get_template("report.html.j2").render(
        d=data,
        pictures=pictures,
        views=views,
        tiles=tiles(data),
        charts=SimpleNamespace(**{c.__name__: _marked(c) for c in CHARTS}),
        drawing=Markup(network(drawn_rows)),  # noqa: S704 (escapes its text)
        drawn_label=drawn_label,
        drawn_rows=drawn_rows,
        data=Markup(embedded(data)),  # noqa: S704 (see there)
        css=Markup(_file("style.css")),  # noqa: S704
        js=Markup(_file("page.js")),  # noqa: S704
    )


def embedded(data: dict[str, Any]) -> str:
    """JSON that may stand inside a script element: no character in it can end the element."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _marked(chart: Any) -> Any:
    """The chart in a box that scrolls sideways where the window is narrow."""
    from markupsafe import Markup

    def draw(*arguments: Any) -> Markup:
        drawn = chart(*arguments)
        return Markup(f'<div class="chart-scroll">{drawn}</div>' if drawn else "")  # noqa: S704 (escapes its text)

    return draw


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
