"""Reads a parsed TensorRT network back: its layers, inputs and outputs, and whether it is what the plan says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from csa_deploy.engine.plan import Precision
from csa_deploy.engine.result import ParsedLayer
from csa_deploy.errors import UsageError
from csa_deploy.records.build import TensorInfo

if TYPE_CHECKING:
    import tensorrt

_ORIGIN = re.compile(r"\[ONNX Layer: (.*)\]")  # layer metadata written by the ONNX parser; names may hold brackets
_HALVES = {"HALF", "BF16"}


def read_layers(network: tensorrt.INetworkDefinition) -> tuple[ParsedLayer, ...]:
    """All layers in the parser's order."""
    return tuple(_layer(index, network.get_layer(index)) for index in range(network.num_layers))


def network_inputs(network: tensorrt.INetworkDefinition) -> tuple[TensorInfo, ...]:
    """Network inputs."""
    return _tensors(network.get_input(index) for index in range(network.num_inputs))


def network_outputs(network: tensorrt.INetworkDefinition) -> tuple[TensorInfo, ...]:
    """Network outputs."""
    return _tensors(network.get_output(index) for index in range(network.num_outputs))


def check_network(network: tensorrt.INetworkDefinition, model: str, precision: Precision) -> None:
    """Raise UsageError when there is no network, an axis is dynamic, or the precision is not the graph's."""
    if network.num_outputs == 0:  # the parser takes an empty or foreign file for an empty graph
        raise UsageError(f"{model} holds no network", fix="give a complete ONNX file")
    for tensor in network_inputs(network):
        if -1 in tensor.shape:
            raise UsageError(
                f"{model}: axis {tensor.shape.index(-1)} of input {tensor.name!r} is dynamic",
                fix="export the network with a static batch and size",
            )
    types = {tensor.dtype for layer in read_layers(network) for tensor in layer.outputs}
    fits = {"fp32": not types & _HALVES, "fp16": "HALF" in types, "int8": "INT8" in types}
    if not fits[precision]:
        raise UsageError(
            f"{model} is no {precision} graph: its tensors are {', '.join(sorted(types))}",
            fix="convert the graph first; the builder takes the precision from it",
        )


def _layer(index: int, layer: tensorrt.ILayer) -> ParsedLayer:
    origin = _ORIGIN.fullmatch(layer.metadata or "")
    return ParsedLayer(
        index=index,
        name=layer.name,
        type=layer.type.name,
        onnx_node=origin[1] if origin else "",
        inputs=_tensors(layer.get_input(i) for i in range(layer.num_inputs)),
        outputs=_tensors(layer.get_output(i) for i in range(layer.num_outputs)),
    )


def _tensors(tensors: Iterable[tensorrt.ITensor | None]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(t.name, t.dtype.name, tuple(int(d) for d in t.shape)) for t in tensors if t is not None)
