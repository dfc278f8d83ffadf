"""Augmentation of a batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from csa_deploy.network import Preprocessing
from csa_deploy.train.augment import Augment
from csa_deploy.train.recipe import Affine, Recipe, load_recipe

COLOUR = Preprocessing((32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
GREY = replace(COLOUR, mode="L", mean=(0.5,), std=(0.25,))
PLAIN = Recipe(epochs=1, global_batch=1, lr=1.0)


def pixels(count: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, 32, 32), generator=torch.Generator().manual_seed(0)).byte()


def augmented(recipe: Recipe, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    return Augment(recipe, COLOUR if images.shape[1] == 3 else GREY, 4)(images, labels)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_published_augmentation_keeps_shape_and_scale(channels: int) -> None:
    images, labels = pixels(40, channels), torch.arange(40) % 4
    x, targets = augmented(load_recipe("imagenet"), images, labels)
    assert x.shape == images.shape
    assert torch.isfinite(x).all()
    assert x.abs().max() <= 2.001
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(40))
    again, _ = augmented(load_recipe("imagenet"), images, labels)
    assert torch.equal(x, again)


def test_label_smoothing() -> None:
    _, targets = augmented(PLAIN.model_copy(update={"label_smoothing": 0.1}), pixels(1), torch.tensor([2]))
    torch.testing.assert_close(targets, torch.tensor([[0.025, 0.025, 0.925, 0.025]]))


def test_mixup_mixes_images_as_targets() -> None:
    images = torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), 255)]).byte()
    x, targets = augmented(PLAIN.model_copy(update={"mixup": 0.8}), images, torch.tensor([0, 1]))
    brightness = (x[:, 0, 0, 0] * 0.25 + 0.5).tolist()
    assert brightness == pytest.approx(targets[:, 1].tolist(), abs=1e-5)
    assert 0 < brightness[0] < 1


def test_cutmix_pastes_the_share_that_the_targets_say() -> None:
    images = torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), 255)]).byte()
    x, targets = augmented(PLAIN.model_copy(update={"cutmix": 1.0}), images, torch.tensor([0, 1]))
    assert set(x.unique().tolist()) == {-2.0, 2.0}
    shares = (x * 0.25 + 0.5).mean((1, 2, 3)).tolist()
    assert shares == pytest.approx(targets[:, 1].tolist(), abs=1e-5)
    assert shares[0] not in (0.0, 1.0)


def test_erased_regions_have_the_mean_colour() -> None:
    x, _ = augmented(
        PLAIN.model_copy(update={"erasing": 1.0}), torch.full((8, 3, 32, 32), 255).byte(), torch.zeros(8).long()
    )
    assert set(x.unique().tolist()) == {0.0, 2.0}
    share = (x == 0).float().mean((1, 2, 3))
    assert ((share > 0.01) & (share < 0.36)).all()


def test_affine_maps_move_but_keep_the_object() -> None:
    images = torch.zeros(64, 1, 32, 32).byte()
    images[..., 14:18, 14:18] = 255
    recipe = PLAIN.model_copy(update={"affine": Affine(degrees=12, scale=0.12, shear=8.5, shift=0.1)})
    x, _ = augmented(recipe, images, torch.zeros(64).long())
    mass = (x * 0.25 + 0.5).sum(dim=(1, 2, 3))
    assert ((mass > 8) & (mass < 32)).all()
    assert not torch.allclose(x[0], x[1])


def test_elastic_displacements_have_the_size_that_the_recipe_says() -> None:
    """On a ramp each pixel tells from how far it came."""
    ramp = torch.arange(32).mul(8).byte().expand(64, 1, 32, 32)
    x, _ = augmented(PLAIN.model_copy(update={"elastic": 0.03}), ramp, torch.zeros(64).long())
    came_from = (x * 0.25 + 0.5) * 255 / 8
    moved = (came_from - torch.arange(32))[..., 8:24]
    assert moved.std().item() == pytest.approx(0.03 * 32, rel=0.15)
    assert moved.mean().item() == pytest.approx(0, abs=0.2)
    steps = moved.diff(dim=-1)
    assert steps.std() < 0.5 * moved.std()  # neighbours move alike
