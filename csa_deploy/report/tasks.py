"""What the page shows of segmentation or detection, which the comparison left; see :mod:`csa_deploy.tasks.views`."""

from __future__ import annotations

import json
from dataclasses import replace

from csa_deploy.records.task_views import DrawnSample, TaskCandidate, TaskViews
from csa_deploy.verify.task_views import _TASK
from csa_deploy.workspace import Workspace

SIDES = (
    ("input", "input"),
    ("truth", "ground truth"),
    ("reference", "{}"),
    ("candidate", "{}"),
    ("difference", "difference"),
)
"""Pictures of a sample, in their order on the page, with what they are called."""


def task_views(workspace: Workspace) -> tuple[TaskViews | None, dict[str, str]]:
    """The task's part of the data object, and its pictures by name; None where the comparison was of no task."""
    path = workspace.root / _TASK
    if not path.is_file():
        return None, {}
    found = TaskViews.from_json(json.loads(path.read_text(encoding="utf-8")))
    pictures = {
        picture_name(candidate, sample, side): url
        for candidate in found.candidates
        for sample in candidate.worst
        for side, url in {**sample.pictures, "input": sample.input}.items()
        if url
    }
    return replace(found, candidates=tuple(map(_without_pictures, found.candidates))), pictures


def _without_pictures(candidate: TaskCandidate) -> TaskCandidate:
    return replace(candidate, worst=tuple(replace(sample, pictures={}, input=None) for sample in candidate.worst))


def picture_name(candidate: TaskCandidate, sample: DrawnSample, side: str) -> str:
    """Of a picture of a sample among the page's; the input is that of all candidates."""
    return f"{sample.id}/input" if side == "input" else f"{candidate.label}/{sample.id}/{side}"


def signed(value: float | None) -> str:
    """A change of a share in percentage points."""
    return "-" if value is None else f"{100 * value:+.2f}"
