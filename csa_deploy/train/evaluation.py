"""Accuracy over all ranks, each held-out image counted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from lightning_fabric import Fabric
from torch import nn

from csa_deploy.accuracy import RANKS, Accuracy, ranks_of
from csa_deploy.errors import AccuracyGateError
from csa_deploy.train.loading import TrainBatch


@torch.no_grad()
def accuracy_of(fabric: Fabric, networks: Mapping[str, nn.Module], loader: Iterable[TrainBatch]) -> dict[str, Accuracy]:
    """Top-1 and top-5 counts of each network in FP32, summed over the ranks.

    Args:
        fabric: for its device and its sum over ranks.
        networks: by name; left in the mode that they were in.
        loader: this rank's share of the held-out images.

    Raises:
        AccuracyGateError: an output is not finite.
    """
    counts = torch.zeros(len(networks), 3, dtype=torch.int64, device=fabric.device)
    modes = {name: network.training for name, network in networks.items()}
    for network in networks.values():
        network.eval()
    bad = classes = 0
    for batch in map(TrainBatch.checked, loader):
        images, labels = batch.images.to(fabric.device), batch.labels.to(fabric.device)
        for row, network in zip(counts, networks.values(), strict=True):
            logits = network(images)
            bad += int(not torch.isfinite(logits).all())
            classes = logits.shape[1]
            best = logits.topk(min(max(RANKS), classes)).indices == labels[:, None]
            row += torch.stack([best[:, 0].sum(), best.sum(), torch.tensor(len(labels), device=fabric.device)])
    for name, network in networks.items():
        network.train(modes[name])
    total = fabric.all_reduce(torch.cat([counts.flatten(), counts.new_tensor([bad])]), reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    if total[-1]:
        raise AccuracyGateError(
            f"evaluation: outputs are not finite in {int(total[-1])} batches", fix="the training diverged: lower --lr"
        )
    rows = total[:-1].view(-1, 3).tolist()
    ranks = ranks_of(classes)
    return {
        name: Accuracy(int(samples), classes, {k: int(n) for k, n in zip(RANKS, right, strict=True) if k in ranks})
        for name, (*right, samples) in zip(networks, rows, strict=True)
    }
