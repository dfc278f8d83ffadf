"""Convolutional Self-Attention (CSA): attention by convolutions, element-wise products and reshapes alone.

No softmax, no matrix product, no LayerNorm and no reduction, so that the network stays within TensorRT's
restricted mode. Written from the mathematical description of the network; tensor names follow the published
checkpoints so that these load.

Notation: activations are (N, C, H, W); ``S`` is the side of a stage's attention map and ``P = S * S``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """One stage: ``blocks`` CSA blocks on ``channels`` channels with ``heads`` heads over an S x S map.

    So many ``convolutions`` of 3x3 come before them.
    """

    blocks: int
    channels: int
    heads: int
    map_side: int
    convolutions: int = 0


@dataclass(frozen=True)
class Stem:
    """First downsampling convolution: kernel, stride and padding in pixels, and its input channels."""

    kernel: int = 7
    stride: int = 4
    padding: int = 3
    in_channels: int = 3


@dataclass(frozen=True)
class CSAConfig:
    """Everything that distinguishes one CSA network from another."""

    stages: tuple[Stage, ...]
    classes: int = 1000
    stem: Stem = Stem()
    downsample_padding: int = 0
    expansion: int = 3
    value_kernel: int = 5
    drop_path: float = 0.0
    layer_scale: float | None = None


def resize_scale(size: int, target: int) -> float:
    """Scale for a Resize from ``size`` to ``target`` pixels that every runtime rounds to ``target``.

    The output size of a Resize by scale is ``floor(size * scale)``, and three arithmetics are in use (float64,
    float32, and float32 scale times size in float64). The float32 just above ``target / size`` is right in all
    three for sizes 1..512 against 7 and 14, also in TensorRT's parser. It moves the scale by up to 1.8e-7 of itself,
    and values of unit noise by 1e-5 (27 to 14) to 2e-4 (441 to 14). A quotient that float32 holds exactly (0.5, 2,
    4: the only ones that DLA takes) needs no nudge.
    """
    if float(np.float32(target / size)) * size == target:
        return target / size
    return float(np.nextafter(np.float32(target / size), np.float32(np.inf)))


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize of (N, C, H, W) to (N, C, height, width), half-pixel centres, exported with scales."""
    h, w = int(x.shape[-2]), int(x.shape[-1])
    if (h, w) == (height, width):
        return x
    scale = (resize_scale(h, height), resize_scale(w, width))
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=False)


class DropPath(nn.Module):
    """Stochastic depth: in training, drops the whole residual branch of a sample with probability ``p``."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The branch ``x``, in training scaled by ``1 / (1 - p)`` or zero per sample."""
        if not self.training or self.p == 0.0:
            return x
        keep = 1.0 - self.p
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep).div_(keep)


