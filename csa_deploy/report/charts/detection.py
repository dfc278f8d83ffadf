"""Detection: precision against recall, and boxes on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from csa_deploy.records.task_views import DrawnSample, TaskCandidate
from csa_deploy.report.charts.svg import Scale, svg, text, title, x_axis, y_axis
from csa_deploy.report.labels import label_of

_STATES = ("same", "moved", "lost", "new")


def precision_recall(candidates: Sequence[TaskCandidate]) -> str:
    """Precision at each recall: the reference, and every candidate."""
    shown = [(c.label, c.curves) for c in candidates if c.curves and c.curves.reference]
    if not shown:
        return ""
    x, y = Scale(0, 1, 50, 560), Scale(0, 1, 270, 30)
    parts = [*x_axis(x, 30, 270, "recall"), *y_axis(y, 50, 560, "precision")]
    recalls = shown[0][1].recall
    lines = [("reference", shown[0][1].reference), *((label_of(label), found.candidate) for label, found in shown)]
    for place, (name, values) in enumerate(lines):
        points = " ".join(f"{x(recall):g},{y(value):g}" for recall, value in zip(recalls, values, strict=True))
        kind = f"trend series{place % 6}" + ("" if place else " reference")
        parts.append(f'<polyline points="{points}" class="{kind}">{title(name)}</polyline>')
        parts.append(f'<rect x="66" y="{250 - 17 * place}" width="12" height="4" class="series{place % 6}"/>')
        parts.append(text(84, 256 - 17 * place, name, kind="mark"))
    return svg(600, 306, f"Precision and recall of the reference and {len(shown)} candidates", parts)


def boxes(sample: DrawnSample, picture: str | None) -> str:
    """Boxes of both sides on the picture: the same in both, moved, lost, new, and what is true."""
    height, width = sample.size
    unit = max(height, width) / 320  # a line of one pixel where the picture is 320 pixels wide
    parts = [f'<image href="{escape(picture, quote=True)}" width="{width}" height="{height}"/>'] if picture else []
    parts += [_rectangle(box.xyxy, "truth", f"true: {box.kind_of_object}") for box in sample.truth]
    counts = dict.fromkeys(_STATES, 0)
    for box in sample.boxes:
        counts[box.state] += 1
        said = f"{box.state}: {box.kind_of_object}, score {box.score:.2f}"
        if box.moved_from:
            was = f"moved: where the reference has {box.kind_of_object}"
            parts.append(_rectangle(box.moved_from, "moved from", was))
        parts.append(_rectangle(box.xyxy, box.state, said))
        if box.state != "same":
            parts.append(
                f'<text x="{box.xyxy[0]:g}" y="{max(box.xyxy[1] - 3 * unit, 11 * unit):g}" '
                f'font-size="{11 * unit:g}" class="{box.state}">{escape(box.kind_of_object)}</text>'
            )
    listed = ", ".join(f"{count} {state}" for state, count in counts.items())
    name = escape(f"Boxes on {sample.id}: {listed}", quote=True)
    return (
        f'<svg class="boxes" viewBox="0 0 {width} {height}" style="--unit:{unit:g}px" role="img" aria-label="{name}">'
        f"{''.join(parts)}</svg>"
    )


def _rectangle(xyxy: Sequence[float], kind: str, said: str) -> str:
    left, top, right, bottom = xyxy
    where = f'x="{left:g}" y="{top:g}" width="{max(right - left, 0):g}" height="{max(bottom - top, 0):g}"'
    return f'<rect {where} class="{kind}">{title(said)}</rect>'
