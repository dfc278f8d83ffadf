"""What a metric is: one entry of :data:`csa_deploy.metrics.table.METRICS`.

An entry says how a number comes about and how people read it; budgets, verdicts, reports, comparisons of runs, the INT8
search and the localisation know no metric by name and take all they need from here. Nothing heavy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from csa_deploy.results import Stored

if TYPE_CHECKING:
    import numpy as np

Interval = tuple[float, float]
Row = dict[str, Any]
"""What is kept of one sample: by column a number, or a fixed number of them."""
Columns = Mapping[str, "np.ndarray"]
"""What is kept of all samples: by column an array of shape (N,), or (N, k)."""
Kind = Literal["whole", "classes", "five", "map", "tensor"]
"""What a metric is of: all outputs together, an output (N, classes), one of more than five classes, a map
(N, C, H, W) with several channels, or any output."""
KINDS: tuple[Kind, ...] = ("whole", "classes", "five", "map", "tensor")
NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Pair:
    """One sample of one output, or of all outputs for a metric that is of the whole network.

    Attributes:
        want: the reference's, float64 (of 64-bit integers long double) without the axis of samples; of the whole a
            mapping by output.
        got: the candidate's.
        target: what the data set says about the sample: a class index, a mask, boxes; None where it says nothing.
        right: whether all of the reference's values are finite.
        finite: whether all values of both are.
        threshold: of a map of one channel, the value from which on a position counts as its class; None where such a
            map has no classes.
    """

    want: Any
    got: Any
    target: Any
    right: bool
    finite: bool
    sample: str = ""
    threshold: float | None = None


class Sure(NamedTuple):
    """How sure a value is: a two-sided 95 % confidence interval where the method gives one, and McNemar's p-value."""

    interval: Interval | None
    method: str
    p_value: float | None = None


@dataclass(frozen=True)
class Estimate(Stored):
    """A metric of the whole set.

    Attributes:
        interval: 95 % confidence interval of what would be measured on all data of this kind; None where the method
            gives none.
        method: how the interval was made.
        p_value: of a paired difference of counts, McNemar's exact p-value for "no difference".
    """

    value: float
    interval: Interval | None
    method: str
    p_value: float | None = None


@dataclass(frozen=True)
class Metric:
    """One metric. Labelled ones of a task are made from :class:`csa_deploy.metrics.task.TaskMetric`.

    Attributes:
        name: as in budgets.
        better: whether a higher or a lower value is better; a budget bounds the other side.
        of: the outputs that it is defined for.
        per_sample: what is kept of one sample; several metrics may share it, and it runs once for all of them.
        columns: those of ``per_sample`` that make the value, in the order in which the three functions take them.
        reduce: columns -> the value over all samples.
        sure: (value, columns) -> the interval of that value.
        change: (columns of run A, columns of run B, the same samples) -> the interval of B - A; None where two runs
            are not compared by it.
        unit: ``"share"`` of 1, shown in percent; ``"dB"``; or none.
        digits: of a value without unit, significant ones, or where ``fixed`` those behind the point.
        fixed: see ``digits``.
        heading: of the column in tables, with ``{}`` for the reference's name; empty where tables leave it out.
        said: how a summary line tells the value, with ``{}`` for it; empty where another metric says more.
        minimum_effect: smallest change between two runs that counts.
        default_bounds: by precision.
        labels: whether it needs what the data set says about a sample.
        counted: whether each sample counts as a whole: the value is a share of samples, or a difference of two.
        budget: whether a budget may bound it.
        beside: the metric that says the same of the reference itself.
        instead_of: the metric in whose place two runs are compared by it, where that one is infinite in both.
    """

    name: str
    better: Literal["higher", "lower"]
    of: Kind
    per_sample: Callable[[Pair], Row]
    columns: tuple[str, ...]
    reduce: Callable[..., float]
    sure: Callable[..., Sure]
    change: Callable[..., Sure] | None = None
    unit: Literal["", "share", "dB"] = ""
    digits: int = 4
    fixed: bool = False
    heading: str = ""
    said: str = ""
    minimum_effect: float = 0.0
    default_bounds: Mapping[str, float] = field(default_factory=dict)
    labels: bool = False
    counted: bool = False
    budget: bool = True
    beside: str = ""
    instead_of: str = ""

    @property
    def side(self) -> Literal["min", "max"]:
        """What a bound is: the least value or the largest one."""
        return "min" if self.better == "higher" else "max"

    @property
    def share(self) -> bool:
        """Whether it is a share of 1 that should be high."""
        return self.unit == "share" and self.better == "higher"

    @property
    def drop(self) -> bool:
        """Whether it counts how many samples are lost."""
        return self.counted and self.better == "lower"

    def estimate(self, columns: Columns, *, intervals: bool = True) -> Estimate:
        """The value over all samples, with its interval if wanted: a bootstrap takes its time."""
        taken = [columns[name] for name in self.columns]
        value = float(self.reduce(*taken))
        return Estimate(value, *(self.sure(value, *taken) if intervals else Sure(None, "")))

    def worse(self, value: float, other: float) -> bool:
        """Whether a value is worse than another one; one that is not a number is the worst."""
        if math.isnan(value) or math.isnan(other):
            return math.isnan(value)
        return value < other if self.better == "higher" else value > other

    def absent(self, kinds: Collection[Kind]) -> str:
        """Why an output that is of these kinds lacks this metric."""
        if self.of == "map" and "map" not in kinds:
            return f"{NOT_APPLICABLE}: the output is no map of channels"
        if self.of in ("classes", "five") and "classes" not in kinds:
            return f"{NOT_APPLICABLE}: no classification output"
        if self.of == "five" and "five" not in kinds:
            return f"{NOT_APPLICABLE}: five classes or fewer"
        return f"not measured: the data have no {'targets' if self.of == 'whole' else 'labels'}"

    def shown(self, value: float, more: int = 0) -> str:
        """A value in the metric's unit, with so many more digits than usual."""
        if self.unit == "share":
            return f"{100 * value:.{2 + more}f} %"
        if self.unit == "dB":
            return "identical" if value == math.inf else f"{value:.{1 + more}f} dB"
        return f"{value:.{self.digits + more}{'f' if self.fixed else 'g'}}"
