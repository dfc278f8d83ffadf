"""Random inputs for any network: for comparisons, timings and trial runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def random_feeds(shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str], seed: int) -> dict[str, np.ndarray]:
    """Standard-normal inputs, as a normalised image has; integers are 0 or 1 and booleans fair coins."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for name, shape in shapes.items():
        dtype = np.dtype(dtypes[name])
        if dtype.kind == "f":
            feeds[name] = generator.standard_normal(shape).astype(dtype)
        else:
            feeds[name] = generator.integers(0, 2, shape).astype(dtype)
    return feeds
