"""Inputs and outputs of an ONNX graph, as the file states them."""

from __future__ import annotations

import onnx

from csa_deploy.spec import Sampling, TensorSpec, sampling_of, stated_sample


def interface_of(model: onnx.ModelProto) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs, without weights that are listed as such, and outputs; None is an axis without a size."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [_spec(value) for value in model.graph.input if value.name not in weights]
    return inputs, [_spec(value) for value in model.graph.output]


def graph_sampling(model: onnx.ModelProto) -> Sampling:
    """How samples go through a graph."""
    stated = stated_sample({entry.key: entry.value for entry in model.metadata_props})
    return sampling_of(*interface_of(model), stated)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return TensorSpec(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)
