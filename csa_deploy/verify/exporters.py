"""The same network exported in several ways: which graphs differ, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from csa_deploy.errors import AccuracyGateError, UsageError
from csa_deploy.export.exporter import export_module
from csa_deploy.graph.optimize import optimize
from csa_deploy.metrics.stream import OutputMetrics
from csa_deploy.results import Stored
from csa_deploy.runners.base import filled, run_batch
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

if TYPE_CHECKING:
    from csa_deploy.instance import Network
    from csa_deploy.pipeline import Context

OLD, NEW = 17, 18  # newest opset of TensorRT 8.6's parser, and the dynamo exporter's own

Progress = Callable[[int, int], None]
Outputs = list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class ExporterPair(Stored):
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


@dataclass(frozen=True)
class ExporterComparison:
    """All pairs, and how many inferences on real inputs they were compared on, beside a random one."""

    pairs: tuple[ExporterPair, ...]
    real: int

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {"schema_version": 1, "pairs": [pair.to_json() for pair in self.pairs]}

    def failure(self, tolerance: float) -> AccuracyGateError | None:
        """The first pair that differs by more than a share of the output's range."""
        for pair in self.pairs:
            if pair.differs(tolerance):
                return AccuracyGateError(
                    f"exporters: {pair.first} differs from {pair.second} by {pair.max_rel_error:.1e} of the range, "
                    f"allowed is {tolerance:g}",
                    fix="see the table; export with the exporter and opset that agree with PyTorch",
                )
        return None


def compare_exporters(context: Context, samples: int, progress: Progress | None = None) -> ExporterComparison:
    """Export a context's network in several ways, and compare on a random input and on samples of its data.

    Raises:
        UsageError: it is an ONNX file, which is exported already.
    """
    config = context.config
    if context.source.kind == "onnx":
        raise UsageError(f"{config.network}: an ONNX file is exported already", fix="name the PyTorch network")
    network = context.make_network()
    how = network.sampling
    size = how.batch or 1
    data = context.dataset(network.preprocessing, limit=samples)
    parts = data.batches(size) if data else ()
    real = [how.network(filled(part.feed(how.shapes), size)) for part in parts]
    pairs = cross_check(network, [random_feeds(how.inputs, config.seed), *real], config.threads, progress)
    return ExporterComparison(tuple(pairs), len(real))


def cross_check(
    network: Network, feeds: Sequence[Mapping[str, np.ndarray]], threads: int | None, progress: Progress | None = None
) -> list[ExporterPair]:
    """Export with dynamo and with TorchScript, in two opsets, plain and optimized, and compare in ONNX Runtime.

    Args:
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
) -> ExporterPair:
    graphs = [made[name][0] for name in (first, second)]
    nodes = tuple(len(graph.graph.node) if graph is not None else None for graph in graphs)
    (got, why_not), (want, why_neither) = answers[first], answers[second]
    if got is None or want is None:
        return ExporterPair(first, second, (nodes[0], nodes[1]), reason=why_not or why_neither)
    metrics: dict[str, OutputMetrics] = {}
    for one, other in zip(want, got, strict=True):
        for name, array in one.items():
            ids = [str(i) for i in range(len(array))]
            metrics.setdefault(name, OutputMetrics(name)).update(array, other[name], ids, None)
    values = [m.values() for m in metrics.values()]
    return ExporterPair(
        first,
        second,
        (nodes[0], nodes[1]),
        max(v["max_abs_error"] for v in values),
        max(v["max_rel_error"] for v in values),
        min(v["snr_db"] for v in values),
    )
