"""Metrics of a task: mIoU, mAP, or anybody's own, of all outputs of a network against what the data set says.

A task metric looks at one sample at a time and keeps a row of numbers of it, always of the same length; the rows of all
samples make the value. So memory is constant per sample, a value can be made again from stored rows, and its interval
comes from drawing rows anew. In a file of yours::

    class LaneF1:
        better = "higher"                       # or "lower"; this is the default
        unit = "share"                          # shown in percent; default: a plain number

        def update(self, outputs, target):      # of one sample
            found = outputs["lanes"] > 0        # outputs: array by name, without the axis of samples, float64
            hit = (found & target).sum()        # target: what the data set says; never None
            return [hit, found.sum(), target.sum()]

        def reduce(self, rows):                 # float64 (samples, 3)
            hit, found, there = rows.sum(axis=0)
            return 2 * hit / max(found + there, 1)

        additive = True                         # optional: reduce() looks at no more than the sums of the columns

``--metric lanes.py:LaneF1 --budget int8.LaneF1_drop=0.01`` measures it on reference and candidate; from Python it is
``register_task(LaneF1())``. Three entries of the table follow: ``LaneF1``, ``reference_LaneF1``, and ``LaneF1_drop``,
what the candidate loses against the reference on the same samples (``LaneF1_rise`` where lower is better).

A metric with ``against = "reference"`` needs no data set with targets: its target is the reference's outputs (box or
pixel agreement), and it has the one entry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.metrics.intervals import RESAMPLES, drawn, percentiles, pivotal, resampled, unusual
from csa_deploy.metrics.metric import Metric, Pair, Row, Sure
from csa_deploy.metrics.table import METRICS, register

RESAMPLED = "expanded pivotal bootstrap over samples"
PAIRED_TASK = "expanded percentile bootstrap over samples, paired"
REFERENCE = "reference_"


@runtime_checkable
class TaskMetric(Protocol):
    """What a task metric must have. What it may have beside, with the default:

    ``name`` (the class's), ``better`` (``"higher"``), ``unit`` (``""``; ``"share"`` or ``"dB"``), ``heading`` (the
    name; of its column in tables, with ``{}`` for the reference's name), ``against`` (``"target"``), ``additive``
    (False), ``minimum_effect`` (0; smallest change between two runs that counts), ``default_bounds`` (``{}``; bounds of
    the drop, or of an agreement, by precision), ``resample(rows, times) -> values`` (instead of many calls of
    ``reduce``: the values of samples that are each taken so many times, ``times`` (resamples, samples)).
    """

    def update(self, outputs: Mapping[str, np.ndarray], target: Any) -> Sequence[float] | np.ndarray | float:
        """The row of one sample: a fixed number of finite numbers.

        Args:
            outputs: array by name, float64, without the axis of samples.
            target: what the data set says about the sample, or the reference's outputs.
        """

    def reduce(self, rows: np.ndarray) -> float:
        """The value of all samples, from their rows (samples, numbers)."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A task metric with its defaults filled in; every answer of it is checked.

    Raises:
        UsageError: from each function, where the metric raises, gives no row of finite numbers, or no finite value.
    """

    given: TaskMetric
    name: str
    better: Literal["higher", "lower"]
    unit: Literal["", "share", "dB"]
    heading: str
    against: Literal["target", "reference"]
    additive: bool
    minimum_effect: float
    default_bounds: Mapping[str, float]
    threshold: float | None

    @property
    def labelled(self) -> bool:
        """Whether it needs what the data set says."""
        return self.against == "target"

    def keep(self, pair: Pair) -> Row:
        """The rows of one sample, of the candidate and of the reference; of a spoilt sample all is NaN."""
        sides = {self.name: pair.got, f"{REFERENCE}{self.name}": pair.want}
        if not self.labelled:
            del sides[f"{REFERENCE}{self.name}"]
        target = pair.target if self.labelled else pair.want
        if target is None:
            return {}
        if pair.finite:
            return {name: self._row(outputs, target, pair.sample) for name, outputs in sides.items()}
        cleared = {name: _cleared(outputs) for name, outputs in sides.items()}  # for the length of a row alone
        target = target if self.labelled else _cleared(target)
        return {name: 0 * self._row(outputs, target, pair.sample) + np.nan for name, outputs in cleared.items()}

    def _row(self, outputs: Mapping[str, np.ndarray], target: Any, sample: str) -> np.ndarray:
        try:
            row = np.atleast_1d(np.asarray(self.given.update(outputs, target), np.float64))
        except UsageError as error:  # of a decode function, which says itself what is wrong with it
            raise UsageError(f"{error.message}, on sample {sample}", fix=error.fix) from error
        except Exception as error:  # other people's code
            raise self.wrong(f"update() raised {_said(error)} on sample {sample}") from error
        if row.ndim != 1 or not len(row):
            raise self.wrong(
                f"update() gave an array of shape {row.shape} on sample {sample}", "give one row of numbers"
            )
        if not np.isfinite(row).all():
            raise self.wrong(f"update() gave {row[~np.isfinite(row)][0]} on sample {sample}", "give finite numbers")
        return row

    def reduce(self, rows: np.ndarray) -> float:
        """The value of rows (samples, numbers); NaN where a sample is spoilt."""
        if not np.isfinite(rows).all():
            return math.nan
        try:
            value = np.asarray(self.given.reduce(_table(rows)), np.float64)
        except Exception as error:
            raise self.wrong(f"reduce() raised {_said(error)} on {len(rows)} rows") from error
        if value.ndim or not np.isfinite(value):
            said = f"an array of shape {value.shape}" if value.ndim else str(value)
            raise self.wrong(f"reduce() gave {said} on {len(rows)} rows", "give one finite number for any samples")
        return float(value)

    def lost(self, reference: np.ndarray, candidate: np.ndarray) -> float:
        """By how much the candidate is worse than the reference."""
        first, second = self.reduce(reference), self.reduce(candidate)
        return second - first if self.better == "lower" else first - second

    def sure(self, value: float, rows: np.ndarray) -> Sure:
        """Of the value."""
        if not np.isfinite(rows).all():
            return Sure(None, RESAMPLED)
        rows = _table(rows)
        ends = pivotal(self._resampled(rows), len(rows), unusual(rows), value)
        if ends and self.unit == "share":
            ends = max(ends[0], 0.0), min(ends[1], 1.0)
        return Sure(ends, RESAMPLED)

    def sure_of_lost(self, value: float, reference: np.ndarray, candidate: np.ndarray) -> Sure:
        """Of what is lost, paired."""
        low, high = (reference, candidate) if self.better == "lower" else (candidate, reference)
        return self.change([low], [high])

    def change(self, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> Sure:
        """Of the value of rows B less that of rows A, of the same samples."""
        first, second = _table(a[0]), _table(b[0])
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            return Sure(None, PAIRED_TASK)
        moved = int((first != second).any(axis=1).sum())
        changes = self._resampled(second) - self._resampled(first) if moved else np.zeros(1)
        return Sure(percentiles(changes, len(first), moved, float(np.median(changes))), PAIRED_TASK)

    def _resampled(self, rows: np.ndarray) -> np.ndarray:
        """The value of samples drawn with replacement, the same draws for as many rows."""
        return _drawn(self, rows.tobytes(), rows.shape)

    def entries(self) -> list[Metric]:
        """Its entries of the table."""
        own, name = f"{REFERENCE}{self.name}", self.name
        common: dict[str, Any] = {"of": "whole", "per_sample": self.keep, "unit": self.unit, "labels": self.labelled}
        value = Metric(
            name=name,
            better=self.better,
            columns=(name,),
            reduce=self.reduce,
            sure=self.sure,
            change=self.change,
            heading=self.heading,
            said=f"{self.heading.format('the reference')} {{}}",
            minimum_effect=self.minimum_effect,
            beside=own if self.labelled else "",
            default_bounds={} if self.labelled else self.default_bounds,
            **common,
        )
        if not self.labelled:
            return [value]
        lost = Metric(
            name=f"{name}_{'drop' if self.better == 'higher' else 'rise'}",
            better="lower",
            columns=(own, name),
            reduce=self.lost,
            sure=self.sure_of_lost,
            default_bounds=self.default_bounds,
            **common,
        )
        reference = replace(value, name=own, columns=(own,), heading="", said="", budget=False, change=None, beside="")
        return [reference, value, lost]

    def wrong(self, said: str, fix: str = "correct the metric") -> UsageError:
        """An error that names it."""
        return UsageError(f"metric {self.name}: {said}", fix=fix)


@lru_cache(maxsize=8)
def _drawn(task: Measured, content: bytes, shape: tuple[int, int]) -> np.ndarray:
    """Kept, as the reference's rows are the same for every candidate and precision."""
    rows = np.frombuffer(content).reshape(shape)
    vectorised = getattr(task.given, "resample", None)
    if vectorised is None:
        return resampled(rows, task.reduce, additive=task.additive)
    values = np.asarray(vectorised(rows, drawn(len(rows))), np.float64)
    if values.shape != (RESAMPLES,) or not np.isfinite(values).all():
        raise task.wrong(f"resample() gave no {RESAMPLES} finite numbers but an array of shape {values.shape}")
    return values


def _table(rows: np.ndarray) -> np.ndarray:
    """Rows of one number are stored without the second axis."""
    return np.ascontiguousarray(rows.reshape(len(rows), -1), np.float64)


def _cleared(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0) for name, array in outputs.items()}


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def task_of(given: Any, name: str = "") -> Measured:
    """A task metric, or its class, with the defaults filled in.

    Raises:
        UsageError: it lacks ``update`` or ``reduce``, cannot be made, or one of its choices is none.
    """
    name = str(getattr(given, "name", "") or name or getattr(given, "__name__", type(given).__name__))
    if isinstance(given, type):
        try:
            given = given()
        except Exception as error:
            raise UsageError(f"metric {name}: making it raised {_said(error)}", fix="give it no arguments") from error
    if not isinstance(given, TaskMetric):
        raise UsageError(f"metric {name}: has no update() and reduce()", fix=f"write them as {HELP} shows")
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise UsageError(f"metric {name}: its name is no identifier", fix="name it such as LaneF1")
    chosen = {key: getattr(given, key, default) for key, (default, _) in _CHOICES.items()}
    for key, (_, allowed) in _CHOICES.items():
        if allowed and chosen[key] not in allowed:
            raise UsageError(
                f"metric {name}: {key} is {chosen[key]!r}", fix=f"it is one of {', '.join(map(repr, allowed))}"
            )
    return Measured(given, name, **{**chosen, "heading": chosen["heading"] or name})


HELP = "docs/verify.md"
_CHOICES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "better": ("higher", ("higher", "lower")),
    "unit": ("", ("", "share", "dB")),
    "heading": ("", ()),
    "against": ("target", ("target", "reference")),
    "additive": (False, (False, True)),
    "minimum_effect": (0.0, ()),
    "default_bounds": ({}, ()),
    "threshold": (None, ()),  # from which on a map of one channel counts as its class
}
TASKS: dict[str, Measured] = {}
"""Task metrics that are known, by name; a comparison measures those that it was asked for."""


def register_task(given: Any, name: str = "") -> Measured:
    """Make a task metric known; the same name again replaces it.

    Raises:
        UsageError: it is no task metric, or has the name of a metric of the table.
    """
    task = task_of(given, name)
    before = TASKS.get(task.name)
    old = {entry.name for entry in before.entries()} if before else set()
    entries = task.entries()
    for entry in entries:
        if entry.name in METRICS and entry.name not in old:
            raise UsageError(f"metric {task.name}: there is another one named {entry.name}", fix="give it another name")
    for gone in old:
        del METRICS[gone]
    register(*entries)
    TASKS[task.name] = task
    return task
