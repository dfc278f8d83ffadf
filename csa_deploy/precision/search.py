"""Mixed precision: returns layers to floating point until the accuracy budget holds.

Layers go back in the order of accuracy lost per time saved, so the choice is one number: how many. It is doubled until
the budget holds, then bisected. Everything is measured on calibration images, never on those that accuracy is reported
on, and no step depends on the clock or on chance: the same inputs give the same graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from csa_deploy.config import METRIC_BOUNDS
from csa_deploy.precision.activations import Feeds
from csa_deploy.precision.cost import ORIN, NodeCost, latency
from csa_deploy.precision.recall import Recall
from csa_deploy.precision.sensitivity import Sensitivity, rank_correlation
from csa_deploy.precision.switch import Switchable

BOUNDED = ("snr_db", "cosine", "top1_agreement", "top1_drop")
"""Metrics that the search can hold; the others are the accuracy gate's alone."""


@dataclass(frozen=True)
class Point:
    """One choice of layers.

    Attributes:
        returned: number of layers in floating point.
        metrics: measured on the search images against FP32.
        holds: whether the budget holds there.
        latency_ms: estimated by the cost model.
    """

    returned: int
    metrics: dict[str, float]
    holds: bool
    latency_ms: float


@dataclass(frozen=True)
class SearchResult:
    """What the search found.

    Attributes:
        points: every choice that was measured, by number of returned layers.
        sensitivities: of the layers, in the order in which they go back; empty where all of them could stay INT8.
        returned: layers chosen for floating point.
        images: number of search images.
        budget: the bounds that were held.
        device: of the cost model.
    """

    points: tuple[Point, ...]
    sensitivities: tuple[Sensitivity, ...]
    returned: tuple[str, ...]
    images: int
    budget: dict[str, float] = field(default_factory=dict)
    device: str = ORIN.name

    @property
    def agreement(self) -> float | None:
        """Rank correlation of measured and estimated sensitivity."""
        if not self.sensitivities:
            return None
        return rank_correlation([s.measured for s in self.sensitivities], [s.estimated for s in self.sensitivities])

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "pareto": [asdict(p) for p in self.points],
            "sensitivities": [s.to_json() for s in self.sensitivities],
            "estimate_agrees": self.agreement,
            "returned": list(self.returned),
            "images": self.images,
            "budget": self.budget,
            "device": self.device,
            "latency_is": f"estimated for {self.device} by operations and bytes, without fusions",
        }


def search(
    network: Switchable,
    samples: Sequence[Feeds],
    labels: np.ndarray | None,
    budget: Mapping[str, float],
    costs: Mapping[str, NodeCost],
    order: Callable[[], list[Sensitivity]],
    *,
    rest: str = "fp16",
    recall: Recall | None = None,
) -> SearchResult:
    """Find the fewest layers to return.

    Args:
        network: the layers, to switch.
        samples: network inputs.
        labels: class per sample, where known.
        budget: bounds by metric; those that are not in :data:`BOUNDED` are left to the gate.
        costs: of every node.
        order: makes the sensitivities; called only when not all layers can stay INT8.
        rest: precision of what is not INT8.
        recall: what an interrupted search measured.
    """
    recall = recall or Recall()
    names = [layer.name for layer in network.layers]
    images = sum(len(next(iter(feeds.values()))) for feeds in samples)
    exact = [network.run(feeds, ()) for feeds in samples]
    held = {m: b for m, b in budget.items() if m in BOUNDED and (m != "top1_drop" or labels is not None)}
    points: dict[int, Point] = {}
    ranked: list[Sensitivity] = []

    def measured(count: int) -> Point:
        if count not in points:
            gone = {s.name for s in ranked[:count]}
            int8 = [name for name in names if name not in gone]
            metrics = recall.of(
                f"without {','.join(sorted(gone))}",
                lambda: compare(exact, [network.run(feeds, int8) for feeds in samples], labels),
            )
            seconds = latency(dict(costs), frozenset(int8), rest)
            points[count] = Point(count, metrics, _holds(metrics, held, images), 1000 * seconds)
        return points[count]

    chosen = 0
    if not measured(0).holds:
        ranked = sorted(order(), key=lambda s: (-s.rank, s.name))
        chosen = _fewest(lambda count: measured(count).holds, len(names))
        measured(len(names))
    return SearchResult(
        points=tuple(points[count] for count in sorted(points)),
        sensitivities=tuple(ranked),
        returned=tuple(s.name for s in ranked[:chosen]),
        images=images,
        budget=held,
    )


def _fewest(holds: Callable[[int], bool], most: int) -> int:
    """The smallest number that holds, given that 0 does not and that more never hold less."""
    low, high = 0, 1
    while high < most and not holds(high):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def compare(exact: Sequence[np.ndarray], got: Sequence[np.ndarray], labels: np.ndarray | None) -> dict[str, float]:
    """Metrics of a choice against FP32, as the accuracy gate defines them."""
    a, b = (np.concatenate([np.asarray(x, np.float64) for x in arrays]) for arrays in (exact, got))
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    noise, signal = float(((a - b) ** 2).sum()), float((a**2).sum())
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~(a.any(axis=1) | b.any(axis=1))  # as the gate has it: two zero outputs agree
    cosines = np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0))
    found = {
        "snr_db": snr(signal, noise),
        "cosine": float(cosines.min()),
    }
    if a.shape[1] > 1 and exact[0].ndim == 2:
        found["top1_agreement"] = float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
        if labels is not None:
            hits = [float((x.argmax(axis=1) == labels).mean()) for x in (a, b)]
            found["top1_drop"] = hits[0] - hits[1]
    return found


def snr(signal: float, noise: float) -> float:
    """Signal-to-noise ratio in dB, as the accuracy gate defines it."""
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _holds(metrics: Mapping[str, float], budget: Mapping[str, float], images: int) -> bool:
    """Whether the budget holds; a share is held to what that many images can express: one image less counts as held."""
    for metric, bound in budget.items():
        if metric not in metrics:
            continue
        slack = 1 / images if metric in ("top1_agreement", "top1_drop") else 0.0
        value = metrics[metric]
        if not (value > bound - slack - 1e-9 if METRIC_BOUNDS[metric] == "min" else value < bound + slack + 1e-9):
            return False
    return True
