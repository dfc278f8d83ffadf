"""The one table of metrics. A new metric is an entry here and a function that says what it keeps of a sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from csa_deploy.errors import UsageError
from csa_deploy.metrics import estimates as by
from csa_deploy.metrics.distance import mean
from csa_deploy.metrics.metric import KINDS, Columns, Estimate, Kind, Metric, Sure
from csa_deploy.metrics.samples import errors, positions, ranking

Family = Mapping[str, Any]
"""Fields of an entry that belong together: what the samples' columns become, and how sure that is."""


def _metric(name: str, better: Literal["higher", "lower"], of: Kind, how: Family, **more: Any) -> Metric:
    per_sample = {"tensor": errors, "map": positions}.get(of, ranking)
    return Metric(name, better, of, per_sample, **how, **more)


def _mean(column: str, sure: Callable[..., Sure] = by.sure_of_mean) -> Family:
    return {"columns": (column,), "reduce": mean, "sure": sure, "change": by.change_of_mean}


def _extreme(reduce: Callable[..., float], *columns: str) -> Family:
    return {"columns": columns, "reduce": reduce, "sure": by.sure_of_extreme}


def _hits(column: str) -> Family:
    told = {"columns": (column,), "reduce": by.hits, "sure": by.sure_of_hits, "change": by.change_of_hits}
    return {**told, "unit": "share", "counted": True}


def _accuracy(name: str, of: Kind, heading: str, **bounds: float) -> list[Metric]:
    """A share of samples that fit their label, of the candidate and of the reference, and what the candidate loses."""
    own = f"reference_{name}"
    lost = {"columns": (own, name), "reduce": by.drop, "sure": by.sure_of_drop, "unit": "share", "counted": True}
    return [
        _metric(own, "higher", of, {**_hits(own), "change": None}, labels=True, budget=False),
        _metric(name, "higher", of, _hits(name), labels=True, heading=heading, said=f"{heading} {{}}", beside=own),
        _metric(f"{name}_drop", "lower", of, lost, labels=True, default_bounds=bounds),
    ]


_RATIO: Family = {
    "columns": ("finite", "mean_abs_error", "mean_abs_reference"),
    "reduce": by.ratio,
    "sure": by.sure_of_ratio,
}
_DECIBELS: Family = {
    "columns": ("finite", "signal", "noise"),
    "reduce": by.decibels,
    "sure": by.sure_of_decibels,
    "change": by.change_of_decibels,
    "unit": "dB",
}
_RANGE = _extreme(by.largest_of_range, "finite", "max_abs_error", "low", "high")

# FP32 graphs may differ by floating-point order only; FP16 has 11 significant bits, about 66 dB for one rounding,
# and loses some of it over the depth of a network. INT8 has 7 bits of magnitude and no more than 20 to 30 dB left.
_SNR = {"fp16": 40.0, "int8": 20.0}
_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.95}
_TOP1 = {"fp32": 0.995, "fp16": 0.99, "int8": 0.95}
_ENTRIES = [
    _metric("max_abs_error", "lower", "tensor", _extreme(by.largest, "max_abs_error")),
    _metric("max_rel_error", "lower", "tensor", _RANGE, default_bounds={"fp32": 1e-4}),
    _metric("mean_abs_error", "lower", "tensor", _mean("mean_abs_error"), instead_of="snr_db"),
    _metric("mean_rel_error", "lower", "tensor", _RATIO),
    _metric(
        *("snr_db", "higher", "tensor", _DECIBELS),
        heading="signal/noise",
        said="{}",
        minimum_effect=0.1,
        default_bounds=_SNR,
    ),
    _metric(
        *("cosine", "higher", "tensor", _extreme(by.smallest_cosine, "finite", "cosine", "signal", "noise")),
        digits=6,
        fixed=True,
        default_bounds=_COSINE,
    ),
    _metric(
        *("mean_iou_agreement", "higher", "map", _mean("mean_iou", by.sure_of_part)),
        unit="share",
        heading="mean IoU with {}",
        said="mIoU {}",
    ),
    _metric(
        *("pixel_agreement", "higher", "map", _mean("pixel_agreement", by.sure_of_part)),
        unit="share",
        heading="pixels as {}",
    ),
    _metric(
        *("top1_agreement", "higher", "classes", _hits("agrees")),
        heading="agrees with {}",
        said="top-1 agrees on {}",
        default_bounds=_TOP1,
    ),
    _metric("top5_agreement", "higher", "five", _hits("agrees_top5")),
    *_accuracy("top1", "classes", "top-1", fp16=0.005, int8=0.01),
    *_accuracy("top5", "five", "top-5"),
    _metric("kl_divergence", "lower", "classes", _mean("kl_divergence"), minimum_effect=1e-6),
]
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ENTRIES}
FINITE = _metric("finite", "higher", "tensor", _hits("finite"))
"""Of two runs, the share of samples whose outputs are finite; of one run the gate speaks of it in words of its own."""
PLAIN = Metric("", "higher", "tensor", errors, (), mean, by.sure_of_extreme, budget=False)
"""What stands for a metric of a stored result that is not known here."""


def register(*entries: Metric) -> None:
    """Add metrics: from then on budgets, verdicts, reports and comparisons know them.

    Raises:
        UsageError: another metric of that name is in the table.
    """
    for entry in entries:
        if METRICS.get(entry.name, entry) != entry:
            raise UsageError(f"metric {entry.name}: there is another one of this name", fix="give it another name")
    METRICS.update({entry.name: entry for entry in entries})


def named(name: str) -> Metric:
    """The metric of that name, or one without unit."""
    return METRICS.get(name, FINITE if name == FINITE.name else PLAIN)


def ordered(metrics: Iterable[Metric] = METRICS.values()) -> list[Metric]:
    """As tables show them: what rests on labels first, then by how much a metric asks of an output."""
    return sorted(metrics, key=lambda metric: (not metric.labels, KINDS.index(metric.of)))


def bounded() -> dict[str, Metric]:
    """Those that a budget may bound."""
    return {name: metric for name, metric in METRICS.items() if metric.budget}


def default_budget(precision: str, tasks: Collection[str] = ()) -> dict[str, float]:
    """The bounds of a precision that nobody needs to ask for; of task metrics those of the ``tasks`` alone."""
    there = {name: m for name, m in METRICS.items() if m.of != "whole" or m.columns[-1] in tasks}
    return {name: m.default_bounds[precision] for name, m in there.items() if precision in m.default_bounds}


def defined_by(columns: Columns) -> list[Metric]:
    """The metrics that the columns of an output, or of all outputs together, hold what they are made of."""
    whole = "finite" not in columns
    return [m for m in METRICS.values() if (m.of == "whole") == whole and all(name in columns for name in m.columns)]


def estimates_of(columns: Columns, *, intervals: bool = True) -> dict[str, Estimate]:
    """Every metric that the columns define, by name; shares in 0..1. Without intervals no bootstrap is made."""
    return {metric.name: metric.estimate(columns, intervals=intervals) for metric in defined_by(columns)}


def worst_values(metrics: Collection[dict[str, float]]) -> dict[str, float]:
    """Per metric the worst value of all outputs that have it.

    Accuracy on the labels is that of one output, the one that is least often right, beside the reference's on it.
    """
    found: dict[str, float] = {}
    for name, metric in bounded().items():
        for values in metrics:
            if name in values and (name not in found or metric.worse(values[name], found[name])):
                found[name] = values[name]
                if metric.beside in values:
                    found[metric.beside] = values[metric.beside]
    return found
