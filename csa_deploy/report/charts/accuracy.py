"""Accuracy: errors of the samples, precisions against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from csa_deploy.records.localization import ModuleError
from csa_deploy.records.report import ErrorHistogram, Row
from csa_deploy.records.verify import ErrorGrowth
from csa_deploy.report.charts.svg import Scale, line, svg, text, title, x_axis, y_axis
from csa_deploy.report.labels import label_of

_WIDTH = 960
MOST_MODULES = 12


def errors(distributions: Sequence[ErrorHistogram]) -> str:
    """Histograms of the largest error of each sample, one row per candidate, on one logarithmic axis."""
    filled = [d for d in distributions if sum(d.counts)]
    if not filled:
        return ""
    x = Scale(filled[0].edges[0], filled[0].edges[-1], 150, _WIDTH - 20, True)
    bottom = 12 + 62 * len(filled)
    parts = x_axis(x, 8, bottom, "largest error of a sample, in units of the output")
    for row, found in enumerate(filled):
        base = 8 + 62 * (row + 1)
        parts.append(text(136, base - 18, label_of(found.label), kind="name", anchor="end"))
        if found.exact:
            parts.append(text(136, base - 3, f"{found.exact} exact", kind="tick", anchor="end"))
        most = max(found.counts)
        for low, high, count in zip(found.edges, found.edges[1:], found.counts, strict=False):
            if count:
                height = 50 * count / most
                where = f'x="{x(low):g}" y="{base - height:.1f}" width="{x(high) - x(low) - 1:.2f}"'
                tip = title(f"{count} samples, {low:.1e} to {high:.1e}")
                parts.append(f'<rect {where} height="{height:.1f}" class="series{row % 6}">{tip}</rect>')
        parts.append(line(150, base, _WIDTH - 20, base, "grid"))
    return svg(_WIDTH, bottom + 38, f"Errors of the samples of {len(filled)} candidates", parts)


def over_frames(growth: Sequence[ErrorGrowth]) -> str:
    """Signal-to-noise ratio of an output on each frame of its sequences, a line per candidate."""
    lines = [(g, [(frame, ratio) for frame, ratio in enumerate(g.snr_db) if _finite(ratio)]) for g in growth]
    lines = [(grown, points) for grown, points in lines if points]
    if not lines or max(len(grown.snr_db) for grown, _ in lines) < 2:
        return ""
    ratios = [ratio for _, points in lines for _, ratio in points]
    x = Scale(0, max(len(grown.snr_db) for grown, _ in lines) - 1, 60, 560)
    y = Scale(min(0.0, *ratios), max(ratios) * 1.1, 250, 30)
    parts = [*x_axis(x, 30, 250, "frame of its sequence"), *y_axis(y, 60, 560, "signal/noise, dB")]
    for place, (grown, points) in enumerate(lines):
        drawn = " ".join(f"{x(frame):g},{y(ratio):g}" for frame, ratio in points)
        tip = title(f"{label_of(grown.candidate)}: {grown.statement}")
        parts.append(f'<polyline points="{drawn}" class="trend series{place % 6}">{tip}</polyline>')
        parts.append(f'<rect x="76" y="{236 - 17 * place}" width="12" height="4" class="series{place % 6}"/>')
        parts.append(text(94, 242 - 17 * place, label_of(grown.candidate), kind="mark"))
    return svg(600, 288, f"Signal-to-noise ratio over the frames of {len(lines)} candidates", parts)


def pareto(rows: Sequence[Row]) -> str:
    """Signal-to-noise ratio against bytes of weights; what no other point beats on both is ringed."""
    points = [r for r in rows if r.bytes and _finite(r.metrics.get("snr_db"))]
    if len(points) < 2:
        return ""
    mib = [(r.bytes or 0) / 2**20 for r in points]
    noise = [float(r.metrics["snr_db"]) for r in points]
    x = Scale(0, max(mib) * 1.25, 60, 560)
    y = Scale(0, max(noise) * 1.15, 250, 30)
    parts = [*x_axis(x, 30, 250, "MiB of weights"), *y_axis(y, 60, 560, "signal/noise, dB")]
    for row, size, ratio in zip(points, mib, noise, strict=True):
        beaten = any((s <= size and n >= ratio) and (s, n) != (size, ratio) for s, n in zip(mib, noise, strict=True))
        tip = title(f"{label_of(row.label)}: {size:.2f} MiB, {ratio:.1f} dB")
        kind = "point" if beaten else "point best"
        parts.append(f'<circle cx="{x(size):g}" cy="{y(ratio):g}" r="6" class="{kind}">{tip}</circle>')
        near_top = y(ratio) < 60 and row is not points[0]
        parts.append(text(x(size) + 11, y(ratio) + (20 if near_top else 5), label_of(row.label), kind="mark"))
    return svg(600, 288, f"{len(points)} graphs by weights and signal-to-noise ratio", parts)


def blame(rows: Sequence[ModuleError], culprits: Sequence[str]) -> str:
    """The errors that the modules add, largest first; those to blame stand out."""
    shown = sorted((r for r in rows if r.error_added), key=lambda r: -r.error_added)[:MOST_MODULES]
    if len(shown) < 2:
        return ""
    x = Scale(0, shown[0].error_added, 330, _WIDTH - 100)
    bottom = 8 + 24 * len(shown)
    parts = x_axis(x, 8, bottom, "error added, relative root mean square")
    for place, row in enumerate(shown):
        y, module = 10 + 24 * place, row.module
        parts.append(text(318, y + 14, module if len(module) < 46 else f"…{module[-44:]}", kind="name", anchor="end"))
        kind = "blamed" if module in culprits else "series0"
        tip = title(f"{module}: {row.error_added:.2e} added, {row.error_out:.2e} at its output")
        width = max(x(row.error_added) - 330, 1)
        parts.append(f'<rect x="330" y="{y}" width="{width:g}" height="18" rx="3" class="{kind}">{tip}</rect>')
        parts.append(text(338 + width, y + 14, f"{row.error_added:.1e}", kind="mark"))
    return svg(_WIDTH, bottom + 38, f"The {len(shown)} modules that add the largest errors", parts)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(float(value))
