"""Differences between a reference and a candidate, per sample and streamed: memory does not grow with image size.

All metrics are computed in float64 on one sample's output at a time; what is kept per sample is a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class OutputMetrics:
    """Metrics of one output over all samples seen so far.

    Attributes:
        name: tensor name.
        classes: number of classes when the output is (N, classes), else 0.
        rows: per sample: max_abs_error, mean_abs_error, cosine, snr_db, agrees (1, 0 or NaN).
        ids: sample identities, in the order of ``rows``.
    """

    name: str
    classes: int = 0
    rows: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    non_finite: list[str] = field(default_factory=list)
    _signal: float = 0.0
    _noise: float = 0.0
    _low: float = math.inf
    _high: float = -math.inf
    _hits: dict[str, int] = field(default_factory=dict)
    _labelled: int = 0

    def update(self, want: np.ndarray, got: np.ndarray, ids: Sequence[str], labels: np.ndarray | None) -> None:
        """Add a batch: ``want`` and ``got`` of shape (n, ...), one identity and perhaps one label per sample."""
        if want.shape != got.shape:
            raise ValueError(f"output {self.name}: reference {want.shape}, candidate {got.shape}")
        self.classes = want.shape[1] if want.ndim == 2 and want.shape[1] > 1 else 0
        for index, identity in enumerate(ids):
            self._add(want[index].astype(np.float64).ravel(), got[index].astype(np.float64).ravel(), identity)
        if labels is not None and self.classes:
            self._count_hits("reference", want, labels)
            self._count_hits("candidate", got, labels)
            self._labelled += len(labels)

    def _add(self, want: np.ndarray, got: np.ndarray, identity: str) -> None:
        self.ids.append(identity)
        if not np.isfinite(got).all():
            self.non_finite.append(identity)
            self.rows.append((math.inf, math.inf, math.nan, -math.inf, 0.0 if self.classes else math.nan))
            return
        error = np.abs(want - got)
        signal, noise = float(want @ want), float(error @ error)
        self._signal += signal
        self._noise += noise
        self._low, self._high = min(self._low, float(want.min())), max(self._high, float(want.max()))
        agrees = float(want.argmax() == got.argmax()) if self.classes else math.nan
        self.rows.append((float(error.max()), float(error.mean()), cosine(want, got), snr(signal, noise), agrees))

    def _count_hits(self, who: str, logits: np.ndarray, labels: np.ndarray) -> None:
        order = np.argsort(-logits, axis=1, kind="stable")
        for k in (1, 5):
            if k < self.classes or k == 1:
                hits = (order[:, :k] == labels[:, None]).any(axis=1).sum()
                self._hits[f"{who}_top{k}"] = self._hits.get(f"{who}_top{k}", 0) + int(hits)

    def values(self) -> dict[str, float]:
        """Every metric that is defined for this output, by name; accuracies as shares in 0..1."""
        table = np.asarray(self.rows)
        spread = self._high - self._low
        found = {
            "max_abs_error": float(table[:, 0].max()),
            "mean_abs_error": float(table[:, 1].mean()),
            "max_rel_error": float(table[:, 0].max()) / (spread if spread > 0 and math.isfinite(spread) else 1.0),
            "cosine": float(table[:, 2].min()) if not self.non_finite else -1.0,
            "snr_db": snr(self._signal, self._noise) if not self.non_finite else -math.inf,
        }
        if self.classes:
            found["top1_agreement"] = float(table[:, 4].mean())
        for key, hits in self._hits.items():
            found[key.removeprefix("candidate_")] = hits / self._labelled
        if "top1" in found:
            found["top1_drop"] = found["reference_top1"] - found["top1"]
        return found

    def worst(self, count: int = 5) -> list[dict[str, Any]]:
        """The samples with the largest error, worst first; disagreeing samples come before agreeing ones."""
        table = np.asarray(self.rows)
        agrees = np.nan_to_num(table[:, 4], nan=1.0)
        order = np.lexsort((np.arange(len(table)), -table[:, 0], agrees))[:count]
        return [
            {"id": self.ids[i], "max_abs_error": float(table[i, 0]), "agrees": bool(agrees[i])} for i in order.tolist()
        ]

    def columns(self) -> dict[str, np.ndarray]:
        """Per-sample metrics as arrays of shape (N,)."""
        table = np.asarray(self.rows)
        names = ("max_abs_error", "mean_abs_error", "cosine", "snr_db", "agrees")
        return {name: table[:, i] for i, name in enumerate(names)}


def cosine(want: np.ndarray, got: np.ndarray) -> float:
    """Cosine similarity of two vectors; 1 when both are zero, 0 when one is."""
    norms = float(np.linalg.norm(want)) * float(np.linalg.norm(got))
    if norms == 0.0:
        return 1.0 if not want.any() and not got.any() else 0.0
    return min(1.0, float(want @ got) / norms)


def snr(signal: float, noise: float) -> float:
    """Signal-to-noise ratio in dB: 10 log10(sum of squares of the reference over that of the error)."""
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf
