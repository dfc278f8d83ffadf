"""Runs an ONNX graph in FP64 with ONNX's own reference implementation: slow, and independent of every other backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from csa_deploy.errors import UsageError
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.runners.base import check_feeds
from csa_deploy.spec import Arrays, TensorSpec, stated_sample

MOST_MACS = 25e9
"""Multiply-accumulates up to which it is worth waiting for: about 2 s each 1e9 on one core (measured)."""


class ExactRunner:
    """An FP32 graph, all of whose FP32 tensors are FP64 here.

    Raises:
        UsageError: the graph holds other floating-point types, whose rounding FP64 would not show, or is too large.
    """

    name = "ONNX reference, FP64"
    host_threads = 1

    def __init__(self, path: Path) -> None:
        from onnx.reference import ReferenceEvaluator

        model = onnx.load(path)
        macs = graph_statistics(model).macs
        if macs is None:
            raise UsageError("the work of some nodes is not known, and so not how long ONNX's reference would take")
        if macs > MOST_MACS:
            raise UsageError(f"{macs / 1e9:.0f} G multiply-accumulates would take ONNX's reference minutes in FP64")
        if reason := _inexact(model.graph):
            raise UsageError(f"the graph {reason}, so FP64 would compute something else")
        _to_double(model)
        self.input_specs, self.output_specs = (
            tuple(_spec(value) for value in values) for values in (model.graph.input, model.graph.output)
        )
        self.sample = stated_sample({entry.key: entry.value for entry in model.metadata_props})
        self._evaluator = ReferenceEvaluator(model)

    def describe(self) -> dict[str, Any]:
        """What executes."""
        executes = "the ONNX graph in FP64, by ONNX's reference implementation"
        return {"backend": "onnx", "version": onnx.__version__, "provider": "CPU", "threads": 1, "executes": executes}

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Execute once; see :class:`csa_deploy.runners.base.Runner`."""
        check_feeds(self.input_specs, feeds)
        results: Any = self._evaluator.run(None, dict(feeds))
        return {spec.name: np.asarray(result) for spec, result in zip(self.output_specs, results, strict=True)}

    def __enter__(self) -> ExactRunner:
        """Nothing to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


def _inexact(graph: onnx.GraphProto) -> str:
    """Why a graph is more than FP32 arithmetic; empty when it is not."""
    half = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    attributes = [(node.op_type, a) for node in graph.node for a in node.attribute]
    if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for _, a in attributes):
        return "has graphs inside nodes"
    casts = [a.i for op, a in attributes if op == "Cast" and a.name == "to"]
    if any(kind in half for kind in (*casts, *(t.data_type for t in _tensors(graph, set())))):
        return "is not FP32 throughout"
    return ""


def _to_double(model: onnx.ModelProto) -> None:
    """FP32 becomes FP64 wherever it is a value; Resize's scales stay, since the standard has them in FP32."""
    graph = model.graph
    scales = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:3]}
    for tensor in _tensors(graph, scales):
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
        if node.op_type == "ConstantOfShape" and not node.attribute:
            node.attribute.append(onnx.helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
        if node.op_type == "Constant" and node.attribute[0].name in ("value_float", "value_floats"):
            number = np.asarray(onnx.helper.get_attribute_value(node.attribute[0]), np.float64)
            node.attribute[0].CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(number)))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE


def _tensors(graph: onnx.GraphProto, without: set[str]) -> Iterator[TensorProto]:
    """Initializers and the tensors of nodes' attributes, but for the named values."""
    yield from (tensor for tensor in graph.initializer if tensor.name not in without)
    for node in graph.node:
        if not without.intersection(node.output):
            yield from (a.t for a in node.attribute if a.type == AttributeProto.TENSOR)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return TensorSpec(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)
