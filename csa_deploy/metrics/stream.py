"""Keeps what the metrics need of each sample, one sample at a time: memory does not grow with the size of an output."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.metrics.distance import exactly, snr
from csa_deploy.metrics.metric import Columns, Estimate, Kind, Pair, Row
from csa_deploy.metrics.table import METRICS, estimates_of
from csa_deploy.metrics.task import REFERENCE, Measured

WHOLE = "all outputs"
"""Where what is said of the outputs together stands among them."""


def kinds_of(shape: Sequence[int], threshold: float | None = None) -> set[Kind]:
    """What an output of this shape is, without the axis of samples; with a threshold one channel is a map as well."""
    found: set[Kind] = {"tensor"}
    if len(shape) == 1 and shape[0] > 1:
        found |= {"classes", "five"} if shape[0] > 5 else {"classes"}
    return found | {"map"} if len(shape) == 3 and (shape[0] > 1 or threshold is not None) else found


@dataclass
class SampleTable:
    """What is kept of every sample seen so far.

    Attributes:
        name: of the output, or :data:`WHOLE`.
        table: by column a number per sample, or a fixed number of them.
        ids: sample identities, in the order of the table.
    """

    name: str
    table: dict[str, array[float]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def add(self, pair: Pair, functions: Iterable[Callable[[Pair], Row]]) -> None:
        """Keep what the functions say of a sample."""
        for function in functions:
            for name, value in function(pair).items():
                column = self.table.setdefault(name, array("d"))
                numbers = [value] if isinstance(value, float) else np.atleast_1d(value).tolist()
                self._require_even(name, len(numbers), column, pair.sample)
                column.extend(numbers)
        self.ids.append(pair.sample)
        self.__dict__.pop("columns", None)

    def extend(self, ids: Sequence[str], columns: Mapping[str, np.ndarray]) -> None:
        """Add what another table kept of the samples after these: of every column its numbers, one after another."""
        for name, numbers in columns.items():
            column, each = self.table.setdefault(name, array("d")), len(numbers) // len(ids)
            self._require_even(name, each, column, ids[0])
            column.extend(numbers.tolist())
        self.ids.extend(ids)
        self.__dict__.pop("columns", None)

    def _require_even(self, name: str, each: int, column: array[float], sample: str) -> None:
        if len(column) != each * len(self.ids):
            raise UsageError(
                f"metric {name}: {each} numbers of sample {sample}, {len(column)} of the {len(self.ids)} before it",
                fix="give as many of every sample, those with values that are not finite among them",
            )

    def keep(self, count: int) -> None:
        """Forget all but the first ``count`` samples."""
        if count < len(self.ids):
            self.table = {name: c[: len(c) // len(self.ids) * count] for name, c in self.table.items()}
            del self.ids[count:]
            self.__dict__.pop("columns", None)

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """By name arrays of shape (N,), or (N, k)."""
        found = {name: np.array(column) for name, column in self.table.items()}
        return {n: c if len(c) == len(self.ids) else c.reshape(len(self.ids), -1) for n, c in found.items()}

    def estimates(self, *, intervals: bool = True) -> dict[str, Estimate]:
        """Every metric that is defined for this output, by name, with its interval."""
        return estimates_of(self.columns, intervals=intervals)

    def values(self) -> dict[str, float]:
        """The metrics without their intervals; shares in 0..1."""
        return {name: estimate.value for name, estimate in self.estimates(intervals=False).items()}

    @property
    def non_finite(self) -> list[str]:
        """Identities of the samples with a value that is not finite, in the candidate or in the reference."""
        return [self.ids[i] for i in np.flatnonzero(self.columns.get("finite", np.ones(0)) == 0).tolist()]

    def worst(self, count: int = 5) -> list[dict[str, Any]]:
        """The worst samples, see :func:`worst`."""
        return worst(self.columns, self.ids, count)


@dataclass
class OutputMetrics(SampleTable):
    """One output of a candidate beside the reference's.

    Attributes:
        classes: number of classes when the output is (N, classes), else 0.
        threshold: see :class:`Pair`.
        channel_signal: of a map, sum of squares of the reference per channel.
        channel_noise: of a map, sum of squares of the error per channel.
        channel_rows: what every sample adds to both, where others add it: sums in FP64 depend on their order.
    """

    classes: int = 0
    threshold: float | None = None
    channel_signal: np.ndarray = field(default_factory=lambda: np.zeros(0))
    channel_noise: np.ndarray = field(default_factory=lambda: np.zeros(0))
    channel_rows: list[tuple[np.ndarray, np.ndarray]] | None = None

    def update(self, want: np.ndarray, got: np.ndarray, ids: Sequence[str], targets: Sequence[Any] | None) -> None:
        """Add a batch: ``want`` and ``got`` of shape (n, ...), one identity and perhaps one target per sample.

        Raises:
            UsageError: an output is empty, or its size depends on the numbers and is another one in the candidate.
        """
        if want.shape != got.shape or not want.size:
            raise UsageError(
                f"output '{self.name}' of sample {ids[0]} has the shape {list(want.shape[1:])} in the reference and "
                f"{list(got.shape[1:])} in the candidate: such outputs are not compared",
                fix="compare graphs without what makes the size of an output depend on its numbers (NonZero, NMS)",
            )
        kinds = kinds_of(want.shape[1:], self.threshold)
        self.classes = want.shape[1] if "classes" in kinds else 0
        functions = list(dict.fromkeys(m.per_sample for m in METRICS.values() if m.of in kinds))
        for index, identity in enumerate(ids):
            first, second = (exactly(side[index]) for side in (want, got))
            right = bool(np.isfinite(first).all())
            finite = right and bool(np.isfinite(second).all())
            target = None if targets is None else targets[index]
            self.add(Pair(first, second, target, right, finite, identity, self.threshold), functions)
            if "map" in kinds:
                self.add_channels((first**2).sum(axis=(1, 2)), ((first - second) ** 2).sum(axis=(1, 2)))

    def worst_channels(self, count: int = 5) -> list[dict[str, float]]:
        """Of a map, the channels with the lowest signal-to-noise ratio, worst first."""
        found = [
            {"channel": i, "snr_db": snr(float(s), float(n))}
            for i, (s, n) in enumerate(zip(self.channel_signal, self.channel_noise, strict=True))
        ]
        return sorted(found, key=lambda row: row["snr_db"])[:count]

    def add_channels(self, signal: np.ndarray, noise: np.ndarray) -> None:
        """Add a sample's squares of the reference and of the error, each (channels,)."""
        if self.channel_rows is not None:
            self.channel_rows.append((signal, noise))
            return
        self.channel_signal = self.channel_signal + signal if self.channel_signal.size else signal
        self.channel_noise = self.channel_noise + noise if self.channel_noise.size else noise


