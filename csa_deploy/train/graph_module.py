"""An ONNX graph as a PyTorch module whose weights can be trained, with INT8 rounding where a placement puts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from csa_deploy.errors import UsageError
from csa_deploy.graph.facts import opset_of
from csa_deploy.graph.operators import ONNX_DOMAINS, WEIGHTED
from csa_deploy.precision.thresholds import INT8_LEVELS
from csa_deploy.records.precision import Layer
from csa_deploy.train.operators import OPERATORS, OPSETS, Compute, TorchNode, TorchValue


class GraphModule(nn.Module):
    """Runs a static FP32 graph with one image input and one output, for any batch size.

    Weights of two and more dimensions that convolutions and matrix products read, and their biases, are parameters;
    all other initializers are constants. The inputs and weights of ``layers`` are rounded to INT8 as the graph's Q/DQ
    nodes do, with gradients passed straight through; activations keep their scales, weights take the scale of their
    largest value, per output channel.

    Args:
        layers: what runs in INT8.
        scales: INT8 scale by activation.

    Raises:
        UsageError: something of the graph has no counterpart here, so that the module would be another function.
    """

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer], scales: Mapping[str, float]) -> None:
        super().__init__()
        graph = model.graph
        values = {t.name: np.array(numpy_helper.to_array(t)) for t in graph.initializer}
        self.input, self.shape = _one_image(model, set(values))
        self.output = graph.output[0].name
        self.layers = {layer.name: layer for layer in layers}
        self.scales = dict(scales)
        trained = [name for n in graph.node if n.op_type in WEIGHTED for name in n.input[1:3]]
        self.names = [name for name in dict.fromkeys(trained) if name in values]
        if other := [name for name in self.names if values[name].dtype != np.float32]:
            raise UsageError(f"fine-tuning takes FP32 graphs; the weight {other[0]} is {values[other[0]].dtype}")
        self.weights = nn.ParameterList([nn.Parameter(torch.from_numpy(values[name])) for name in self.names])
        self.constants = {name: torch.from_numpy(v) for name, v in values.items() if name not in self.names}
        self.nodes = list(_prepared(graph, self.input, self.shape, values))

    def forward(self, image: Tensor) -> Tensor:
        """Image (N, C, H, W) -> the graph's output, with N in place of its batch.

        Raises:
            UsageError: C, H or W are not the graph's.
        """
        if tuple(image.shape[1:]) != self.shape[1:]:
            raise UsageError(
                f"the graph takes images of {_sides(self.shape)}, not of {_sides(image.shape)}",
                fix="fine-tune at the size of the graph, or export and quantize the network at this one",
            )
        values: dict[str, Tensor] = {name: value.to(image.device) for name, value in self.constants.items()}
        values.update(zip(self.names, self.weights, strict=True))
        values[self.input] = image
        rounded: dict[str, Tensor] = {}
        for node, compute in self.nodes:
            arguments = [values[name] if name else None for name in node.input]
            layer = self.layers.get(node.name)
            if layer is not None:
                self._round(layer, arguments, rounded)
            values[node.output[0]] = compute(*arguments)
        return values[self.output]

    def _round(self, layer: Layer, arguments: list[Any], rounded: dict[str, Tensor]) -> None:
        """Replace a layer's activations and weight by their INT8 values."""
        for index, tensor in layer.activations.items():
            if tensor not in rounded:
                rounded[tensor] = torch.fake_quantize_per_tensor_affine(
                    arguments[int(index)], self.scales[tensor], 0, -INT8_LEVELS - 1, INT8_LEVELS
                )
            arguments[int(index)] = rounded[tensor]
        if layer.weight is not None:
            weight = arguments[1]
            others = [axis for axis in range(weight.ndim) if axis != layer.axis]
            scale = (weight.detach().abs().amax(others) / INT8_LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
            zero = torch.zeros_like(scale, dtype=torch.int32)
            arguments[1] = torch.fake_quantize_per_channel_affine(
                weight, scale, zero, layer.axis, -INT8_LEVELS, INT8_LEVELS
            )

    def written_to(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the graph with the weights as they are now."""
        result = onnx.ModelProto()
        result.CopyFrom(model)
        trained = dict(zip(self.names, self.weights, strict=True))
        for tensor in result.graph.initializer:
            if tensor.name in trained:
                tensor.CopyFrom(numpy_helper.from_array(trained[tensor.name].detach().cpu().numpy(), tensor.name))
        return result


def _one_image(model: onnx.ModelProto, constants: set[str]) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the one input of a graph that fine-tuning takes."""
    graph = model.graph
    opset = opset_of(model)
    if opset not in OPSETS:
        raise UsageError(
            f"fine-tuning knows opsets {OPSETS[0]} to {OPSETS[-1]}, this graph has {opset}",
            fix=f"export with --opset {min(max(opset, OPSETS[0]), OPSETS[-1])}",
        )
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UsageError("fine-tuning takes graphs with one input and one output")
    unknown = sorted({n.op_type for n in graph.node if n.op_type not in OPERATORS or n.domain not in ONNX_DOMAINS})
    if unknown:
        raise UsageError(
            f"fine-tuning does not know the operator {', '.join(unknown)}", fix=f"it knows {', '.join(OPERATORS)}"
        )
    image = inputs[0].type.tensor_type
    shape = tuple(d.dim_value for d in image.shape.dim)
    if image.elem_type != TensorProto.FLOAT or len(shape) < 2 or min(shape) < 1:
        raise UsageError(f"fine-tuning takes a graph with an FP32 input of static shape; {inputs[0].name} is another")
    return inputs[0].name, shape


def _prepared(
    graph: onnx.GraphProto, image: str, shape: tuple[int, ...], constants: Mapping[str, np.ndarray]
) -> Iterator[tuple[onnx.NodeProto, Compute]]:
    """Each node with its computation; shapes are found by running it on tensors without content."""
    known = {name: TorchValue(value.shape, False, value) for name, value in constants.items()}
    known[image] = TorchValue(shape, True)
    types = {name: torch.from_numpy(value).dtype for name, value in constants.items()}
    for proto in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        node = TorchNode(proto.op_type, proto.name, attributes, tuple(known[n] if n else None for n in proto.input))
        node.demand(len(proto.output) == 1, f"it has {len(proto.output)} outputs")
        compute = OPERATORS[proto.op_type].prepared(node)
        try:
            found = compute(
                *(torch.empty(known[n].shape, dtype=types.get(n), device="meta") if n else None for n in proto.input)
            )
        except (RuntimeError, ValueError) as error:
            raise node.refused(str(error).splitlines()[0]) from None
        node.demand(found.dtype == torch.float32, f"it computes in {found.dtype}")
        node.demand(0 not in found.shape, f"its result {list(found.shape)} is empty")
        batched = any(value.batched for value in node.inputs if value is not None)
        known[proto.output[0]] = TorchValue(tuple(found.shape), batched)
        yield proto, compute
    result, stated = known[graph.output[0].name], graph.output[0].type.tensor_type.shape
    if not result.batched:
        raise UsageError(f"fine-tuning takes a graph whose output {graph.output[0].name} depends on the image")
    extents = tuple(d.dim_value or n for d, n in zip(stated.dim, result.shape, strict=False))
    if stated.dim and (extents != result.shape or len(stated.dim) != len(result.shape)):
        raise UsageError(f"fine-tuning makes {result.shape} of {graph.output[0].name}, the graph states {extents}")


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape[1:])
