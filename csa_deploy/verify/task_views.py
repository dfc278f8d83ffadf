"""What the report shows of a comparison by a task: tables, curves, and the worst samples run once more to be drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.metrics.stream import WHOLE, worst
from csa_deploy.metrics.table import named
from csa_deploy.metrics.task import REFERENCE
from csa_deploy.records.task_views import DrawnSample, SeenClass, TaskCandidate, TaskViews
from csa_deploy.runners.base import Runner, run_padded, sampling
from csa_deploy.tasks.stock import names_of
from csa_deploy.tasks.task import Task
from csa_deploy.tasks.views import COLOURS, class_table, curves, drawn, picture, size_table
from csa_deploy.units import counted

if TYPE_CHECKING:
    from csa_deploy.data.base import Dataset
    from csa_deploy.network import Preprocessing
    from csa_deploy.verify.candidates import Candidate

_TASK = "verify/task.json"
_MOST = 4
"""Samples drawn per candidate."""


def task_views(
    task: Task[Any],
    reference: Runner,
    candidates: Sequence[Candidate],
    data: Dataset,
    preprocessing: Preprocessing | None,
) -> TaskViews:
    """Tables, curves and drawings of each candidate.

    Args:
        task: how outputs are read.
        reference: entered.
        candidates: entered, after the comparison.
        preprocessing: the reference's.
    """
    first = names_of(task.kind)[0]
    labelled = any(WHOLE in c.outputs and f"{REFERENCE}{first}" in c.outputs[WHOLE].columns for c in candidates)
    what = named(first).heading if labelled else "the pixels" if task.kind == "segmentation" else "the boxes"
    verb = "lose most by" if labelled else "agree least on"
    return TaskViews(
        kind=task.kind,
        labelled=labelled,
        worst_by=f"Of the samples that differ at all, those that {verb} {what}.",
        candidates=tuple(_candidate(task, reference, c, data, preprocessing, first) for c in candidates),
    )


def _candidate(
    task: Task[Any],
    reference: Runner,
    candidate: Candidate,
    data: Dataset,
    preprocessing: Preprocessing | None,
    metric: str,
) -> TaskCandidate:
    columns = candidate.outputs[WHOLE].columns if WHOLE in candidate.outputs else {}
    rows = [columns[name] for name in (f"{REFERENCE}{metric}", metric) if name in columns]
    sides = rows if len(rows) == 2 and all(np.isfinite(side).all() for side in rows) else None
    detects = task.kind == "detection" and sides is not None
    samples = _drawings(task, reference, candidate, data, preprocessing, columns)
    seen = sorted({kind for sample in samples for kind in sample.seen})
    return TaskCandidate(
        label=candidate.label,
        classes=class_table(task, *sides) if sides else (),
        sizes=size_table(*sides) if sides and detects else (),
        curves=curves(*sides) if sides and detects else None,
        worst=samples,
        seen=tuple(SeenClass(task.name_of(kind), COLOURS[kind % len(COLOURS)]) for kind in seen),
    )


def _drawings(
    task: Task[Any],
    reference: Runner,
    candidate: Candidate,
    data: Dataset,
    preprocessing: Preprocessing | None,
    columns: Mapping[str, np.ndarray],
) -> tuple[DrawnSample, ...]:
    ids = candidate.outputs[next(iter(candidate.outputs))].ids if candidate.outputs else []
    chosen = {entry["id"]: entry for entry in worst(columns, ids, _MOST)} if columns else _least_alike(candidate)
    shapes, found = sampling(reference).shapes, dict[str, DrawnSample]()
    for part in data.only(list(chosen)).batches(1) if chosen else ():
        feeds = part.feed(shapes)
        sides = [
            {name: array[0].astype(np.float64) for name, array in outputs.items()}
            for outputs in (run_padded(reference, feeds), candidate.run(feeds))
        ]
        if not all(np.isfinite(array).all() for side in sides for array in side.values()):
            continue
        sample = drawn(task, sides[0], sides[1], part.truth[0] if part.targets and part.truth else None)
        if sample.alike < 1.0:
            size, shown = picture(next(iter(feeds.values()))[0], preprocessing)
            name, said = part.ids[0], _said(chosen[part.ids[0]], sample)
            found[name] = replace(sample, id=name, said=said, size=size, input=shown)
    return tuple(found[identity] for identity in chosen if identity in found)


def _least_alike(candidate: Candidate) -> dict[str, dict[str, Any]]:
    """Without a metric of the task: the maps whose classes agree on the fewest positions."""
    for table in candidate.tensors.values():
        if "pixel_agreement" in table.columns:
            order = np.argsort(table.columns["pixel_agreement"], kind="stable")[:_MOST]
            return {table.ids[i]: {"id": table.ids[i]} for i in order.tolist()}
    return {}


def _said(entry: Mapping[str, Any], sample: DrawnSample) -> str:
    parts = [
        f"{named(name).heading} {named(name).shown(entry[own])} to {named(name).shown(value)}"
        for name, value in entry.items()
        if (own := f"{REFERENCE}{name}") in entry
    ]
    alike = math.floor(1000 * sample.alike) / 10  # rounded up, what differs would be 100 % alike
    weak = [f"{counted(sample.weak, 'weak detection')} not drawn"] if sample.weak else []
    return "; ".join([*parts, f"{alike:.1f} % alike", *weak])
