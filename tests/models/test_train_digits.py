"""The training recipe of csa_digits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from csa_models import train_digits
from csa_models.csa import ConvSelfAttn
from csa_models.registry import convselfattn_config


def test_a_short_training_learns_and_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two patterns that a few steps can tell apart; the same seed gives the same weights."""
    monkeypatch.setattr(train_digits, "BATCH", 16)
    monkeypatch.setattr(train_digits, "EMA_DECAY", 0.5)  # the average must follow within a few steps
    labels = torch.arange(64) % 2
    images = torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1
    images[labels == 1, :, 8:24, 14:18] += 3.0
    first, second = (train_digits.train(images, labels, epochs=20, seed=3) for _ in range(2))
    assert train_digits.accuracy(first, images, labels) > 0.95
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_augmentation_moves_the_digit_but_keeps_it() -> None:
    images = torch.zeros(64, 1, 32, 32)
    images[..., 14:18, 14:18] = 1.0
    moved = train_digits.augment(images)
    assert moved.shape == images.shape
    assert not torch.allclose(moved[0], moved[1])
    mass = moved.sum(dim=(1, 2, 3))
    assert ((mass > 8) & (mass < 32)).all()


def test_layer_scale_norms_and_biases_get_no_weight_decay() -> None:
    network = ConvSelfAttn(replace(convselfattn_config(), layer_scale=1e-6))
    decayed, plain = train_digits.parameter_groups(network)
    names = {id(p): name for name, p in network.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim == 4 for p in decayed["params"])
    assert {"stages.0.0.gamma", "norm.weight", "head.bias"} <= {names[id(p)] for p in plain["params"]}
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
