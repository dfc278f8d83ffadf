"""From the metrics of each sample to those of the whole set, with their confidence intervals.

The same function serves a comparison that just ran and one that was stored, so that judging again gives the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from csa_deploy.binomial import share
from csa_deploy.verify.intervals import (
    FEWEST,
    Interval,
    log_ratio_interval,
    mcnemar,
    mean_interval,
    mostly_one,
    paired_difference,
)
from csa_deploy.verify.measures import mean, snr

DECIBEL = 10 / math.log(10)  # per unit of a natural logarithm

Columns = Mapping[str, np.ndarray]

EXTREME = "worst of the samples; no interval"
COUNT = "count of these samples; no interval"
BOOTSTRAP = "bootstrap-t over samples"
EXACT = "Clopper-Pearson"
MOSTLY_ONE = "Clopper-Pearson, of the samples that do not deviate at all"
PAIRED = "Bonett-Price, paired"
SHARES = {
    "top1_agreement": "agrees",
    "top5_agreement": "agrees_top5",
    "reference_top1": "reference_top1",
    "top1": "top1",
    "reference_top5": "reference_top5",
    "top5": "top5",
}
MEANS = ("kl_divergence", "pixel_agreement", "mean_iou")
BOUNDED = ("pixel_agreement", "mean_iou")  # means of values in 0..1


@dataclass(frozen=True)
class Estimate:
    """A metric of the whole set.

    Attributes:
        value: what was measured.
        interval: 95 % confidence interval of what would be measured on all data of this kind; None where the method
            gives none.
        method: how the interval was made.
        p_value: of a paired difference, McNemar's exact p-value for "no difference".
    """

    value: float
    interval: Interval | None
    method: str
    p_value: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def summarise(columns: Columns, *, intervals: bool = True) -> dict[str, Estimate]:
    """Every metric that the columns define, by name; shares in 0..1. Without intervals no bootstrap is made."""
    if not columns:
        return {}
    found = {**_extremes(columns), **_averages(columns, intervals)}
    for name, column in SHARES.items():
        if column in columns:
            hits = columns[column]
            found[name] = Estimate(float(hits.mean()), share(int(hits.sum()), len(hits)), EXACT)
    for k in (1, 5):
        if f"top{k}" in columns:
            found[f"top{k}_drop"] = _drop(columns[f"reference_top{k}"], columns[f"top{k}"])
    return found


def _extremes(columns: Columns) -> dict[str, Estimate]:
    finite = bool(columns["finite"].all())
    worst = float(columns["max_abs_error"].max())
    spread = float(np.nanmax(columns["high"]) - np.nanmin(columns["low"])) if finite else 0.0
    return {
        "max_abs_error": Estimate(worst, None, EXTREME),
        "max_rel_error": Estimate(worst / (spread if spread > 0 else 1.0), None, EXTREME),
        "cosine": Estimate(float(columns["cosine"].min()) if finite else -1.0, None, EXTREME),
    }


def _averages(columns: Columns, sure: bool) -> dict[str, Estimate]:
    """Means over samples, and ratios of such means; spoilt samples leave no interval."""
    found = {"mean_abs_error": _mean(columns["mean_abs_error"], sure)}
    if columns["finite"].all():
        found["mean_rel_error"] = _relative(columns["mean_abs_error"], columns["mean_abs_reference"], sure)
        found["snr_db"] = _signal_to_noise(columns["signal"], columns["noise"], sure)
    else:
        found["mean_rel_error"] = Estimate(math.inf, None, BOOTSTRAP)
        found["snr_db"] = Estimate(-math.inf, None, BOOTSTRAP)
    found.update({name: _mean(columns[name], sure, bounded=name in BOUNDED) for name in MEANS if name in columns})
    return found


def _relative(errors: np.ndarray, reference: np.ndarray, sure: bool) -> Estimate:
    top, bottom = float(errors.sum()), float(reference.sum())
    value = top / bottom if bottom > 0 else (0.0 if top == 0 else math.inf)
    ends = log_ratio_interval([errors], [reference]) if sure else None
    return Estimate(value, (math.exp(ends[0]), _exp(ends[1])) if ends else _certain(value, 0.0, len(errors)), BOOTSTRAP)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _signal_to_noise(signal: np.ndarray, noise: np.ndarray, sure: bool) -> Estimate:
    total = snr(float(signal.sum()), float(noise.sum()))
    ends = log_ratio_interval([signal], [noise]) if sure else None
    interval = (DECIBEL * ends[0], DECIBEL * ends[1]) if ends else _certain(total, math.inf, len(signal))
    return Estimate(total, interval, BOOTSTRAP)


def _certain(value: float, identical: float, samples: int) -> Interval | None:
    """Where every output is the reference's to the bit, every resampling says so; of a few samples nothing does."""
    return (value, value) if value == identical and samples >= FEWEST else None


def _mean(values: np.ndarray, sure: bool, *, bounded: bool = False) -> Estimate:
    value = mean(values)
    if not sure or not np.isfinite(values).all():
        return Estimate(value, None, BOOTSTRAP)
    if bounded and (few := mostly_one(values)):
        return Estimate(value, few, MOSTLY_ONE)
    low, high = mean_interval(values) or (None, None)
    if low is None or high is None:
        return Estimate(value, None, BOOTSTRAP)
    return Estimate(value, (max(low, 0.0), min(high, 1.0) if bounded else high), BOOTSTRAP)


def _drop(reference: np.ndarray, candidate: np.ndarray) -> Estimate:
    """Counted, not a difference of shares: 5 of 1,000 are 0.005, while 0.990 - 0.985 is more than that."""
    lost, gained = (int(((a > 0) & (b == 0)).sum()) for a, b in ((reference, candidate), (candidate, reference)))
    total = len(reference)
    return Estimate((lost - gained) / total, paired_difference(lost, gained, total), PAIRED, mcnemar(lost, gained))
