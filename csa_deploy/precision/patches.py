"""The inputs of a layer as a matrix: each row is what one output position multiplies with the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from csa_deploy.records.precision import Layer


@dataclass(frozen=True)
class Window:
    """How a layer reads its input.

    Attributes:
        groups: convolution groups; 1 for matrix products.
        kernel: height and width; empty for matrix products.
        strides: by axis.
        pads: top, left, bottom, right.
        dilations: by axis.
        by_column: whether the weight of a matrix product is (inputs, outputs).
    """

    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = (1, 1)
    pads: tuple[int, ...] = (0, 0, 0, 0)
    dilations: tuple[int, ...] = (1, 1)
    by_column: bool = False

    def rows(self, values: np.ndarray, most: int, draw: np.random.Generator) -> np.ndarray:
        """Rows by group, (groups, n, inputs), at up to ``most`` positions of each image.

        Args:
            values: the layer's input, (N, C, H, W) or (..., inputs).
            most: positions per image; drawn without repetition where there are more.
            draw: random numbers.
        """
        if not self.kernel:
            flat = values.reshape(-1, values.shape[-1])
            return flat[_drawn(len(flat), most, draw)][None]
        top, left, bottom, right = self.pads
        padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
        height, width = (
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation in zip(
                padded.shape[2:], self.kernel, self.strides, self.dilations, strict=True
            )
        )
        positions = _drawn(height * width, most, draw)
        down = (positions // width * self.strides[0])[:, None, None]
        right_of = (positions % width * self.strides[1])[:, None, None]
        down = down + (np.arange(self.kernel[0]) * self.dilations[0])[None, :, None]
        right_of = right_of + (np.arange(self.kernel[1]) * self.dilations[1])[None, None, :]
        patches = padded[:, :, down, right_of]  # (N, C, positions, height, width)
        grouped = patches.reshape(len(values), self.groups, -1, *patches.shape[2:])
        return grouped.transpose(1, 0, 3, 2, 4, 5).reshape(self.groups, len(values) * len(positions), -1)

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The weight as (groups, outputs of a group, inputs), so that outputs are rows @ matrix^T."""
        if self.kernel:
            return weight.reshape(self.groups, len(weight) // self.groups, -1)
        return (weight.T if self.by_column else weight)[None]

    def weight(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The inverse of :meth:`matrix`."""
        return matrix.reshape(shape) if self.kernel or not self.by_column else matrix[0].T


def _drawn(positions: int, most: int, draw: np.random.Generator) -> np.ndarray:
    return np.arange(positions) if positions <= most else draw.choice(positions, most, replace=False)


def window_of(node: ir.Node, layer: Layer) -> Window | None:
    """The window of a layer; None for what is not covered (transposed or 1-D convolutions, automatic padding)."""
    weight = node.inputs[1]
    if node.op_type == "Conv" and weight is not None and weight.shape is not None and len(weight.shape) == 4:
        if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
            return None
        return Window(
            groups=int(node.attributes.get_int("group", 1) or 1),
            kernel=tuple(int(side) for side in weight.shape.numpy()[2:]),
            strides=tuple(node.attributes.get_ints("strides") or (1, 1)),
            pads=tuple(node.attributes.get_ints("pads") or (0, 0, 0, 0)),
            dilations=tuple(node.attributes.get_ints("dilations") or (1, 1)),
        )
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not node.attributes.get_int("transA", 0)):
        return Window(by_column=layer.axis == 1)
    return None
