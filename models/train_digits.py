"""Training of ``csa_digits``: ``python -m csa_models.train_digits --out csa_digits.safetensors``.

Reads the 4,000 training digits only; the 1,000 held-out digits are classified once, after the last epoch. The result
depends on the seed, on torch's version and on the processor's arithmetic.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from csa_deploy.data.base import IMAGE
from csa_deploy.data.dataset import open_dataset

from .csa import ConvSelfAttn
from .registry import csa_digits, csa_digits_config

log = logging.getLogger(__name__)

EPOCHS = 25
BATCH = 64
PEAK_RATE = 4e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1
EMA_DECAY = 0.99
WARMUP_EPOCHS = 2.0


def load(name: str) -> tuple[Tensor, Tensor]:
    """All images (n, 1, 32, 32), preprocessed, and their labels (n,) of a named set."""
    dataset = open_dataset(name, csa_digits.preprocessing)
    assert dataset.labels is not None
    images = np.concatenate([batch.inputs[IMAGE] for batch in dataset.batches(256)])
    return torch.from_numpy(images), torch.from_numpy(dataset.labels)


def augment(images: Tensor) -> Tensor:
    """Rotate by up to 12 degrees, scale by up to 12 %, shear by up to 0.15 and shift by up to 10 % of the side."""
    n = len(images)
    angle, scale, shear = ((torch.rand(3, n) * 2 - 1) * torch.tensor([[math.radians(12)], [0.12], [0.15]])).unbind()
    cos, sin = torch.cos(angle) * (1 + scale), torch.sin(angle) * (1 + scale)
    shift = (torch.rand(2, n) * 2 - 1) * 0.2  # the side spans 2
    theta = torch.stack([cos, -sin + shear, shift[0], sin, cos, shift[1]], dim=1).reshape(n, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def parameter_groups(network: nn.Module) -> list[dict[str, object]]:
    """Weight decay for convolution weights only: not for biases, BatchNorm or layer scale."""
    decayed = [p for name, p in network.named_parameters() if p.ndim > 1 and not name.endswith("gamma")]
    plain = [p for name, p in network.named_parameters() if p.ndim <= 1 or name.endswith("gamma")]
    return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    """Train on ``images`` and ``labels``; returns the exponential average of the weights, in eval mode."""
    torch.manual_seed(seed)
    network = ConvSelfAttn(csa_digits_config()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(parameter_groups(network), lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_RATE, total_steps=steps, pct_start=min(WARMUP_EPOCHS / epochs, 0.3)
    )
    for epoch in range(epochs):
        network.train()
        total = 0.0
        for rows in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
            logits = network(augment(images[rows]).contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            total += loss.item() * len(rows)
        log.info("epoch %d of %d: loss %.4f", epoch + 1, epochs, total / len(images))
    return average.module.eval()


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy, 0..1."""
    predicted = torch.cat([network(part).argmax(dim=1) for part in images.split(250)])
    return (predicted == labels).float().mean().item()


def main() -> None:
    """Train, write the weights, and log the accuracy on the held-out digits."""
    parser = argparse.ArgumentParser(prog="python -m csa_models.train_digits", description="Train csa_digits.")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .safetensors")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)

    started, processor = time.perf_counter(), time.process_time()
    network = train(*load("digits:train"), epochs=arguments.epochs, seed=arguments.seed)
    log.info(
        "trained in %.0f s (%.0f s of processor time)", time.perf_counter() - started, time.process_time() - processor
    )
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, arguments.out)
    log.info("top-1 on the 1,000 held-out digits: %.2f %%", 100 * accuracy(network, *load("digits")))


if __name__ == "__main__":
    main()
