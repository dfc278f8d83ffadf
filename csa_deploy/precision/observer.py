"""Runs a graph and reduces its activations at once: a histogram for what will be INT8, a range for the rest.

ONNX Runtime writes the observed tensors into buffers that are bound once, so a pass allocates nothing per image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from csa_deploy.errors import UsageError
from csa_deploy.graph.load import EXTERNAL_DATA_FROM, weight_bytes
from csa_deploy.graph.shapes import inferred, static_shape
from csa_deploy.precision.histogram import Histogram, Scratch
from csa_deploy.precision.placement import GATES

# Outputs of these are no larger than their inputs (a linear Resize interpolates), or lie in [-1, 1].
_BOUNDED = {
    *("AveragePool", "Concat", "Expand", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool", "Identity"),
    *("HardSigmoid", "MaxPool", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Tanh", "Tile"),
    *("Transpose", "Unsqueeze"),
}
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


class Observer:
    """A graph under observation.

    Args:
        model: FP32 graph of static shape.
        tensors: names of the tensors to take histograms of.
        threads: of ONNX Runtime; None for one per core.

    Attributes:
        histograms: by tensor name.
        ranges: largest absolute value of every other FP32 tensor that can be larger than what it is computed from.
        makers: name of the node that makes a tensor.
        batch: static batch size of the graph.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Iterable[str], *, threads: int | None = None) -> None:
        if weight_bytes(model) > EXTERNAL_DATA_FROM:
            raise UsageError("calibration of a graph with more than 1.9 GB of weights is not supported")
        graph = inferred(model).graph
        values = {v.name: v for v in (*graph.inputs, *(o for node in graph for o in node.outputs))}
        self.inputs = {str(v.name): static_shape(v) or () for v in graph.inputs if not v.is_initializer()}
        self.batch = next(iter(self.inputs.values()))[0]
        self.makers = {o.name: f"{node.name} ({node.op_type})" for node in graph for o in node.outputs}
        self.histograms = {name: Histogram() for name in tensors}
        self.ranges = dict.fromkeys(_unbounded(graph, set(self.histograms)), 0.0)
        shapes = {name: _shape(values[name]) for name in (*self.histograms, *self.ranges)}
        self._scratch = Scratch()
        self._buffers = {
            n: np.empty(s, np.float32) for n, s in shapes.items() if n not in self.inputs and s is not None
        }
        self._feeds = {n: np.empty(s, np.float32) for n, s in self.inputs.items()}
        self._session = _session(model, self._buffers, threads)
        self.provider: str = self._session.get_providers()[0]
        self._binding = self._bind()

    def run(self, feeds: Mapping[str, np.ndarray], ids: tuple[str, ...]) -> None:
        """Observe up to ``batch`` samples: arrays (n, ...) by input name, and their identities.

        Raises:
            UsageError: a value is NaN or infinite; names the tensor, the node and the image.
        """
        count = len(ids)
        for name, array in feeds.items():
            self._feeds[name][:count] = array
            self._feeds[name][count:] = array[-1:]  # a static batch is filled up; what comes of it is not counted
        self._session.run_with_iobinding(self._binding)
        for name, histogram in self.histograms.items():
            if not histogram.add(self._of(name, count), self._scratch):
                raise self._not_finite(ids)
        for name in self.ranges:
            values = self._of(name, count)
            largest = max(float(values.max()), -float(values.min()))
            if not math.isfinite(largest):
                raise self._not_finite(ids)
            self.ranges[name] = max(self.ranges[name], largest)

    def _of(self, name: str, count: int) -> np.ndarray:
        array = self._buffers[name] if name in self._buffers else self._feeds[name]
        return array[:count] if count < self.batch and array.shape[0] == self.batch else array

    def _not_finite(self, ids: tuple[str, ...]) -> UsageError:
        """Name the first tensor in the graph's order that is not finite, and the image."""
        for name in [n for n in (*self.inputs, *self.makers) if n in self._buffers or n in self._feeds]:
            values = self._of(name, len(ids))
            if np.isfinite(values).all():
                continue
            bad = 0
            if values.shape[0] == len(ids):
                bad = int(np.flatnonzero(~np.isfinite(values.reshape(len(ids), -1)).all(axis=1))[0])
            maker = f"made by node {self.makers[name]}" if name in self.makers else "a network input"
            return UsageError(
                f"activation '{name}', {maker}, is NaN or infinite on image {ids[bad]}",
                fix="remove that image, or look at the network's weights there",
            )
        raise AssertionError("all activations are finite")

    def _bind(self) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name, array in self._feeds.items():
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in self._buffers.items():
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for output in self._session.get_outputs():
            if output.name not in self._buffers:
                binding.bind_output(output.name, "cpu")
        return binding


def _shape(value: ir.Value) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        raise UsageError(f"the shape of tensor '{value.name}' is not known", fix="export with a static shape")
    return shape


def _unbounded(graph: ir.Graph, histograms: set[str]) -> list[str]:
    """FP32 tensors whose range is not bounded by that of other observed tensors."""
    found = []
    for node in graph:
        gated = node.op_type == "Mul" and any(
            v is not None and (p := v.producer()) is not None and p.op_type in GATES for v in node.inputs
        )
        linear_resize = node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") != "cubic"
        if node.op_type in _BOUNDED or gated or linear_resize:
            continue
        found += [
            str(v.name)
            for v in node.outputs
            if v.dtype == ir.DataType.FLOAT and v.name not in histograms and static_shape(v) is not None
        ]
    return found


def _session(model: onnx.ModelProto, observed: Iterable[str], threads: int | None) -> ort.InferenceSession:
    outputs = {value.name for value in model.graph.output}
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    for name in observed:
        if name not in outputs:
            extended.graph.output.append(_float(name))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [p for p in (CUDA, CPU) if p in ort.get_available_providers()]
    try:
        return ort.InferenceSession(extended.SerializeToString(), options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(f"the graph does not load in ONNX Runtime: {reason}", fix="export the network again") from None


def _float(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
