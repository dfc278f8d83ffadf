"""The exponential average of the weights, and how fast it forgets.

After n updates the weights of update k have the share (1 - d) d^(n - k), and those of the first update d^(n - 1): with
d = 0.99 that is 17 % after 180 updates. The average of a short training then is mostly of its beginning, and worse than
the weights themselves. With a warm-up the decay of update n is min(d, (1 + n) / (10 + n)), as TensorFlow's
ExponentialMovingAverage has it (its ``num_updates``): the average is over about the last ninth of the updates until
that is as long as d remembers, and the first update's share falls with the ninth power of their number.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]
LEFT = 0.01
"""Share of the first update in the average at the end from which on a training counts as too short for the decay."""


def warmed(decay: float, updates: int, asked: bool | None) -> bool:
    """Whether the decay warms up: as asked, else where ``updates`` leave more than :data:`LEFT` of the first one."""
    if not decay:
        return False
    return first_share(decay, updates, warmup=False) > LEFT if asked is None else asked


def decay_at(decay: float, update: int, *, warmup: bool) -> float:
    """The decay of an update, counted from 1; the first one is taken whole."""
    if update <= 1:
        return 0.0
    return min(decay, (1 + update) / (10 + update)) if warmup else decay


def first_share(decay: float, updates: int, *, warmup: bool) -> float:
    """Share of the weights after the first update in the average after ``updates`` of them."""
    return math.prod(decay_at(decay, n, warmup=warmup) for n in range(2, updates + 1))


def averaged(network: nn.Module, decay: float, *, warmup: bool = False) -> AveragedModel:
    """The exponential average of weights and statistics; starts as a copy of the network."""

    def move(averages: Tensors, values: Tensors, done: Tensor | int) -> None:
        # Called from the second update on, with the number of updates before it.
        get_ema_multi_avg_fn(decay_at(decay, int(done) + 1, warmup=warmup))(averages, values, done)

    plain = get_ema_multi_avg_fn(decay)
    average = AveragedModel(network, multi_avg_fn=move if warmup else plain, use_buffers=True)
    return average.requires_grad_(False).eval()
