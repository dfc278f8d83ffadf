"""Latency: every timed inference as a dot, percentiles and their intervals over it; growth with batch and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from csa_deploy.records.profile import LatencySummary
from csa_deploy.records.report import PastProfile
from csa_deploy.records.sweep import SweepPoint
from csa_deploy.report.charts.svg import Scale, line, number, svg, text, title, x_axis, y_axis
from csa_deploy.report.labels import label_of, rank

_WIDTH, _LEFT, RIGHT, ROW = 960, 150, 20, 58
MOST_DOTS = 600
LOG_FROM = 12
LETTER = 6.4  # pixels of a letter of a figure


def distributions(latency: Mapping[str, LatencySummary], width: int = _WIDTH) -> str:
    """One row per graph or engine; a log scale where the slowest is far from the fastest."""
    if not latency:
        return ""
    low = min(m.min_ms for m in latency.values())
    high = max(m.max_ms for m in latency.values())
    log = high > LOG_FROM * low > 0
    scale = Scale(low * 0.9 if log else 0.0, high * 1.05, _LEFT, width - RIGHT, log)
    bottom = 14 + ROW * len(latency)
    parts = x_axis(scale, 8, bottom, "ms, logarithmic" if log else "ms")
    for row, (label, summary) in enumerate(latency.items()):
        parts += _row(label, summary, scale, 14 + ROW * row)
    return svg(width, bottom + 38, f"Latency of {len(latency)} graphs or engines, every timed inference", parts)


def _row(label: str, summary: LatencySummary, scale: Scale, top: float) -> list[str]:
    middle = top + ROW / 2
    samples = summary.samples_ms
    # Beyond so many dots no eye can tell more: every k-th, and the slowest always.
    shown = list(samples[:: 1 + len(samples) // MOST_DOTS])
    if summary.max_ms not in shown:
        shown.append(summary.max_ms)
    parts = [text(_LEFT - 14, middle + 5, label_of(label), kind="name", anchor="end")]
    for index, value in enumerate(shown):
        y = middle - 11 + (index * 7919 % 25)  # spread over the row, the same way each time
        parts.append(f'<circle cx="{scale(value):g}" cy="{y:g}" r="2.6" class="dot"/>')
    low, high = summary.intervals_ms["50"] or (None, None)
    if low is not None and high is not None:
        x1, width = scale(low), max(scale(high) - scale(low), 1)
        tip = title(f"99 % interval of the median: {low:.3f} to {high:.3f} ms")
        parts.append(
            f'<rect x="{x1:g}" y="{middle - 16:g}" width="{width:g}" height="34" class="interval">{tip}</rect>'
        )
    return [*parts, *_percentiles(summary.percentiles_ms, scale, top)]


def _percentiles(percentiles: Mapping[str, float | None], scale: Scale, top: float) -> list[str]:
    """Lines at the percentiles, the median's and the 99th's with their figures where these do not collide."""
    parts, free = [], 0.0
    middle = top + ROW / 2
    for percentile in ("50", "90", "99", "99.9"):
        value = percentiles.get(percentile)
        if value is None:
            continue
        x = scale(value)
        parts.append(line(x, middle - 16, x, middle + 18, "median" if percentile == "50" else "percentile"))
        said = f"p{percentile} {number(round(value, 2))}"
        edge = x > scale.end - 70
        start = x - 4 - LETTER * len(said) if edge else x + 4
        if percentile in ("50", "99") and start >= free:
            parts.append(text(x - 4 if edge else x + 4, top + 8, said, kind="mark", anchor="end" if edge else "start"))
            free = start + LETTER * len(said) + 6
    return parts


def growth(rows: Sequence[SweepPoint], key: Literal["batch", "side"], unit: str) -> str:
    """Median with its interval against batch or size, and the line through the first point that proportion gives."""
    points = [(getattr(r, key), r.median_ms, r.interval_ms) for r in rows if r.median_ms is not None]
    if len(points) < 2:
        return ""
    x = Scale(0, max(at for at, _, _ in points) * 1.06, 60, 460)
    y = Scale(0, max((interval or (median,))[-1] for _, median, interval in points) * 1.1, 210, 26)
    parts = [*x_axis(x, 26, 210, unit), *y_axis(y, 60, 460, "ms")]
    path = " ".join(f"{x(at):g},{y(median):g}" for at, median, _ in points)
    parts.append(f'<polyline points="{path}" class="trend"/>')
    for at, median, interval in points:
        if interval:
            parts.append(line(x(at), y(interval[0]), x(at), y(interval[1]), "median"))
        tip = title(f"{at}: {median:.2f} ms")
        parts.append(f'<circle cx="{x(at):g}" cy="{y(median):g}" r="4" class="point">{tip}</circle>')
    return svg(480, 246, f"Latency against {unit}", parts)


def trend(history: Sequence[PastProfile]) -> str:
    """Median of each graph over the runs of a workspace."""
    labels = sorted({label for entry in history for label in entry.median_ms}, key=rank)
    values = [v for entry in history for v in entry.median_ms.values()]
    if len(history) < 2 or not values:
        return ""
    x = Scale(0, len(history) - 1, 60, _WIDTH - 150)
    y = Scale(0, max(values) * 1.1, 190, 24)
    parts = y_axis(y, 60, _WIDTH - 150, "ms")
    for place, label in enumerate(labels):
        points = [(x(i), y(e.median_ms[label])) for i, e in enumerate(history) if label in e.median_ms]
        path = " ".join(f"{a:g},{b:g}" for a, b in points)
        parts.append(f'<polyline points="{path}" class="trend series{place % 6}"/>')
        parts += [f'<circle cx="{a:g}" cy="{b:g}" r="3.4" class="series{place % 6}"/>' for a, b in points]
        parts.append(
            f'<rect x="{_WIDTH - 138}" y="{28 + 22 * place}" width="12" height="12" class="series{place % 6}"/>'
        )
        parts.append(text(_WIDTH - 120, 38 + 22 * place, label_of(label), kind="mark"))
    for index in {0, len(history) - 1}:
        when = history[index].at[:16].replace("T", " ")
        parts.append(text(x(index), 212, when, kind="tick", anchor="start" if index == 0 else "end"))
    return svg(_WIDTH, 222, f"Median latency over {len(history)} runs", parts)
