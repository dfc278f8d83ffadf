"""Times a runner: every sample is kept, percentiles come from them, and the tail is never clipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from csa_deploy.runners.base import Runner

PERCENTILES = (50, 90, 95, 99)


def measure(
    runner: Runner,
    feeds: Mapping[str, np.ndarray],
    *,
    iterations: int,
    warmup: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Time ``iterations`` inferences one after another, after ``warmup`` untimed ones.

    The clock is :func:`time.perf_counter_ns` around the whole call on the host: input arrays in host memory in,
    output arrays in host memory out.

    Returns:
        ``samples_ms`` (every one, in order), ``percentiles_ms``, ``mean_ms``, ``max_ms``, ``jitter_ms`` (standard
        deviation) and ``throughput`` in samples per second.
    """
    for _ in range(warmup):
        runner.run(feeds)
    samples = np.empty(iterations)
    for index in range(iterations):
        start = time.perf_counter_ns()
        runner.run(feeds)
        samples[index] = (time.perf_counter_ns() - start) / 1e6
        progress(index + 1)
    batch = len(next(iter(feeds.values())))
    return {
        "samples_ms": [round(v, 4) for v in samples.tolist()],
        "percentiles_ms": {str(p): round(float(np.percentile(samples, p)), 4) for p in PERCENTILES},
        "mean_ms": round(float(samples.mean()), 4),
        "max_ms": round(float(samples.max()), 4),
        "jitter_ms": round(float(samples.std()), 4),
        "throughput": round(1000.0 * batch / float(samples.mean()), 2),
    }
