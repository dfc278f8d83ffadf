"""What each layer's INT8 costs in accuracy, measured by quantizing it alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from csa_deploy.precision.activations import Feeds
from csa_deploy.precision.recall import Recall
from csa_deploy.precision.switch import Switchable


@dataclass(frozen=True)
class Sensitivity:
    """One layer.

    Attributes:
        name: of the node.
        op: its operator.
        measured: energy of the output error with only this layer in INT8, relative to the energy of the output.
        estimated: the same, from one run; see :mod:`csa_deploy.precision.propagation`.
        saved: seconds that INT8 saves, estimated.
    """

    name: str
    op: str
    measured: float
    estimated: float
    saved: float

    @property
    def rank(self) -> float:
        """Accuracy lost per time saved: the higher, the earlier the layer goes back."""
        return self.measured / max(self.saved, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "rank": self.rank}


def measure(
    network: Switchable,
    samples: Sequence[Feeds],
    progress: Callable[[int, int], None] | None = None,
    recall: Recall | None = None,
) -> dict[str, float]:
    """Relative error energy of the first output with one layer in INT8, by layer.

    Args:
        network: the layers, to switch.
        samples: network inputs.
        progress: called with (layers done, layers).
        recall: what an interrupted search measured.
    """
    recall = recall or Recall()
    exact = [network.run(feeds, ()).astype(np.float64) for feeds in samples]
    energy = sum(float((out**2).sum()) for out in exact) or 1.0
    found = {}

    def alone(layer: str) -> dict[str, float]:
        outputs = (network.run(feeds, (layer,)) for feeds in samples)
        return {"error": sum(float(((a - b) ** 2).sum()) for a, b in zip(outputs, exact, strict=True)) / energy}

    for number, layer in enumerate(network.layers):
        found[layer.name] = recall.of(f"{layer.name} alone", partial(alone, layer.name))["error"]
        if progress:
            progress(number + 1, len(network.layers))
    return found


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's coefficient: how far two measures agree on the order."""
    first, second = (np.argsort(np.argsort(np.asarray(v), kind="stable"), kind="stable") for v in (a, b))
    return float(np.corrcoef(first, second)[0, 1]) if len(a) > 1 else 1.0
