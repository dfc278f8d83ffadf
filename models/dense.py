"""Segmentation and detection on a CSA backbone: a pyramid of convolutions, ReLU, sums and x2 resizes.

Both end in raw maps; ArgMax, decoding of boxes and NMS stay outside of the graph, where a restricted runtime needs not
know them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from csa_deploy.boxes import Postprocessing

from .csa import CSABackbone, CSAConfig, conv_norm, init_weights, resize

PRIOR = 0.01
"""Probability of each class at each place that a new detector starts from (Lin et al., 2017)."""


def init_for_relu(module: nn.Module) -> None:
    """Normal weights that keep the variance through a ReLU (He et al., 2015), for 3x3 convolutions."""
    if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def init_dense(network: nn.Module) -> None:
    """Weights of a whole network: those of the classifier, but 3x3 convolutions and laterals keep the variance."""
    network.apply(init_weights)
    network.apply(init_for_relu)
    for name, parameter in network.named_parameters():
        if ".laterals." in name and parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="linear")


class Pyramid(nn.Module):
    """Top-down path: the coarsest map, resized step by step, each time with the backbone's map of that size added.

    Args:
        channels: of the backbone's maps, from the finest to the coarsest.
        widths: of the pyramid's maps, likewise.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        # Each map is mixed by a convolution after the sum, which has the width of the next coarser one.
        sums = [*widths[1:], widths[-1]]
        self.laterals = nn.ModuleList(nn.Conv2d(c, s, 1) for c, s in zip(channels, sums, strict=True))
        self.mixes = nn.ModuleList(conv_norm(s, w, 3, 1, 1) for s, w in zip(sums, widths, strict=True))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the backbone -> maps of the pyramid, both from the finest to the coarsest."""
        found: list[Tensor] = []
        for map_, lateral, mix in list(zip(maps, self.laterals, self.mixes, strict=True))[::-1]:
            x = lateral(map_)
            if found:
                x = x + resize(found[0], int(x.shape[-2]), int(x.shape[-1]))
            found.insert(0, F.relu(mix(x)))
        return found


class CSASegmentation(nn.Module):
    """Images (N, C, H, W) -> logits (N, classes, H, W).

    Args:
        config: of the backbone, with the number of classes.
        widths: channels of the pyramid's maps, one for each stage.
    """

    def __init__(self, config: CSAConfig, widths: Sequence[int]) -> None:
        super().__init__()
        self.backbone = CSABackbone(config)
        self.pyramid = Pyramid([s.channels for s in config.stages], widths)
        self.head = nn.Conv2d(widths[0], config.classes, 1)
        init_dense(self)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        height, width = int(x.shape[-2]), int(x.shape[-1])
        logits = self.head(self.pyramid(self.backbone.features(x))[0])
        stride = self.backbone.config.stem.stride
        while stride > 2:
            stride //= 2
            logits = resize(logits, height // stride, width // stride)
        return resize(logits, height, width)


class DetectionHead(nn.Module):
    """Two towers of 3x3 convolutions on one map: class logits and distances."""

    def __init__(self, inputs: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.classes = nn.Sequential(*_tower(inputs, width, depth), nn.Conv2d(width, classes, 1))
        self.distances = nn.Sequential(*_tower(inputs, width, depth), nn.Conv2d(width, 4, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, inputs, h, w) -> logits (N, classes, h, w) and raw distances (N, 4, h, w)."""
        return self.classes(x), self.distances(x)


def _tower(inputs: int, width: int, depth: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for step in range(depth):
        layers += [conv_norm(width if step else inputs, width, 3, 1, 1), nn.ReLU()]
    return layers


class CSADetection(nn.Module):
    """Images (N, C, H, W) -> per level ``logits_S`` (N, classes, H/S, W/S) and ``distances_S`` (N, 4, H/S, W/S).

    S is the level's stride in pixels. Anchor-free (as FCOS, Tian et al., 2019): the place (i, j) of a level stands for
    the point ((j + 1/2) S, (i + 1/2) S) of the image, and the box reaches from there by S times the distances to the
    left, the top, the right and the bottom, in pixels. A distance may be below 0: a thin box lies beside its point.
    Logits are of independent classes (sigmoid), without a background.

    Attributes:
        postprocessing: the same in a form that travels with the graph, with the thresholds for boxes and NMS.

    Args:
        config: of the backbone, with the number of classes.
        levels: the coarsest so many stages become levels.
        width: channels of the pyramid and of the heads.
        depth: 3x3 convolutions per tower.
    """

    def __init__(self, config: CSAConfig, levels: int = 2, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.backbone = CSABackbone(config)
        self.strides = self.backbone.strides()[-levels:]
        self.postprocessing = Postprocessing(
            scores=tuple(f"logits_{stride}" for stride in self.strides),
            distances=tuple(f"distances_{stride}" for stride in self.strides),
            strides=tuple(self.strides),
        )
        self.pyramid = Pyramid([s.channels for s in config.stages[-levels:]], [width] * levels)
        self.heads = nn.ModuleList(DetectionHead(width, width, depth, config.classes) for _ in self.strides)
        init_dense(self)
        for name, parameter in self.heads.named_parameters():
            if name.endswith(f"distances.{2 * depth}.bias"):  # the last layer's
                nn.init.constant_(parameter, 1.0)  # a box of two strides
            elif name.endswith(f"classes.{2 * depth}.bias"):
                nn.init.constant_(parameter, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """See the class."""
        maps = self.pyramid(self.backbone.features(x)[-len(self.strides) :])
        outputs: dict[str, Tensor] = {}
        named = zip(self.postprocessing.scores, self.postprocessing.distances, self.heads, maps, strict=True)
        for scores, distances, head, map_ in named:
            outputs[scores], outputs[distances] = head(map_)
        return outputs
