"""What a comparison by a task leaves for the report: tables, curves and the worst samples as they were drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from csa_deploy.results import Stored

Xyxy = tuple[float, float, float, float]
State = Literal["same", "moved", "lost", "new"]
_KEYS = {"kind_of_object": "class", "moved_from": "from"}
"""Fields whose names in the file are words of Python."""


@dataclass(frozen=True)
class TaskRow:
    """A class, or a size of objects: what both sides reach; None where it is nowhere."""

    name: str
    reference: float | None
    candidate: float | None

    @property
    def change(self) -> float | None:
        """From the reference to the candidate."""
        return None if self.reference is None or self.candidate is None else self.candidate - self.reference


@dataclass(frozen=True)
class PrecisionCurves:
    """Mean precision of the classes at each recall."""

    recall: tuple[float, ...]
    reference: tuple[float, ...]
    candidate: tuple[float, ...]


@dataclass(frozen=True)
class TrueBox:
    """An object of the sample, in pixels of the input."""

    xyxy: Xyxy
    kind_of_object: str


@dataclass(frozen=True)
class DrawnBox(TrueBox):
    """A box of one side or both.

    Attributes:
        score: the candidate's, or the reference's of a lost one.
        state: what became of the reference's box.
        moved_from: where the reference has it, of a moved one.
    """

    score: float
    state: State
    moved_from: Xyxy | None = None


@dataclass(frozen=True, kw_only=True)
class DrawnSample:
    """One sample as both sides see it.

    Attributes:
        said: how it differs, in words.
        size: height and width of the network's input in pixels.
        input: what the network saw, a data URL; None where that is no image.
        alike: share of it that both sides agree on.
        pictures: masks by side as data URLs.
        seen: classes of the masks.
        boxes: of both sides, but the weak ones.
        weak: number of boxes that are not drawn.
    """

    id: str = ""
    said: str = ""
    size: tuple[int, int] = (1, 1)
    input: str | None = None
    alike: float = 1.0
    pictures: dict[str, str] = field(default_factory=dict)
    seen: tuple[int, ...] = ()
    boxes: tuple[DrawnBox, ...] = ()
    weak: int = 0
    truth: tuple[TrueBox, ...] = ()


@dataclass(frozen=True)
class SeenClass:
    """A class of the drawn masks and its colour."""

    name: str
    colour: str


@dataclass(frozen=True, kw_only=True)
class TaskCandidate:
    """One candidate beside the reference.

    Attributes:
        classes: IoU or average precision by class; none without labels.
        sizes: average precision by size of the objects.
        curves: of a detector, with labels.
        worst: samples that differ, the worst first.
        seen: classes of their masks.
    """

    label: str
    classes: tuple[TaskRow, ...] = ()
    sizes: tuple[TaskRow, ...] = ()
    curves: PrecisionCurves | None = None
    worst: tuple[DrawnSample, ...] = ()
    seen: tuple[SeenClass, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TaskViews(Stored):
    """The whole.

    Attributes:
        labelled: whether the samples say what is true.
        worst_by: which samples are shown, in words.
        candidates: in the order of the comparison.
    """

    kind: str
    labelled: bool
    worst_by: str
    candidates: tuple[TaskCandidate, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(_renamed(super().to_json(), _KEYS))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskViews:
        """What :meth:`to_json` wrote."""
        return super().from_json(_renamed(data, {key: name for name, key in _KEYS.items()}))


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value