def swish_norm(channels: int) -> nn.Sequential:
    """BatchNorm, then swish."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.SiLU())


class CSABlock(nn.Module):
    """Convolutional self-attention with a residual connection; (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, stage: Stage, config: CSAConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        channels, k = stage.channels, config.value_kernel
        self.side, self.heads = stage.map_side, stage.heads
        relations = stage.heads * stage.map_side**2
        hidden = config.expansion * channels

        self.v = nn.Conv2d(channels, channels, k, padding=k // 2, groups=channels)
        self.act_v = swish_norm(channels)
        self.q = nn.Conv2d(channels, relations, 1)
        self.norm_q = nn.BatchNorm2d(relations)
        self.qk = nn.Conv2d(relations, channels, 1)
        self.act_qk = nn.Sequential(nn.BatchNorm2d(channels), nn.Sigmoid())
        self.qkv = nn.Conv2d(channels, hidden, 1)
        self.act_qkv = swish_norm(hidden)
        self.mlp = nn.Conv2d(hidden, channels, 1)
        self.drop_path = DropPath(drop_path)
        self.gamma = (
            nn.Parameter(torch.full((1, channels, 1, 1), config.layer_scale))
            if config.layer_scale is not None
            else None
        )
        self.register_load_state_dict_pre_hook(adopt_layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """One block; the shape is kept."""
        height, width = int(x.shape[-2]), int(x.shape[-1])
        v = self.act_v(self.v(x))
        q = self.norm_q(self.q(resize(v, self.side, self.side)))
        a = resize(q * self.key(q), height, width)
        a = self.act_qk(self.qk(a))
        y = self.mlp(self.act_qkv(self.qkv(a * v)))
        if self.gamma is not None:
            y = self.gamma * y
        return x + self.drop_path(y)

    def key(self, q: Tensor) -> Tensor:
        """Per head, the transpose of q seen as a (channel, position) matrix of P x P; same shape as q."""
        positions = self.side**2
        k = q.reshape(-1, self.heads, positions, positions).transpose(2, 3)
        return k.reshape(-1, self.heads * positions, self.side, self.side)


class ConvBlock(nn.Module):
    """A 3x3 convolution, BatchNorm and ReLU with a residual connection; (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv_norm(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One block; the shape is kept."""
        return x + F.relu(self.conv(x))


class CSABackbone(nn.Module):
    """The downsampling layers and stages of a CSA network, without a head."""

    def __init__(self, config: CSAConfig) -> None:
        super().__init__()
        self.config = config
        stem, widths = config.stem, [s.channels for s in config.stages]
        self.downsample_layers = nn.ModuleList(
            [conv_norm(stem.in_channels, widths[0], stem.kernel, stem.stride, stem.padding)]
            + [conv_norm(a, b, 3, 2, config.downsample_padding) for a, b in pairwise(widths)]
        )
        rates = torch.linspace(0, config.drop_path, sum(s.blocks for s in config.stages)).tolist()
        self.stages = nn.ModuleList()
        for stage in config.stages:
            before = [ConvBlock(stage.channels) for _ in range(stage.convolutions)]
            blocks = [CSABlock(stage, config, drop_path=rates.pop(0)) for _ in range(stage.blocks)]
            self.stages.append(nn.Sequential(*before, *blocks))

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> the map of each stage, from the finest to the coarsest.

        Raises:
            ValueError: the input is smaller than :meth:`minimum_size`.
        """
        self.check_size(int(x.shape[-2]), int(x.shape[-1]))
        maps = []
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
            maps.append(x)
        return maps

    def map_sizes(self, side: int) -> list[int]:
        """Side of each stage's feature map for an input of ``side`` pixels (0 or less: the stage has no map)."""
        stem, sizes = self.config.stem, []
        side = (side + 2 * stem.padding - stem.kernel) // stem.stride + 1
        sizes.append(side)
        for _ in self.config.stages[1:]:
            side = (side + 2 * self.config.downsample_padding - 3) // 2 + 1
            sizes.append(side)
        return sizes

    def strides(self) -> list[int]:
        """Pixels of the input per step of each stage's map."""
        return [self.config.stem.stride << stage for stage in range(len(self.config.stages))]

    def minimum_size(self) -> int:
        """Smallest side in pixels: every stage has a map, and the last one stands for at least one full stride."""
        side = self.strides()[-1]
        while min(self.map_sizes(side)) < 1:
            side += 1
        return side

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError with the reason when the network cannot mean an input of this size."""
        minimum = self.minimum_size()
        for name, side in (("height", height), ("width", width)):
            if side < minimum:
                raise ValueError(
                    f"input {height}x{width}: {name} {side} is too small, the feature maps would be "
                    f"{self.map_sizes(side)}; the smallest side is {minimum}"
                )


class ConvSelfAttn(CSABackbone):
    """A CSA network for classification; images (N, C, H, W) -> logits (N, classes), for every batch size.

    Raises:
        ValueError: the input is smaller than :meth:`minimum_size`.
    """

    def __init__(self, config: CSAConfig) -> None:
        super().__init__(config)
        self.norm = nn.BatchNorm2d(config.stages[-1].channels)
        self.head = nn.Conv2d(config.stages[-1].channels, config.classes, 1)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, classes)."""
        x = self.features(x)[-1]
        # A pool over the whole map: covers it at every input size, and stays a Pooling layer in TensorRT. The stride
        # has no effect here, but a stride above 6 leaves TensorRT 10's safety scope (its validator says so).
        x = F.avg_pool2d(x, kernel_size=(int(x.shape[-2]), int(x.shape[-1])), stride=1)
        return self.head(self.norm(x)).reshape(-1, self.config.classes)


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    """Convolution, then BatchNorm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs))


def adopt_layer_scale(block: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give a block without layer scale one when the checkpoint to load has it (a hook of ``load_state_dict``)."""
    gamma = state.get(f"{prefix}gamma")
    if block.gamma is None and isinstance(gamma, Tensor):
        block.gamma = nn.Parameter(torch.ones(1, block.v.out_channels, 1, 1))


def init_weights(module: nn.Module) -> None:
    """Truncated normal weights with standard deviation 0.02 and zero bias, for convolutions."""
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def stages(
    depths: Sequence[int],
    widths: Sequence[int],
    heads: Sequence[int],
    sides: Sequence[int],
    convolutions: Sequence[int] | None = None,
) -> tuple[Stage, ...]:
    """The stages of a network from its columns: blocks, channels, heads, map sides and convolutions (None: none)."""
    columns = (depths, widths, heads, sides, convolutions or [0] * len(depths))
    return tuple(Stage(*row) for row in zip(*columns, strict=True))
