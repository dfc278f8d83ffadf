"""The network in training: how it is made, what decays, how its statistics over ranks are kept."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from csa_deploy.errors import UsageError
from csa_deploy.network import NetworkEntry
from csa_deploy.train.recipe import Recipe

_NOT_DECAYED = ("gamma", "layer_scale")


def trainable(entry: NetworkEntry, recipe: Recipe, size: tuple[int, int], seed: int) -> nn.Module:
    """A freshly initialised network, ready to be trained.

    The factory's parameters ``drop_path``, ``layer_scale`` and ``pretrained`` get the recipe's values (and False).
    The initialisation is drawn from ``seed``; the caller's random state is left as it was.

    Raises:
        UsageError: the factory has no such parameter and the recipe asks for it.
    """
    known = inspect.signature(entry.factory).parameters
    asked = {"drop_path": recipe.drop_path, "layer_scale": recipe.layer_scale}
    options: dict[str, Any] = {name: value for name, value in asked.items() if value}
    for name, value in options.items():
        if name not in known:
            raise UsageError(
                f"{entry.name}: its factory has no parameter '{name}', which the recipe sets to {value:g}",
                fix=f"train with --{name.replace('_', '-')} 0, or register the network with such a parameter",
            )
    for name, value in {"input_size": size, "pretrained": False, "seed": seed}.items():
        if name in known:
            options[name] = value
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return entry.factory(**options).train()


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for the optimizer: weights that decay, and norms, biases and layer scale, which do not."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_plain = parameter.ndim <= 1 or name.rpartition(".")[2] in _NOT_DECAYED
        (plain if is_plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes; so is the gradient, since every process uses the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Sum."""
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Sum of the gradients."""
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


class HostSyncBatchNorm(_BatchNorm):
    """BatchNorm over the batches of all processes, for CPUs; torch.nn.SyncBatchNorm refuses them.

    Every process must hold the same number of values, which the loader grants.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(n, C) or (n, C, ...), normalised with the statistics of all processes while training."""
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        world, values, others = dist.get_world_size(), x.numel() // x.shape[1], [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        mean = _SumOverRanks.apply(x.mean(others)) / world
        # Two passes: the difference of E[x^2] and E[x]^2 loses digits.
        variance = _SumOverRanks.apply((x - mean.view(shape)).square().mean(others)) / world
        self._keep(mean.detach(), variance.detach(), values * world)
        x = (x - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        return x if self.weight is None else x * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics; without momentum they are the mean over all updates."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""


def synchronised(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with BatchNorm over all processes; names of weights stay."""
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            module.__class__ = HostSyncBatchNorm
    return network
