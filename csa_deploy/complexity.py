"""Size of a network: parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Complexity:
    """Trainable parameters, and multiply-accumulates of one forward pass."""

    parameters: int
    macs: int


def count(module: nn.Module, inputs: Sequence[Tensor]) -> Complexity:
    """Count parameters, and multiply-accumulates of convolutions and matrix products, over one forward pass.

    Measured by torch's FlopCounterMode (2 operations are 1 multiply-accumulate); element-wise work is not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return Complexity(sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2)
