"""Random inputs for any network: for comparisons, timings and trial runs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from csa_deploy.spec import Arrays, TensorSpec


def random_feeds(specs: Iterable[TensorSpec], seed: int) -> Arrays:
    """Standard-normal inputs, as a normalised image has; integers are 0 or 1, booleans fair coins, free axes 1."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for spec in specs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            feeds[spec.name] = generator.standard_normal(spec.static_shape).astype(dtype)
        else:
            feeds[spec.name] = generator.integers(0, 2, spec.static_shape).astype(dtype)
    return feeds
