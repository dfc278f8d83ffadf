"""Augmentation on the device, one call per batch; all randomness comes from torch's default generators."""

from __future__ import annotations

import math

import kornia.augmentation as kornia
import torch
import torch.nn.functional as F
from kornia.augmentation.auto import RandAugment
from kornia.augmentation.auto.rand_augment.rand_augment import default_policy
from torch import Tensor, nn

from csa_deploy.data.targets import Task
from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing
from csa_deploy.train.recipe import PICTORIAL, Affine, Recipe

# kornia counts magnitudes to 30 where RandAugment's authors and timm count to 10; both ends mean the same
# (30 degrees of rotation, for example).
_KORNIA_MAGNITUDE = 3
_ALIKE = 16  # kornia draws RandAugment's operations per call: so many neighbours in a batch get the same two


class Augment(nn.Module):
    """uint8 images (n, C, H, W) and labels (n,) -> normalised images and soft targets (n, classes).

    Without a number of classes (None) the labels are masks or boxes: they are passed on, and the recipe must not move
    pixels. The order is: flip, affine, elastic, RandAugment, normalisation, erasing, then mixup or CutMix, each as far
    as the recipe has it. Label smoothing is in the targets.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: Recipe, preprocessing: Preprocessing, classes: int | None) -> None:
        super().__init__()
        self.recipe, self.classes = recipe, classes
        self.pictorial = nn.ModuleList(_pictorial(recipe, preprocessing))
        # Erased regions get the mean colour, which is 0 after normalisation.
        self.erasing = nn.ModuleList(
            [kornia.RandomErasing((0.02, 1 / 3), (0.3, 3.3), p=recipe.erasing)] if recipe.erasing else []
        )
        self.reverse = preprocessing.mode == "BGR"  # augmentations of colour are for RGB
        self.factor = 1.0 if preprocessing.scale is None else 255 * preprocessing.scale
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = images.float() / 255
        for augmentation in self.pictorial:
            parts = x.split(_ALIKE) if isinstance(augmentation, RandAugment) else (x,)
            x = torch.cat([augmentation(part) for part in parts])
        x = x.flip(1) if self.reverse else x
        x = (x * self.factor - self.mean) / self.std
        for augmentation in self.erasing:
            x = augmentation(x)
        if self.classes is None:
            return x, labels
        smoothing = self.recipe.label_smoothing
        targets = F.one_hot(labels, self.classes).float() * (1 - smoothing) + smoothing / self.classes
        return self._mix(x, targets)

    def _mix(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mixup (Zhang et al., 2018) or CutMix (Yun et al., 2019) of the batch with its reverse, one share for all."""
        mixup, cutmix = self.recipe.mixup, self.recipe.cutmix
        if not (mixup or cutmix):
            return x, targets
        use_cutmix = bool(cutmix) and (not mixup or bool(torch.rand(()) < 0.5))
        concentration = torch.tensor(cutmix if use_cutmix else mixup)
        share = float(torch.distributions.Beta(concentration, concentration).sample())
        if use_cutmix:
            x, share = _cutmix(x, share)
        else:
            x = share * x + (1 - share) * x.flip(0)
        return x, share * targets + (1 - share) * targets.flip(0)


def augmentation(recipe: Recipe, preprocessing: Preprocessing, classes: int, task: Task) -> Augment:
    """The augmentation of a task.

    Raises:
        UsageError: the recipe's is for classes only: it moves or hides what masks and boxes tell, or mixes labels.
    """
    if task == "classification":
        return Augment(recipe, preprocessing, classes)
    if foreign := [name for name in (*PICTORIAL, "mixup", "cutmix", "label_smoothing") if getattr(recipe, name)]:
        raise UsageError(
            f"the recipe's {', '.join(foreign)} would leave masks and boxes as they are: not possible for {task}",
            fix="give --recipe scenes, or a recipe without them",
        )
    return Augment(recipe, preprocessing, None)


def _cutmix(x: Tensor, share: float) -> tuple[Tensor, float]:
    """Paste a rectangle of about ``1 - share`` of the area from the reversed batch; returns the share that is left."""
    height, width = x.shape[-2:]
    h, w = (int(side * (1 - share) ** 0.5) for side in (height, width))
    y0, x0 = int(torch.randint(height, ())) - h // 2, int(torch.randint(width, ())) - w // 2
    y1, x1, y0, x0 = min(y0 + h, height), min(x0 + w, width), max(y0, 0), max(x0, 0)
    mixed = x.clone()
    mixed[..., y0:y1, x0:x1] = x.flip(0)[..., y0:y1, x0:x1]
    return mixed, 1 - (y1 - y0) * (x1 - x0) / (height * width)


def _pictorial(recipe: Recipe, preprocessing: Preprocessing) -> list[nn.Module]:
    """What is done to images on the scale 0..1."""
    steps: list[nn.Module] = []
    if recipe.flip:
        steps.append(kornia.RandomHorizontalFlip(p=recipe.flip))
    if recipe.affine:
        steps.append(_affine(recipe.affine))
    if recipe.elastic:
        steps.append(_elastic(recipe.elastic, min(preprocessing.size)))
    if recipe.rand_augment:
        policy = [
            operation for operation in default_policy if preprocessing.channels == 3 or operation[0][0] != "color"
        ]
        steps.append(RandAugment(2, recipe.rand_augment * _KORNIA_MAGNITUDE, policy))  # type: ignore[arg-type]
    return steps


def _affine(affine: Affine) -> nn.Module:
    return kornia.RandomAffine(
        degrees=affine.degrees,
        translate=(affine.shift, affine.shift),
        scale=(1 - affine.scale, 1 + affine.scale),
        shear=affine.shear,
        padding_mode="border",
        p=1.0,
    )


def _elastic(share: float, side: int) -> nn.Module:
    """Smoothed noise moves each pixel by ``share`` of the side, in both directions (standard deviation)."""
    sigma = side / 8
    kernel = 2 * math.ceil(2.5 * sigma) + 1
    # kornia's noise, uniform in -1..1, has a variance of 1/3; smoothing leaves 1 / (4 pi sigma^2) of it. The side is 2.
    strength = 2 * share * math.sqrt(12 * math.pi) * sigma
    return kornia.RandomElasticTransform(
        (kernel, kernel), (sigma, sigma), (strength, strength), padding_mode="border", p=1.0
    )
