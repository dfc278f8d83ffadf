"""Figures over all ranks, each held-out image counted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from csa_deploy.errors import AccuracyGateError
from csa_deploy.train.loading import TrainBatch
from csa_deploy.train.result import Score
from csa_deploy.train.task import TrainTask, leaves


@torch.no_grad()
def accuracy_of(
    fabric: Fabric, networks: Mapping[str, nn.Module], loader: Iterable[TrainBatch], task: TrainTask
) -> dict[str, Score]:
    """The task's figures of each network in FP32, over the images of all ranks.

    Args:
        fabric: for its device and its ranks.
        networks: by name; left in the mode that they were in.
        loader: this rank's share of the held-out images.
        task: what the networks are for.

    Raises:
        AccuracyGateError: an output is not finite.
    """
    rows: dict[str, list[np.ndarray]] = {name: [] for name in networks}
    modes = {name: network.training for name, network in networks.items()}
    for network in networks.values():
        network.eval()
    bad = 0
    for batch in map(TrainBatch.checked, loader):
        images, labels = batch.images.to(fabric.device), batch.labels.to(fabric.device)
        for name, network in networks.items():
            outputs = network(images)
            if all(bool(torch.isfinite(tensor).all()) for tensor in leaves(outputs)):
                rows[name] += task.rows(outputs, labels)
            else:
                bad += 1
    for name, network in networks.items():
        network.train(modes[name])
    parts: list[Any] = [(bad, rows)]
    if fabric.world_size > 1:
        parts = [None] * fabric.world_size
        torch.distributed.all_gather_object(parts, (bad, rows))
    if not_finite := sum(part[0] for part in parts):
        raise AccuracyGateError(
            f"evaluation: outputs are not finite in {not_finite} batches", fix="the training diverged: lower --lr"
        )
    return {name: task.score([row for part in parts for row in part[1][name]]) for name in networks}
