"""The same network exported in several ways: which graphs differ, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from csa_deploy.errors import UsageError
from csa_deploy.export.exporter import export_module
from csa_deploy.graph.optimize import optimize
from csa_deploy.metrics.stream import OutputMetrics
from csa_deploy.runners.base import run_batch
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

if TYPE_CHECKING:
    from csa_deploy.instance import Network

OLD, NEW = 17, 18  # newest opset of TensorRT 8.6's parser, and the dynamo exporter's own

Progress = Callable[[int, int], None]
Outputs = list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Pair:
    """Two graphs of one network on the same inputs.

    Attributes:
        first: what was compared with what.
        second: the other.
        nodes: nodes of each; None for one that could not be made.
        max_abs_error: largest difference of any output value; None where one could not be made or run.
        max_rel_error: the same relative to the output's range.
        snr_db: signal-to-noise ratio; infinite where both are bit by bit the same.
        reason: why there is no number.
    """

    first: str
    second: str
    nodes: tuple[int | None, int | None]
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    snr_db: float | None = None
    reason: str = ""

    def differs(self, tolerance: float) -> bool | None:
        """Whether the relative error exceeds a tolerance; None where it is not known."""
        return None if self.max_rel_error is None else not self.max_rel_error <= tolerance

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def cross_check(
    network: Network, feeds: Sequence[Mapping[str, np.ndarray]], threads: int | None, progress: Progress | None = None
) -> list[Pair]:
    """Export with dynamo and with TorchScript, in two opsets, plain and optimized, and compare in ONNX Runtime.

    Args:
        network: what to export.
        feeds: inputs, as the network takes them.
        threads: of ONNX Runtime.
        progress: called with (done, total).
    """
    made: dict[str, tuple[onnx.ModelProto | None, str]] = {}
    variants = [("dynamo", NEW), ("dynamo", OLD), ("torchscript", NEW), ("torchscript", OLD)]
    for done, (exporter, opset) in enumerate(variants):
        made[f"{exporter}, opset {opset}"] = _export(network, exporter, opset)
        if progress is not None:
            progress(done + 1, len(variants) + 1)
    plain = made[f"dynamo, opset {NEW}"][0]
    optimized = (optimize(plain).model, "") if plain is not None else (None, "there is no graph to optimize")
    made[f"dynamo, opset {NEW}, optimized"] = optimized
    answers = {name: _answers(model, reason, feeds, threads) for name, (model, reason) in made.items()}
    if progress is not None:
        progress(len(variants) + 1, len(variants) + 1)
    pairs = [
        (f"torchscript, opset {NEW}", f"dynamo, opset {NEW}"),
        (f"torchscript, opset {OLD}", f"dynamo, opset {OLD}"),
        (f"dynamo, opset {OLD}", f"dynamo, opset {NEW}"),
        (f"torchscript, opset {OLD}", f"torchscript, opset {NEW}"),
        (f"dynamo, opset {NEW}, optimized", f"dynamo, opset {NEW}"),
    ]
    return [_pair(first, second, made, answers) for first, second in pairs]


def _export(network: Network, exporter: str, opset: int) -> tuple[onnx.ModelProto | None, str]:
    try:
        done = export_module(network.module, network.inputs, network.output_names, opset=opset, exporter=exporter)
    except UsageError as error:
        return None, error.message
    return done.model, ""


def _answers(
    model: onnx.ModelProto | None, reason: str, feeds: Sequence[Mapping[str, np.ndarray]], threads: int | None
) -> tuple[Outputs | None, str]:
    if model is None:
        return None, reason
    try:
        runner = OnnxRuntimeRunner(model.SerializeToString(), threads=threads, spin=False, name="export")
        return [run_batch(runner, feed) for feed in feeds], ""
    except UsageError as error:
        return None, error.message


def _pair(
    first: str,
    second: str,
    made: Mapping[str, tuple[onnx.ModelProto | None, str]],
    answers: Mapping[str, tuple[Outputs | None, str]],
) -> Pair:
    graphs = [made[name][0] for name in (first, second)]
    nodes = tuple(len(graph.graph.node) if graph is not None else None for graph in graphs)
    (got, why_not), (want, why_neither) = answers[first], answers[second]
    if got is None or want is None:
        return Pair(first, second, (nodes[0], nodes[1]), reason=why_not or why_neither)
    metrics: dict[str, OutputMetrics] = {}
    for one, other in zip(want, got, strict=True):
        for name, array in one.items():
            ids = [str(i) for i in range(len(array))]
            metrics.setdefault(name, OutputMetrics(name)).update(array, other[name], ids, None)
    values = [m.values() for m in metrics.values()]
    return Pair(
        first,
        second,
        (nodes[0], nodes[1]),
        max(v["max_abs_error"] for v in values),
        max(v["max_rel_error"] for v in values),
        min(v["snr_db"] for v in values),
    )
