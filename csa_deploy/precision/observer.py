"""Runs a graph and reduces its activations at once: a histogram for what will be INT8, a range for the rest.

Two images run side by side, each on a thread of its own from its pixels to its counts: reducing the activations of one
hides behind the convolutions of the other, and no thread waits for another inside a layer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from csa_deploy.errors import UsageError
from csa_deploy.graph.interface import graph_sampling
from csa_deploy.graph.light import large_weights, without
from csa_deploy.graph.load import EXTERNAL_DATA_FROM, weight_bytes
from csa_deploy.graph.names import Names
from csa_deploy.graph.shapes import inferred, static_shape
from csa_deploy.memory import give_back
from csa_deploy.precision.activations import Feeds, activations
from csa_deploy.precision.bounds import to_measure
from csa_deploy.precision.histogram import Histogram
from csa_deploy.precision.worker import REDUCTIONS, Lane, Observed
from csa_deploy.runners.onnxruntime_runner import CPU, PROVIDERS

CUDA = PROVIDERS["cuda"]
_LANES = 2  # each holds the observed tensors of an image; counting holds Python's lock, so more would wait for it


class RangeObserver:
    """A graph under observation.

    Args:
        model: FP32 graph of static shape.
        tensors: names of the tensors to take histograms of.
        threads: to use; None for one per core.

    Attributes:
        histograms: by tensor name; see :meth:`collect`.
        ranges: largest absolute value of every other FP32 tensor whose size follows from no other; see
            :mod:`csa_deploy.precision.bounds`.
        sampling: how samples go through the graph.
        batch: samples of one inference.
        provider: what executes the graph.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Iterable[str], *, threads: int | None = None) -> None:
        if weight_bytes(model) > EXTERNAL_DATA_FROM:
            raise UsageError("calibration of a graph with more than 1.9 GB of weights is not supported")
        model, observed = _observed(model, tuple(tensors))
        self.sampling, self.batch = observed.sampling, observed.batch
        self.histograms = {name: Histogram() for name in observed.histograms}
        self.ranges = dict.fromkeys(observed.ranges, 0.0)
        threads = threads or os.cpu_count() or 1
        lanes = min(_LANES, threads)
        # The session reads them where they are.
        self._weights = {tensor.name: _shared(tensor) for tensor in large_weights(model)}
        session = _session(model, self._weights, observed, threads - lanes + 1)
        self.provider: str = session.get_providers()[0]
        give_back()  # what loading took, before buffers are filled
        self._lanes = [Lane(session, observed, partial(_every_value, model, observed)) for _ in range(lanes)]

    @property
    def lanes(self) -> int:
        """Number of batches that run side by side."""
        return len(self._lanes)

    def run(self, batches: Sequence[tuple[Mapping[str, np.ndarray], tuple[str, ...]]]) -> None:
        """Observe up to ``lanes`` batches; see :meth:`Lane.run` for each.

        Raises:
            UsageError: a value is NaN or infinite; names the tensor, the node and the first such image. Or data are of
                another type than the network's input.
        """
        batches = [(self.sampling.typed(feeds), ids) for feeds, ids in batches]
        with ThreadPoolExecutor(len(batches), thread_name_prefix="csa-deploy-calibration") as pool:
            jobs = [pool.submit(lane.run, *batch) for lane, batch in zip(self._lanes, batches, strict=False)]
        for job in jobs:
            job.result()

    def collect(self) -> None:
        """Bring what was observed so far together in ``histograms`` and ``ranges``."""
        for lane in self._lanes:
            for name, histogram in self.histograms.items():
                histogram.take(lane.histograms[name])
            for name, largest in lane.ranges.items():
                self.ranges[name] = max(self.ranges[name], largest)
                lane.ranges[name] = 0.0


def _observed(model: onnx.ModelProto, tensors: tuple[str, ...]) -> tuple[onnx.ModelProto, Observed]:
    """What to observe, and in which graph: one that takes samples one at a time, if there is one of the same tensors.

    So the statistics do not depend on the batch that the network was exported with, not even by the rounding of sums.
    """
    sampling = graph_sampling(model)
    if sampling.kind == "batched" and (sampling.batch or 1) > 1:
        from csa_deploy.graph.rebatch import of_one_sample  # loads onnxscript, which batch 1 has no need of

        with suppress(UsageError):  # its batch cannot be followed
            alone, _ = of_one_sample(model)
            if {*tensors} <= _floats(alone):
                return _observed(alone, tensors)
    graph = inferred(model).graph
    values = {str(v.name): v for v in (*graph.inputs, *(o for node in graph for o in node.outputs))}
    ranges, names = to_measure(graph, set(tensors)), Names(graph)
    return model, Observed(
        sampling=sampling,
        histograms=tensors,
        ranges=ranges,
        reduced={
            name: {kind: names.unused(f"{name}_{kind}") for kind in REDUCTIONS}
            for name in ranges
            if values[name] not in graph.inputs
        },
        shapes={name: _shape(values[name]) for name in (*tensors, *ranges)},
        makers={str(o.name): f"{node.name} ({node.op_type})" for node in graph for o in node.outputs},
    )


def _floats(model: onnx.ModelProto) -> set[str]:
    return {value.name for value in model.graph.input} | {name for node in model.graph.node for name in node.output}


def _every_value(model: onnx.ModelProto, observed: Observed, feeds: Feeds) -> Mapping[str, np.ndarray]:
    """All that is observed, unreduced: to find what is not finite."""
    return next(iter(activations(model, [*observed.histograms, *observed.ranges], [feeds])))


def _shape(value: ir.Value) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        raise UsageError(f"the shape of tensor '{value.name}' is not known", fix="export with a static shape")
    return shape


def providers(available: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """CUDA before the CPU where ONNX Runtime has it, computing in full FP32: TF32 would move the ranges."""
    wanted: tuple[tuple[str, dict[str, Any]], ...] = ((CUDA, {"use_tf32": "0"}), (CPU, {}))
    return [(name, options) for name, options in wanted if name in available]


def _session(
    model: onnx.ModelProto, weights: Mapping[str, ort.OrtValue], observed: Observed, threads: int
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A tensor is written out right after it was made: less memory than by default, and it still is in the cache.
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.enable_mem_pattern = False
    options.add_external_initializers(list(weights), list(weights.values()))
    source = without(model, weights)
    present = {value.name for value in model.graph.output}
    source.graph.output.extend(_float(name) for name in observed.outputs if name not in present)
    for name, reduced in observed.reduced.items():
        for kind, output in reduced.items():
            source.graph.node.append(onnx.helper.make_node(kind, [name], [output], keepdims=0))
            source.graph.output.append(_float(output))
    try:
        return ort.InferenceSession(
            source.SerializeToString(), options, providers=providers(ort.get_available_providers())
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(f"the graph does not load in ONNX Runtime: {reason}", fix="export the network again") from None


def _shared(tensor: onnx.TensorProto) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(onnx.numpy_helper.to_array(tensor))


def _float(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
