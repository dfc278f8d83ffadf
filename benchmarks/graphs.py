"""What the exact rewrites buy: the optimized graph against the plain export."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.pairs import Ratio, measure
from benchmarks.workspaces import deployed
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

THREADS = 2
NETWORKS = (("convselfattn", 30), ("csa_digits", 300))


def run() -> list[Ratio]:
    """Latency in ONNX Runtime on two threads, and multiply-accumulates."""
    found = []
    for network, pairs in NETWORKS:
        root, report = deployed(network)
        rows = {row["label"]: row for row in report["rows"]}
        timers = [(f"{network} {label}", timer(root / rows[label]["path"])) for label in ("fp32", "exported")]
        found.append(measure("latency, ms, ONNX Runtime, 2 threads", timers[0], timers[1], pairs))
        macs = rows["fp32"]["macs"], rows["exported"]["macs"]
        found.append(Ratio.of("multiply-accumulates", timers[0][0], timers[1][0], [macs]))
    return found


def timer(path: Path) -> Callable[[], float]:
    """A function that times one inference on standard-normal input, in milliseconds."""
    runner = OnnxRuntimeRunner(path, threads=THREADS, spin=False)
    generator = np.random.default_rng(0)
    feeds = {s.name: generator.standard_normal(s.static_shape).astype(s.dtype) for s in runner.input_specs}

    def once() -> float:
        start = time.perf_counter()
        runner.run(feeds)
        return 1000 * (time.perf_counter() - start)

    return once
