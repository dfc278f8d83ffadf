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

    Measured by torch's FlopCounterMode (2 operations are 1 multiply-accumulate); element-wise work is not counted. The
    pass works on shapes alone. A network that asks for numbers on the way is run.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode, UnsupportedFakeTensorException
    from torch.utils.flop_counter import FlopCounterMode

    def macs(tensors: Sequence[Tensor]) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*tensors)
        return counter.get_total_flops() // 2

    parameters = sum(p.numel() for p in module.parameters())
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as shapes:
            return Complexity(parameters, macs([shapes.from_tensor(tensor) for tensor in inputs]))
    except (UnsupportedFakeTensorException, RuntimeError):
        return Complexity(parameters, macs(inputs))
