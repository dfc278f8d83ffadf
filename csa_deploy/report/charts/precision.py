"""INT8: calibration histograms with their thresholds, and the choices of layers that the search measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from csa_deploy.records.precision import SearchPoint
from csa_deploy.report.charts.svg import Scale, line, number, svg, text, title, x_axis, y_axis


def calibration(histogram: Mapping[str, Any], thresholds: Mapping[str, float], method: str) -> str:
    """Counts of the absolute values of a tensor (logarithmic), with all thresholds; that of ``method`` stands out."""
    counts, width = histogram["counts"], histogram["width"]
    most = max(counts, default=0)
    if not most or not width:
        return ""
    used_bins = max(index for index, count in enumerate(counts) if count) + 1
    x = Scale(0, max(width * used_bins, *thresholds.values()), 20, 460)
    bar = (x(width) - x(0)) * 0.9
    top = 14 * len(thresholds) + 8
    bottom = top + 96
    parts = x_axis(x, top, bottom, "absolute value")
    for index, count in enumerate(counts):
        if count:
            height = 90 * (0.05 + 0.95 * math.log1p(count) / math.log1p(most))
            where = f'x="{x(index * width):g}" y="{bottom - height:.1f}" width="{bar:.2f}" height="{height:.1f}"'
            parts.append(f'<rect {where} class="series0">{title(f"{count} values")}</rect>')
    # The largest on top, each with a line from its own name down: no line crosses a name.
    for place, (name, value) in enumerate(sorted(thresholds.items(), key=lambda item: -item[1])):
        used, y = name == method, 14 * place
        parts.append(line(x(value), y + 3, x(value), bottom, "median" if used else "percentile"))
        said = f"{name} {number(float(f'{value:.3g}'))}" + (" (used)" if used else "")
        left = x(value) < 180  # no room before the line
        at = x(value) + 4 if left else x(value) - 4
        parts.append(text(at, y + 12, said, kind="mark", anchor="start" if left else "end"))
    return svg(480, bottom + 36, "Histogram of absolute values with thresholds", parts)


def choices(points: Sequence[SearchPoint], chosen: SearchPoint | None, bound: float | None) -> str:
    """Signal-to-noise ratio against estimated latency, a point per choice of layers.

    Args:
        chosen: the one that was taken.
        bound: least ratio in dB that the budget allows, where it says so.
    """
    found = [
        (p, p.latency_ms, p.metrics["snr_db"])
        for p in points
        if p.latency_ms is not None and math.isfinite(p.metrics.get("snr_db", math.inf))
    ]
    if len(found) < 2:
        return ""
    times, ratios = [time for _, time, _ in found], [ratio for *_, ratio in found]
    edge = 0.06 * (max(times) - min(times)) or 0.1 * max(times)
    x = Scale(min(times) - edge, max(times) + edge, 60, 560)
    limits = [*ratios, *([bound] if bound is not None else [])]
    y = Scale(min(limits) - 1, max(limits) + 2, 250, 30)
    parts = [*x_axis(x, 30, 250, "estimated ms"), *y_axis(y, 60, 560, "signal/noise, dB")]
    if bound is not None:
        parts.append(line(60, y(bound), 560, y(bound), "bound"))
        parts.append(text(66, y(bound) - 5, f"budget: {bound:g} dB", kind="mark"))
    for point, time, ratio in found:
        tip = title(f"{point.returned} layers in floating point: {ratio:.1f} dB, {time:.4f} ms (estimated)")
        kind = "point" if point.holds else "point broken"
        if point is chosen:
            kind += " best"
            parts.append(text(x(time) + 12, y(ratio) + 16, "chosen", kind="mark"))
        parts.append(f'<circle cx="{x(time):g}" cy="{y(ratio):g}" r="5.5" class="{kind}">{tip}</circle>')
    return svg(600, 288, f"{len(found)} choices of INT8 layers by estimated latency and signal-to-noise ratio", parts)
