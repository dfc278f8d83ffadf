"""A graph apart from its large weights: to load or to hash it without another copy of all of them at once."""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx
from google.protobuf.message import Message

_SMALL = 1024
"""Values of a tensor that is left in: operators ask for the numbers of a small one while a graph loads."""


def large_weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """FP32 weights of the main graph that are worth the trouble."""
    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) >= _SMALL
    ]


def without(model: onnx.ModelProto, weights: Collection[str]) -> onnx.ModelProto:
    """The model with the named weights said to lie elsewhere, which the session's options have to tell."""
    light = onnx.ModelProto()
    _merge(model, light, but="graph")
    _merge(model.graph, light.graph, but="initializer")
    for tensor in model.graph.initializer:
        if tensor.name not in weights:
            light.graph.initializer.append(tensor)
            continue
        stub = light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        stub.data_location = onnx.TensorProto.EXTERNAL
        stub.external_data.add(key="location", value="in memory")
    return light


def _merge(source: Message, target: Message, *, but: str) -> None:
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if hasattr(value, "MergeFrom"):
            getattr(target, field.name).MergeFrom(value)
        else:
            setattr(target, field.name, value)