def measure(
    want: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    ids: Sequence[str],
    targets: Sequence[Any] | None,
    tables: dict[str, SampleTable],
    tasks: Sequence[Measured] = (),
) -> None:
    """Add a batch of all outputs to the tables of a candidate, one for each output and one for the tasks.

    Args:
        want: the reference's, by output, the first axis the samples.
        got: the candidate's.
        ids: identity of each sample.
        targets: what the data set says of each.
        tables: of the batches before; grows.
        tasks: task metrics to measure.
    """
    for name, values in want.items():
        table = tables.setdefault(name, OutputMetrics(name, threshold=threshold_of(tasks)))
        assert isinstance(table, OutputMetrics)
        table.update(values, got[name], ids, targets)
    usable = [task for task in tasks if targets is not None or not task.labelled]
    for index, identity in enumerate(ids if usable else ()):
        sides = [{n: a[index].astype(np.float64) for n, a in side.items()} for side in (want, got)]
        right, good = (all(np.isfinite(a).all() for a in side.values()) for side in sides)
        target = None if targets is None else targets[index]
        pair = Pair(sides[0], sides[1], target, bool(right), bool(right and good), identity)
        tables.setdefault(WHOLE, SampleTable(WHOLE)).add(pair, [task.keep for task in usable])


def threshold_of(tasks: Sequence[Measured]) -> float | None:
    """From which on a map of one channel counts as its class, where a task says so."""
    return next((task.threshold for task in tasks if task.threshold is not None), None)


def worst(columns: Columns, ids: Sequence[str], count: int = 5) -> list[dict[str, Any]]:
    """Of one output the samples with the largest error, worst first; disagreeing samples come before agreeing ones.

    Of a classifier each has the strongest classes of both backends, with their probabilities. Of all outputs together
    those that lose most by the first task metric, each with the values that all of them give for it alone.
    """
    if not len(ids):
        return []
    if "max_abs_error" not in columns:
        return _worst_of_task(columns, ids, count)
    error = columns["max_abs_error"]
    agrees = columns.get("agrees", np.ones(len(ids)))
    order = np.lexsort((np.arange(len(ids)), -error, agrees))[:count].tolist()
    return [
        {"id": str(ids[i]), "max_abs_error": float(error[i]), "agrees": bool(agrees[i] > 0), **_strongest(columns, i)}
        for i in order
    ]


def _worst_of_task(columns: Columns, ids: Sequence[str], count: int) -> list[dict[str, Any]]:
    metric = METRICS.get(next((n for n in columns if not n.startswith(REFERENCE)), ""))
    if metric is None:
        return []
    alone = [
        {n: e.value for n, e in estimates_of({n: c[[i]] for n, c in columns.items()}, intervals=False).items()}
        for i in range(len(ids))
    ]
    losses = [name for name in alone[0] if METRICS[name].better == "lower" and metric.name in METRICS[name].columns]
    by = METRICS[losses[0]] if losses else metric
    keys = np.asarray([values[by.name] for values in alone])
    order = np.lexsort((np.arange(len(ids)), keys if by.better == "higher" else -keys))
    return [{"id": str(ids[i]), **alone[i]} for i in order[:count].tolist()]


def _strongest(columns: Columns, sample: int) -> dict[str, list[dict[str, float]]]:
    """``classes`` and ``reference_classes`` of one sample, strongest first; empty where a value is not finite."""
    found = {}
    for side in ("reference_", "") if "classes" in columns else ():
        classes, shares = (columns[f"{side}{what}"][sample].tolist() for what in ("classes", "probabilities"))
        found[f"{side}classes"] = [
            {"class": int(c), "probability": p} for c, p in zip(classes, shares, strict=True) if math.isfinite(p)
        ]
    return found
