"""What the page shows of segmentation or detection, which the comparison left; see :mod:`csa_deploy.tasks.views`."""

from __future__ import annotations

import json
from typing import Any

from csa_deploy.verify.task_views import _TASK
from csa_deploy.workspace import Workspace

Row = dict[str, Any]
SIDES = (
    ("input", "input"),
    ("truth", "ground truth"),
    ("reference", "{}"),
    ("candidate", "{}"),
    ("difference", "difference"),
)
"""Pictures of a sample, in their order on the page, with what they are called."""


def task_views(workspace: Workspace) -> tuple[Row | None, dict[str, str]]:
    """The task's part of the data object, and its pictures by name; None where the comparison was of no task."""
    path = workspace.root / _TASK
    if not path.is_file():
        return None, {}
    found: Row = json.loads(path.read_text(encoding="utf-8"))
    pictures: dict[str, str] = {}
    for candidate in found["candidates"]:
        for sample in candidate["worst"]:
            shown = {**sample.pop("pictures", {}), "input": sample.pop("input", None)}
            pictures |= {picture_name(candidate, sample, side): url for side, url in shown.items() if url}
    return found, pictures


def picture_name(candidate: Row, sample: Row, side: str) -> str:
    """Of a picture of a sample among the page's; the input is that of all candidates."""
    return f"{sample['id']}/input" if side == "input" else f"{candidate['label']}/{sample['id']}/{side}"


def change(row: Row) -> float | None:
    """Of a class or a size, from the reference to the candidate."""
    both = row["reference"], row["candidate"]
    return None if None in both else float(both[1]) - float(both[0])


def signed(value: float | None) -> str:
    """A change of a share in percentage points."""
    return "-" if value is None else f"{100 * value:+.2f}"
