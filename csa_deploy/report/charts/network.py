"""The network's graph as SVG: layers from top to bottom, wrapped into columns; the page colours and zooms it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from csa_deploy.report.charts.layers import kind_of
from csa_deploy.report.charts.svg import text

if TYPE_CHECKING:
    from csa_deploy.report.views import ShownNode

BOX_WIDTH, BOX_HEIGHT = 132, 28
STEP_X, STEP_Y = 150, 46
COLUMN_GAP = 40
ASPECT = 2.0
SWEEPS = 4

Place = tuple[float, float]


def network(rows: Sequence[ShownNode]) -> str:
    """Draw a graph.

    Args:
        rows: nodes in the graph's order.
    """
    if not rows:
        return ""
    places, width, height = layout(rows)
    parts = [_edge(places[source], places[row.name]) for row in rows for source in row.inputs if source in places]
    parts += [_box(row, places[row.name]) for row in rows]
    label = f"Graph of {len(rows)} nodes; the table of layers has the same figures"
    size = f'viewBox="0 0 {width:g} {height:g}" data-width="{width:g}" data-height="{height:g}"'
    return f'<svg {size} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def layout(rows: Sequence[ShownNode]) -> tuple[dict[str, Place], float, float]:
    """Top left corner of every node, and the size of the whole."""
    layers = _layers(rows)
    _untangle(layers, rows)
    height = max(4, math.ceil(math.sqrt(len(layers) * STEP_X * _mean_width(layers) / (STEP_Y * ASPECT))))
    places: dict[str, Place] = {}
    left = 0.0
    for start in range(0, len(layers), height):
        column = layers[start : start + height]
        widest = max(len(layer) for layer in column)
        for depth, layer in enumerate(column):
            shift = (widest - len(layer)) * STEP_X / 2
            for index, name in enumerate(layer):
                places[name] = (left + shift + index * STEP_X + 10, depth * STEP_Y + 10)
        left += widest * STEP_X + COLUMN_GAP
    return places, left - COLUMN_GAP + 10, min(height, len(layers)) * STEP_Y + 10


def _mean_width(layers: Sequence[Sequence[str]]) -> float:
    return 0.5 + sum(len(layer) for layer in layers) / len(layers)


def _layers(rows: Sequence[ShownNode]) -> list[list[str]]:
    """Nodes by their longest distance from an input."""
    depth: dict[str, int] = {}
    for row in rows:
        depth[row.name] = 1 + max((depth[i] for i in row.inputs if i in depth), default=-1)
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name, at in depth.items():
        layers[at].append(name)
    return layers


def _untangle(layers: list[list[str]], rows: Sequence[ShownNode]) -> None:
    """Order each layer by the mean place of its neighbours, a few times down and up."""
    above = {row.name: list(row.inputs) for row in rows}
    below: dict[str, list[str]] = {}
    for row in rows:
        for source in row.inputs:
            below.setdefault(source, []).append(row.name)
    for sweep in range(SWEEPS):
        neighbours = above if sweep % 2 == 0 else below
        where = {name: (index + 0.5) / len(layer) for layer in layers for index, name in enumerate(layer)}
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            layer.sort(key=lambda name: _mean([where[n] for n in neighbours.get(name, []) if n in where], where[name]))
            where.update({name: (index + 0.5) / len(layer) for index, name in enumerate(layer)})


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _edge(source: Place, target: Place) -> str:
    x1, y1 = source[0] + BOX_WIDTH / 2, source[1] + BOX_HEIGHT
    x2, y2 = target[0] + BOX_WIDTH / 2, target[1]
    if y2 - y1 > STEP_Y and abs(x2 - x1) < BOX_WIDTH:  # past boxes in between, not through them
        side = max(x1, x2) + BOX_WIDTH / 2 + 16
        return f'<path d="M{x1:g} {y1:g}C{side + 14:g} {y1 + 18:g} {side + 14:g} {y2 - 18:g} {x2:g} {y2:g}"/>'
    if y2 > y1:
        bend = (y2 - y1) / 2
        return f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"/>'
    x1, y1, x2, y2 = source[0] + BOX_WIDTH, y1 - BOX_HEIGHT / 2, target[0], y2 + BOX_HEIGHT / 2
    return f'<path class="far" d="M{x1:g} {y1:g}C{x1 + 30:g} {y1:g} {x2 - 30:g} {y2:g} {x2:g} {y2:g}"/>'


def _box(row: ShownNode, place: Place) -> str:
    x, y = place
    shown = ("op", "precision", "macs", "bytes", "time_us", "error", "module", "name")
    values: dict[str, Any] = {name: getattr(row, name) for name in shown}
    values["shape"] = " x ".join(str(e) for e in row.shape or ())
    data = "".join(f' data-{k.replace("_", "-")}="{escape(str(v))}"' for k, v in values.items() if v is not None)
    return (
        f'<g class="node {kind_of(row.op)}"{data}><rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="5"/>{text(x + BOX_WIDTH / 2, y + 18, row.op[:17], anchor="middle")}</g>'
    )
