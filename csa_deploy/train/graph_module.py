"""An ONNX graph as a PyTorch module whose weights can be trained, with INT8 rounding where a placement puts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor, nn

from csa_deploy.errors import UsageError
from csa_deploy.precision.placement import Layer
from csa_deploy.precision.thresholds import LEVELS

Attributes = dict[str, Any]


class GraphModule(nn.Module):
    """Runs a static FP32 graph with one image input and one output, for any batch size.

    Weights of two and more dimensions that convolutions and matrix products read, and their biases, are parameters;
    all other initializers are constants. The inputs and weights of ``layers`` are rounded to INT8 as the graph's Q/DQ
    nodes do, with gradients passed straight through; activations keep their scales, weights take the scale of their
    largest value, per output channel.

    Args:
        model: the graph.
        layers: what runs in INT8.
        scales: INT8 scale by activation.

    Raises:
        UsageError: an operator that has no counterpart here, or several inputs or outputs.
    """

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer], scales: Mapping[str, float]) -> None:
        super().__init__()
        graph = model.graph
        values = {t.name: np.array(numpy_helper.to_array(t)) for t in graph.initializer}
        inputs = [i for i in graph.input if i.name not in values]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise UsageError("fine-tuning takes graphs with one input and one output")
        unknown = sorted({n.op_type for n in graph.node if n.op_type not in _OPERATORS})
        if unknown:
            raise UsageError(
                f"fine-tuning does not know the operator {', '.join(unknown)}", fix=f"it knows {', '.join(_OPERATORS)}"
            )
        self.input, self.output = inputs[0].name, graph.output[0].name
        self.batch = inputs[0].type.tensor_type.shape.dim[0].dim_value
        self.nodes = [(n, {a.name: helper.get_attribute_value(a) for a in n.attribute}) for n in graph.node]
        self.layers = {layer.name: layer for layer in layers}
        self.scales = dict(scales)
        trained = [name for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul") for name in n.input[1:3]]
        self.names = [name for name in dict.fromkeys(trained) if name in values]
        self.weights = nn.ParameterList([nn.Parameter(torch.from_numpy(values[name])) for name in self.names])
        self.constants = {name: torch.from_numpy(v) for name, v in values.items() if name not in self.names}

    def forward(self, image: Tensor) -> Tensor:
        """Image (N, C, H, W) -> the graph's output, with N in place of its batch."""
        values: dict[str, Tensor] = {name: value.to(image.device) for name, value in self.constants.items()}
        values.update(zip(self.names, self.weights, strict=True))
        values[self.input] = image
        rounded: dict[str, Tensor] = {}
        for node, attributes in self.nodes:
            arguments = [values[name] if name else None for name in node.input]
            layer = self.layers.get(node.name)
            if layer is not None:
                self._round(layer, arguments, rounded)
            if node.op_type == "Reshape":
                attributes = {**attributes, "batch": self.batch}
            values[node.output[0]] = _OPERATORS[node.op_type](arguments, attributes)
        return values[self.output]

    def _round(self, layer: Layer, arguments: list[Any], rounded: dict[str, Tensor]) -> None:
        """Replace a layer's activations and weight by their INT8 values."""
        for index, tensor in layer.activations.items():
            if tensor not in rounded:
                rounded[tensor] = torch.fake_quantize_per_tensor_affine(
                    arguments[int(index)], self.scales[tensor], 0, -LEVELS - 1, LEVELS
                )
            arguments[int(index)] = rounded[tensor]
        if layer.weight is not None:
            weight = arguments[1]
            others = [axis for axis in range(weight.ndim) if axis != layer.axis]
            scale = (weight.detach().abs().amax(others) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
            zero = torch.zeros_like(scale, dtype=torch.int32)
            arguments[1] = torch.fake_quantize_per_channel_affine(weight, scale, zero, layer.axis, -LEVELS, LEVELS)

    def written_to(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the graph with the weights as they are now."""
        result = onnx.ModelProto()
        result.CopyFrom(model)
        trained = dict(zip(self.names, self.weights, strict=True))
        for tensor in result.graph.initializer:
            if tensor.name in trained:
                tensor.CopyFrom(numpy_helper.from_array(trained[tensor.name].detach().cpu().numpy(), tensor.name))
        return result


def _symmetric(attributes: Attributes, name: str) -> list[int]:
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    half = len(pads) // 2
    if pads[:half] != pads[half:] or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise UsageError(f"fine-tuning knows symmetric padding only; a {name} has {pads}")
    return pads[:half]


def _convolution(x: Sequence[Any], a: Attributes) -> Tensor:
    return F.conv2d(
        x[0],
        x[1],
        x[2] if len(x) > 2 else None,
        stride=a.get("strides", 1),
        padding=_symmetric(a, "Conv"),
        dilation=a.get("dilations", 1),
        groups=a.get("group", 1),
    )


def _pooling(x: Sequence[Any], a: Attributes) -> Tensor:
    padding = _symmetric(a, "AveragePool")
    return F.avg_pool2d(
        x[0], a["kernel_shape"], a.get("strides", 1), padding, count_include_pad=bool(a.get("count_include_pad", 0))
    )


def _product(x: Sequence[Any], a: Attributes) -> Tensor:
    left = x[0].mT if a.get("transA") else x[0]
    right = x[1].mT if a.get("transB") else x[1]
    product = a.get("alpha", 1.0) * (left @ right)
    return product if len(x) < 3 or x[2] is None else product + a.get("beta", 1.0) * x[2]


def _reshape(x: Sequence[Any], a: Attributes) -> Tensor:
    shape = x[1].tolist()
    return x[0].reshape([x[0].shape[0], *shape[1:]] if shape[0] == a["batch"] else shape)


def _resize(x: Sequence[Any], a: Attributes) -> Tensor:
    if a.get("mode") != b"linear" or a.get("coordinate_transformation_mode", b"half_pixel") != b"half_pixel":
        raise UsageError("fine-tuning knows bilinear resizes with half-pixel centres only")
    if len(x) > 3:
        return F.interpolate(x[0], size=x[3].tolist()[2:], mode="bilinear", align_corners=False)
    scales = x[2].tolist()[2:]
    return F.interpolate(x[0], scale_factor=scales, mode="bilinear", align_corners=False, recompute_scale_factor=False)


_OPERATORS: dict[str, Callable[[Sequence[Any], Attributes], Tensor]] = {
    "Add": lambda x, a: x[0] + x[1],
    "AveragePool": _pooling,
    "Conv": _convolution,
    "Flatten": lambda x, a: x[0].flatten(a.get("axis", 1)),
    "Gemm": _product,
    "GlobalAveragePool": lambda x, a: x[0].mean((2, 3), keepdim=True),
    "MatMul": _product,
    "Mul": lambda x, a: x[0] * x[1],
    "Relu": lambda x, a: F.relu(x[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda x, a: torch.sigmoid(x[0]),
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
}
