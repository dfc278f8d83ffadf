"""The report as one self-contained HTML file: no network access, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from csa_deploy import units
from csa_deploy.levels import LEVELS
from csa_deploy.pages import html_templates
from csa_deploy.records.loadgen import NO_SUBMISSION
from csa_deploy.records.report import ReportData
from csa_deploy.report import tasks, views
from csa_deploy.report.charts import accuracy, detection, latency, layers, precision
from csa_deploy.report.charts.network import network
from csa_deploy.report.labels import label_of, size_of, timed_on
from csa_deploy.report.not_measured import by_reason
from csa_deploy.report.verdict import word_of

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_BYTES = 3_000_000
TEMPLATES = Path(__file__).parent / "templates"
CHARTS = (
    accuracy.blame,
    accuracy.errors,
    accuracy.over_frames,
    accuracy.pareto,
    detection.boxes,
    detection.precision_recall,
    latency.distributions,
    latency.growth,
    latency.trend,
    layers.bars,
    layers.roofline,
    precision.calibration,
    precision.choices,
)
_FILTERS: tuple[Callable[..., str], ...] = (
    units.beside,
    units.bound,
    units.counted,
    units.decibel,
    units.duration,
    units.giga,
    units.metric,
    units.milliseconds,
    units.percent,
    units.scientific,
    units.size,
    units.span,
    units.thousands,
)


def page_of(data: ReportData, pictures: dict[str, str]) -> str:
    """The page, with one graph only where all of them would make it larger than 3 MB; see :func:`render`."""
    page = render(data, pictures)
    return page if len(page.encode()) < MOST_BYTES else render(data, pictures, most_graphs=1)


def render(data: ReportData, pictures: dict[str, str], *, most_graphs: int | None = None) -> str:
    """The page for a data object of :func:`csa_deploy.report.data.collect`.

    Args:
        data: every number on the page comes from it; the page carries it as well.
        pictures: data URLs of samples by identity.
        most_graphs: draw so many graphs with their layers; None for all.
    """
    from markupsafe import Markup

    # Network names, file names and messages come from outside, so everything is escaped; charts escape their own text.
    environment = html_templates(TEMPLATES)
    for shown in _FILTERS:
        environment.filters[shown.__name__] = shown
    environment.filters["label"] = label_of
    environment.filters["word"] = word_of
    environment.filters["size_of"] = size_of
    environment.filters["timed_on"] = timed_on
    environment.filters["commands"] = _commands
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, sort_keys=True, default=str)
    return environment.get_template("report.html.j2").render(
        d=data,
        records=data.records,
        pictures=pictures,
        views=views,
        levels=LEVELS,
        tasks=tasks,
        slowdown=units.slowdown,
        short=lambda value: units.milliseconds(value).removesuffix(" ms"),
        reference=data.reference,
        no_submission=NO_SUBMISSION,
        missing=by_reason(data.not_measured),
        charts=SimpleNamespace(**{c.__name__: _marked(c) for c in CHARTS}),
        graphs=[_graph(data, label) for label in views.profiled(data)[:most_graphs]],
        not_drawn=views.profiled(data)[most_graphs:] if most_graphs else [],
        data=Markup(embedded(data.to_json())),  # noqa: S704 (see there)
        css=Markup(_file("style.css")),  # noqa: S704
        js=Markup(_file("page.js")),  # noqa: S704
    )


def _graph(data: ReportData, label: str) -> dict[str, Any]:
    """What the parts on layers and on the graph show of one graph."""
    from markupsafe import Markup

    rows = views.slowest(data, label)
    layers_only = views.layers_of(rows, data)
    return {
        "label": label,
        "rows": rows,
        "layers": layers_only,
        "left_out": len(rows) - len(layers_only),
        "share_left_out": 1.0 - sum(row.share for row in layers_only),
        "timed": any(row.time_us for row in rows),
        "drawing": Markup(network(views.drawn(data, label))),  # noqa: S704 (escapes its text)
    }


def embedded(data: dict[str, Any]) -> str:
    """JSON that may stand inside a script element: no character in it can end the element."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _commands(text: str) -> Markup:
    """Words with what stands between backticks set as code."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else p for n, p in enumerate(parts))


def _marked(chart: Any) -> Any:
    """The chart in a box that scrolls sideways where the window is narrow."""
    from markupsafe import Markup

    def draw(*arguments: Any) -> Markup:
        drawn = chart(*arguments)
        return Markup(f'<div class="chart-scroll">{drawn}</div>' if drawn else "")  # noqa: S704 (escapes its text)

    return draw


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
