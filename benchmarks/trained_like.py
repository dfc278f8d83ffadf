"""``convselfattn`` with statistics like those of a trained network, as no trained weights of it are published.

At initialisation every activation is small and regular, which flatters quantization. Here convolutions have the spread
that training gives (He et al., 2015, with channels that differ by factors), and batch normalisation has the statistics
that it measures on photographs, with scales and offsets drawn at random.
"""

from __future__ import annotations

import numpy as np
import torch
from csa_models.registry import convselfattn as entry
from torch import nn

from csa_deploy.data.dataset import open_dataset

RESIDUAL = 0.2
preprocessing = entry.preprocessing


def convselfattn(input_size: tuple[int, int] = (224, 224)) -> nn.Module:
    """The network in eval mode; the same weights each time."""
    generator = torch.Generator().manual_seed(0)
    network = entry.factory(input_size=input_size)
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                spread = torch.exp(0.5 * torch.randn(len(module.weight), generator=generator))
                values = torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
                # The last convolution of a residual branch is small, else the sum over all blocks amplifies noise.
                scale = RESIDUAL if name.endswith(".mlp") else 1.0
                module.weight.copy_(scale * values * spread.reshape(-1, 1, 1, 1))
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.exp(0.3 * torch.randn(module.weight.shape, generator=generator)))
                module.bias.copy_(0.3 * torch.randn(module.bias.shape, generator=generator))
                module.reset_running_stats()
                module.momentum = None  # average over all batches
        images = next(iter(open_dataset("photos", preprocessing.with_size(input_size)).batches(16))).inputs["image"]
        network.train()
        for part in np.array_split(images, 2):
            network(torch.from_numpy(part))
    return network.eval()
