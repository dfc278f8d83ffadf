"""Gives layers in floating point the limits of an equalized Clip back, channel by channel.

An equalized channel reaches the limit of its Clip earlier than before. INT8 layers lose nothing more by it, as the
scale of what they read ends at that limit at the latest. A layer in floating point, which the search has returned for
the sake of accuracy, would be cut off with them; where one reads, each channel has a limit of its own, which makes the
tensor what it was before, scaled. It is a Min behind a ReLU, as a Clip has one limit for all channels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from csa_deploy.graph.facts import add_initializer, remove_unused_initializers
from csa_deploy.graph.names import Names
from csa_deploy.graph.shapes import editable
from csa_deploy.precision.equalization import HEADROOM
from csa_deploy.records.precision import Layer
from csa_deploy.units import counted


def with_exact_limits(
    model: onnx.ModelProto, limits: Mapping[str, np.ndarray], layers: Iterable[Layer]
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph, itself where nothing changes, and the tensors that got a limit per channel.

    Args:
        model: equalized FP32 graph; not changed.
        limits: what the limit of a Clip has become in each channel, by the tensor that it makes.
        layers: what runs in INT8; what these read of the tensors keeps the Clip if nobody else reads it.
    """
    rounded = {(layer.name, index) for layer in layers for index in layer.activations}
    view = editable(model)
    names, found = Names(view.graph), []
    for node in list(view.graph):
        tensor = node.outputs[0]
        if tensor.name in limits and any((user.name, index) not in rounded for user, index in tensor.uses()):
            found.append(str(tensor.name))
            _limit_channels(view.graph, names, node, limits[str(tensor.name)])
    if not found:
        return model, ()
    remove_unused_initializers(view.graph)
    return ir.to_proto(view), tuple(found)


def said_of_limits(limits: Collection[str], exact: Collection[str]) -> list[str]:
    """What a user must know of equalized limits, of which some were made exact."""
    said = []
    if left := len(limits) - len(exact):
        said.append(
            f"clip equalization: in {counted(left, 'tensor')} that only INT8 layers read, a channel is cut off beyond "
            f"{HEADROOM:g} times its largest value on the images fitted to (or the limit of its Clip); calibrate on "
            "all that is met in use, or leave it out of --techniques"
        )
    if exact:
        said.append(
            f"clip equalization: in {counted(len(exact), 'tensor')} that layers in floating point read, each channel "
            f"keeps the limit of the graph before it; the first is {next(iter(exact))}"
        )
    return said


def _limit_channels(graph: ir.Graph, names: Names, clip: ir.Node, limits: np.ndarray) -> None:
    """Put a ReLU and a Min in the place of a Clip; the name of what it makes stays."""
    tensor, source = clip.outputs[0], clip.inputs[0]
    rank = len(tensor.shape) if tensor.shape is not None else 4
    shaped = np.asarray(limits, np.float32).reshape(-1, *[1] * (rank - 2))
    constant = add_initializer(graph, names.unused(f"{tensor.name}_limits"), shaped)
    relu = ir.node("Relu", [source], name=names.unused(f"{clip.name}_relu"), metadata_props=dict(clip.metadata_props))
    positive = relu.outputs[0]
    positive.name, positive.shape, positive.type = names.unused(f"{tensor.name}_positive"), tensor.shape, tensor.type
    graph.insert_before(clip, relu)
    name, tensor.name = str(tensor.name), None
    least = ir.node("Min", [positive, constant], name=clip.name, metadata_props=dict(clip.metadata_props))
    made = least.outputs[0]
    made.name, made.shape, made.type = name, tensor.shape, tensor.type
    graph.insert_after(clip, least)
    for user, index in tuple(tensor.uses()):
        user.replace_input_with(index, made)
    graph.remove(clip, safe=True)
