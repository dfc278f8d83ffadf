"""Time per node on this machine's CPU, from ONNX Runtime's own profiler. A CPU's times are never the target's."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import onnx

from csa_deploy.graph.interface import interface_of
from csa_deploy.graph.load import load_model
from csa_deploy.records.profile import NodeTimes

METHOD = (
    "ONNX Runtime's profiler on this machine's CPU, node by node without fusion; median over the timed inferences; "
    "relative weight on this CPU, not the target's time"
)
_WARMUP = 2


def layer_times(
    path: Path,
    scratch: Path,
    *,
    iterations: int,
    threads: int | None,
    seed: int,
) -> NodeTimes:
    """Median time of each node in microseconds.

    Args:
        scratch: directory for the profiler's file.
        threads: CPU threads; None for one per core.
    """
    import onnxruntime

    from csa_deploy.runners.feeds import random_feeds

    model = _named(load_model(path, full_check=False))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "layers")
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = random_feeds(interface_of(model)[0], seed)
    for _ in range(_WARMUP + iterations):
        session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times, names = _medians(events), {node.name for node in model.graph.node}
    return NodeTimes(
        method=METHOD,
        iterations=iterations,
        times_us={name: round(time, 1) for name, time in times.items() if name in names},
        inserted_us=round(sum(time for name, time in times.items() if name not in names), 1),
    )


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give nodes without a name that of their first output, as :mod:`csa_deploy.profile.cost` does."""
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    return model


def _medians(events: list[dict[str, Any]]) -> dict[str, float]:
    series: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            series[event["name"].removesuffix("_kernel_time")].append(float(event["dur"]))
    return {name: statistics.median(values[_WARMUP:]) for name, values in series.items()}
