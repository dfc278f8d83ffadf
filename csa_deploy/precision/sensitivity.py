"""What each layer's INT8 costs in accuracy, measured by quantizing it alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from csa_deploy.precision.activations import Feeds
from csa_deploy.precision.measurement_cache import MeasurementCache
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.records.precision import Sensitivity


def in_order(layers: Sequence[Sensitivity]) -> list[Sensitivity]:
    """The layers in the order in which they go back: by the loss alone where the time saved by one is not known."""
    known = all(layer.rank is not None for layer in layers)
    return sorted(layers, key=lambda s: (-(s.rank if known and s.rank is not None else s.measured), s.name))


def measure(
    network: Switchable,
    samples: Sequence[Feeds],
    progress: Callable[[int, int], None] | None = None,
    cache: MeasurementCache | None = None,
) -> dict[str, float]:
    """Relative error energy with one layer in INT8, by layer: the largest of all outputs.

    Args:
        network: the layers, to switch.
        samples: network inputs.
        progress: called with (layers done, layers).
        cache: what an interrupted search measured.
    """
    cache = cache or MeasurementCache()
    exact = [floating(network.run(feeds, ())) for feeds in samples]
    energies = {name: sum(float((out[name] ** 2).sum()) for out in exact) or 1.0 for name in exact[0]}
    found = {}

    def alone(layer: str) -> dict[str, float]:
        errors = dict.fromkeys(energies, 0.0)
        for feeds, want in zip(samples, exact, strict=True):
            got = network.run(feeds, (layer,))
            for name in errors:
                errors[name] += float(((got[name] - want[name]) ** 2).sum())
        return {"error": max(error / energies[name] for name, error in errors.items())}

    for number, layer in enumerate(network.layers):
        found[layer.name] = cache.of(f"{layer.name} alone", partial(alone, layer.name))["error"]
        if progress:
            progress(number + 1, len(network.layers))
    return found


def floating(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of which an energy can be taken, in FP64; where there are class indices alone, those."""
    chosen = {name: array for name, array in outputs.items() if array.dtype.kind == "f"} or dict(outputs)
    return {name: array.astype(np.float64) for name, array in chosen.items()}


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's coefficient: how far two measures agree on the order."""
    first, second = (np.argsort(np.argsort(np.asarray(v), kind="stable"), kind="stable") for v in (a, b))
    return float(np.corrcoef(first, second)[0, 1]) if len(a) > 1 else 1.0


def agreement(layers: Sequence[Sensitivity]) -> float | None:
    """Rank correlation of measured and estimated sensitivity; None where a layer has no estimate, or there is none."""
    estimated = [layer.estimated for layer in layers if layer.estimated is not None]
    if not estimated or len(estimated) < len(layers):
        return None
    return rank_correlation([layer.measured for layer in layers], estimated)
