"""The networks of this package as registry entries; imports torch only when one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csa_deploy.network import NetworkEntry, Preprocessing

if TYPE_CHECKING:
    from torch import nn


def _convselfattn(input_size: tuple[int, int] = (224, 224), padding: int = 0) -> nn.Module:
    import torch

    from .csa import ConvSelfAttn, CSAConfig, stages

    torch.manual_seed(0)
    config = CSAConfig(
        stages((3, 4, 6, 3), (96, 192, 384, 768), (1, 2, 4, 8), (14, 14, 14, 7)), downsample_padding=padding
    )
    return ConvSelfAttn(config).eval()


convselfattn = NetworkEntry(
    "convselfattn", "CSA network", _convselfattn, Preprocessing((224, 224)), "random initialisation (seed 0)"
)
