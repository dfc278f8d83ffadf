"""From the metrics of each sample to those of the whole set, with their confidence intervals.

The same function serves a comparison that just ran and one that was stored, so that judging again gives the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from csa_deploy.verify.intervals import Interval, bootstrap, mcnemar, paired_difference, share
from csa_deploy.verify.measures import decibels, snr

Columns = Mapping[str, np.ndarray]

EXTREME = "worst of the samples; no interval"
BOOTSTRAP = "bootstrap over samples"
EXACT = "Clopper-Pearson"
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


def summarise(columns: Columns) -> dict[str, Estimate]:
    """Every metric that the columns define, by name; shares in 0..1."""
    if not columns:
        return {}
    found = {**_extremes(columns), **_averages(columns)}
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


def _averages(columns: Columns) -> dict[str, Estimate]:
    """Means over samples, and ratios of such means; spoilt samples leave no interval."""
    mean = ("mean_abs_error", "mean_abs_reference")
    found = {"mean_abs_error": _mean(columns["mean_abs_error"])}
    relative = _ratio(*(float(columns[name].sum()) for name in mean))
    if columns["finite"].all():
        ratio = bootstrap({name: columns[name] for name in mean}, lambda sums: _ratios(*(sums[n] for n in mean)))
        found["mean_rel_error"] = Estimate(relative, ratio, BOOTSTRAP)
        found["snr_db"] = _signal_to_noise(columns)
    else:
        found["mean_rel_error"] = Estimate(math.inf, None, BOOTSTRAP)
        found["snr_db"] = Estimate(-math.inf, None, BOOTSTRAP)
    found.update({name: _mean(columns[name]) for name in MEANS if name in columns})
    return found


def _signal_to_noise(columns: Columns) -> Estimate:
    energies = {name: columns[name] for name in ("signal", "noise")}
    total = snr(float(columns["signal"].sum()), float(columns["noise"].sum()))
    interval: Interval | None = (total, total)  # where nothing differs, every resampling says so
    if math.isfinite(total):
        interval = bootstrap(energies, lambda sums: decibels(sums["signal"], sums["noise"]))
    return Estimate(total, interval, BOOTSTRAP)


def _mean(values: np.ndarray) -> Estimate:
    finite = bool(np.isfinite(values).all())
    interval = bootstrap({"sum": values}, lambda sums: sums["sum"] / len(values)) if finite else None
    return Estimate(float(values.mean()), interval, BOOTSTRAP)


def _drop(reference: np.ndarray, candidate: np.ndarray) -> Estimate:
    lost, gained = (int(((a > 0) & (b == 0)).sum()) for a, b in ((reference, candidate), (candidate, reference)))
    value = float(reference.mean()) - float(candidate.mean())
    return Estimate(value, paired_difference(lost, gained, len(reference)), PAIRED, mcnemar(lost, gained))


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom > 0 else (0.0 if top == 0 else math.inf)


def _ratios(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.asarray([_ratio(float(t), float(b)) for t, b in zip(top, bottom, strict=True)])
