"""Differences between a reference and a candidate, per sample and streamed: memory does not grow with image size.

All metrics are computed in float64 on one sample's output at a time; what is kept per sample is a few numbers, from
which :mod:`csa_deploy.verify.summary` makes the metrics of the whole set.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from csa_deploy.verify.measures import cosine, snr
from csa_deploy.verify.summary import Estimate, summarise

TOP = 5


@dataclass
class OutputMetrics:
    """Metrics of one output over all samples seen so far.

    Attributes:
        name: tensor name.
        classes: number of classes when the output is (N, classes), else 0.
        channels: number of channels when the output is a map (N, channels, H, W), else 0.
        table: by metric a number per sample, or :data:`TOP` numbers per sample.
        ids: sample identities, in the order of the table.
        channel_signal: of a map, sum of squares of the reference per channel.
        channel_noise: of a map, sum of squares of the error per channel.
    """

    name: str
    classes: int = 0
    channels: int = 0
    table: dict[str, array[float]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    channel_signal: np.ndarray = field(default_factory=lambda: np.zeros(0))
    channel_noise: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def update(self, want: np.ndarray, got: np.ndarray, ids: Sequence[str], labels: np.ndarray | None) -> None:
        """Add a batch: ``want`` and ``got`` of shape (n, ...), one identity and perhaps one label per sample."""
        if want.shape != got.shape:
            raise ValueError(f"output {self.name}: reference {want.shape}, candidate {got.shape}")
        self.classes = want.shape[1] if want.ndim == 2 and want.shape[1] > 1 else 0
        self.channels = want.shape[1] if want.ndim == 4 and want.shape[1] > 1 else 0
        for index, identity in enumerate(ids):
            self.ids.append(identity)
            label = int(labels[index]) if labels is not None else None
            row = self._row(want[index].astype(np.float64), got[index].astype(np.float64), label)
            for metric, value in row.items():
                column = self.table.setdefault(metric, array("d"))
                column.extend(value) if isinstance(value, np.ndarray) else column.append(value)
        self.__dict__.pop("columns", None)

    def keep(self, count: int) -> None:
        """Forget all but the first ``count`` samples."""
        if count < len(self.ids):
            self.table = {name: c[: len(c) // len(self.ids) * count] for name, c in self.table.items()}
            del self.ids[count:]
            self.__dict__.pop("columns", None)

    @property
    def non_finite(self) -> list[str]:
        """Identities of the samples with a value that is not finite, in the candidate or in the reference."""
        return [identity for identity, finite in zip(self.ids, self.table["finite"], strict=True) if not finite]

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """Per-sample metrics as arrays of shape (N,); the strongest classes and their probabilities (N, k)."""
        found = {name: np.array(column) for name, column in self.table.items()}
        return {n: c if len(c) == len(self.ids) else c.reshape(len(self.ids), -1) for n, c in found.items()}

    def estimates(self, *, intervals: bool = True) -> dict[str, Estimate]:
        """Every metric that is defined for this output, by name, with its interval."""
        return summarise(self.columns, intervals=intervals)

    def values(self) -> dict[str, float]:
        """The metrics without their intervals; shares in 0..1."""
        return {name: estimate.value for name, estimate in self.estimates(intervals=False).items()}

    def worst(self, count: int = 5) -> list[dict[str, Any]]:
        """The samples with the largest error, worst first; disagreeing samples come before agreeing ones."""
        return worst(self.columns, self.ids, count)

    def worst_channels(self, count: int = 5) -> list[dict[str, float]]:
        """Of a map, the channels with the lowest signal-to-noise ratio, worst first."""
        found = [
            {"channel": i, "snr_db": snr(float(s), float(n))}
            for i, (s, n) in enumerate(zip(self.channel_signal, self.channel_noise, strict=True))
        ]
        return sorted(found, key=lambda row: row["snr_db"])[:count]

    def _row(self, want: np.ndarray, got: np.ndarray, label: int | None) -> dict[str, float | np.ndarray]:
        right = bool(np.isfinite(want).all())
        finite = right and bool(np.isfinite(got).all())
        row: dict[str, float | np.ndarray] = {**(_errors(want.ravel(), got.ravel()) if finite else _SPOILT)}
        row["reference_finite"] = float(right)
        if self.classes:
            row.update(_ranking(want, got, label, finite))
        if self.channels:
            row.update(_map_metrics(want, got, finite))
            self._add_channels(want, got)
        return row

    def _add_channels(self, want: np.ndarray, got: np.ndarray) -> None:
        signal, noise = (want**2).sum(axis=(1, 2)), ((want - got) ** 2).sum(axis=(1, 2))
        self.channel_signal = self.channel_signal + signal if self.channel_signal.size else signal
        self.channel_noise = self.channel_noise + noise if self.channel_noise.size else noise


_SPOILT = {
    "finite": 0.0,
    "max_abs_error": math.inf,
    "mean_abs_error": math.inf,
    "mean_abs_reference": math.nan,
    "cosine": math.nan,
    "signal": math.nan,
    "noise": math.inf,
    "snr_db": -math.inf,
    "low": math.nan,
    "high": math.nan,
}


def _errors(want: np.ndarray, got: np.ndarray) -> dict[str, float]:
    error = np.abs(want - got)
    signal, noise = float(want @ want), float(error @ error)
    return {
        "finite": 1.0,
        "max_abs_error": float(error.max(initial=0.0)),
        "mean_abs_error": float(error.mean()),
        "mean_abs_reference": float(np.abs(want).mean()),
        "cosine": cosine(want, got),
        "signal": signal,
        "noise": noise,
        "snr_db": snr(signal, noise),
        "low": float(want.min()),
        "high": float(want.max()),
    }


def _ranking(want: np.ndarray, got: np.ndarray, label: int | None, finite: bool) -> dict[str, float | np.ndarray]:
    """Classes of one sample; ties are ranked by class. A spoilt output has no class, and agrees with nothing."""
    first, second = (np.argsort(-a, kind="stable")[:TOP] for a in (want, got))
    ours, theirs = (_log_softmax(a) if np.isfinite(a).all() else np.full(len(a), math.nan) for a in (want, got))
    row: dict[str, float | np.ndarray] = {
        "reference_class": float(first[0]),
        "class": float(second[0]) if finite else math.nan,
        "agrees": float(finite and first[0] == second[0]),
        "kl_divergence": _divergence(ours, theirs) if finite else math.inf,
        "reference_classes": first.astype(np.float64),
        "reference_probabilities": np.exp(ours[first]),
        "classes": second.astype(np.float64),
        "probabilities": np.exp(theirs[second]),
    }
    tops = (1, TOP) if len(want) > TOP else (1,)
    if TOP in tops:
        row["agrees_top5"] = float(finite and first[0] in second)
    for k in tops if label is not None else ():
        row[f"reference_top{k}"] = float(label in first[:k])
        row[f"top{k}"] = float(finite and label in second[:k])
    return row


def _map_metrics(want: np.ndarray, got: np.ndarray, finite: bool) -> dict[str, float]:
    """Agreement of the strongest channel at each position, and mean intersection over union of the channels seen."""
    if not finite:
        return {"pixel_agreement": 0.0, "mean_iou": 0.0}
    first, second, channels = want.argmax(axis=0).ravel(), got.argmax(axis=0).ravel(), want.shape[0]
    hits = np.bincount(first[first == second], minlength=channels)
    union = np.bincount(first, minlength=channels) + np.bincount(second, minlength=channels) - hits
    return {
        "pixel_agreement": float((first == second).mean()),
        "mean_iou": float((hits[union > 0] / union[union > 0]).mean()),
    }


def worst(columns: Mapping[str, np.ndarray], ids: Sequence[str], count: int = 5) -> list[dict[str, Any]]:
    """The samples with the largest error, worst first; disagreeing samples come before agreeing ones.

    Of a classifier each has the strongest classes of both backends, with their probabilities.
    """
    if not len(ids):
        return []
    error = columns["max_abs_error"]
    agrees = columns.get("agrees", np.ones(len(ids)))
    order = np.lexsort((np.arange(len(ids)), -error, agrees))[:count].tolist()
    return [
        {"id": str(ids[i]), "max_abs_error": float(error[i]), "agrees": bool(agrees[i] > 0), **_strongest(columns, i)}
        for i in order
    ]


def _strongest(columns: Mapping[str, np.ndarray], sample: int) -> dict[str, list[dict[str, float]]]:
    """``classes`` and ``reference_classes`` of one sample, strongest first; empty where a value is not finite."""
    found = {}
    for side in ("reference_", "") if "classes" in columns else ():
        classes, shares = (columns[f"{side}{what}"][sample].tolist() for what in ("classes", "probabilities"))
        found[f"{side}classes"] = [
            {"class": int(c), "probability": p} for c, p in zip(classes, shares, strict=True) if math.isfinite(p)
        ]
    return found


def _divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Kullback-Leibler divergence of the second softmax from the first, in nats; both as logarithms."""
    return max(0.0, float((np.exp(first) * (first - second)).sum()))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - math.log(float(np.exp(shifted).sum()))
