"""Compares an exported graph with the module it came from, on random and on real inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from csa_deploy.metrics.distance import exactly
from csa_deploy.records.export import Difference
from csa_deploy.runners.base import Runner

RANDOM_BATCHES = 2


def compare(
    kind: str,
    reference: Runner,
    candidate: Runner,
    feeds: Iterable[Mapping[str, np.ndarray]],
    *,
    batch: int | None = None,
) -> list[Difference]:
    """Run both on the same inputs, of ``batch`` samples each, and keep the largest difference per output.

    A value that is not finite in the candidate only, or in the reference only, counts as an infinite error.
    The range is that of the finite values.
    """
    errors: dict[str, float] = {}
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    samples = 0
    for feed in feeds:
        samples += batch or len(next(iter(feed.values())))
        expected, actual = reference.run(feed), candidate.run(feed)
        for name, want in expected.items():
            errors[name] = max(errors.get(name, 0.0), max_error(want, actual[name]))
            finite = exactly(want[np.isfinite(want)])
            low[name] = float(finite.min(initial=low.get(name, np.inf)))
            high[name] = float(finite.max(initial=high.get(name, -np.inf)))
    ranges = {name: max(high[name] - low[name], 0.0) for name in errors}  # 0 where no value is finite
    return [Difference(name, kind, samples, error, ranges[name]) for name, error in errors.items()]


def max_error(want: np.ndarray, got: np.ndarray) -> float:
    """Largest absolute difference; infinite where shapes differ or only one side is finite."""
    if want.shape != got.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):  # inf - inf
        difference = np.abs(exactly(want) - exactly(got))
    same = (want == got) | (np.isnan(want) & np.isnan(got)) if want.dtype.kind == "f" else want == got
    difference = np.where(same, 0.0, difference)
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max(initial=0.0))
