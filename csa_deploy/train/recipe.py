"""The recipe of a training as data: the packaged ones, a file of the user's, and values given on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from csa_deploy.validation import invalid, read_mapping

EMA_DECAY = 0.9999
"""Of an average that is asked for where the recipe has none: the published one."""
RECIPES = Path(__file__).parent / "recipes"
PICTORIAL = ("random_crop", "flip", "affine", "elastic", "rand_augment", "erasing")  # augmentation of single images

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Affine(BaseModel):
    """Random affine maps, each value at most: rotation and horizontal shear in degrees, scale and shift as shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    degrees: NotNegative = 0.0
    scale: Share = 0.0
    shear: NotNegative = 0.0
    shift: Share = 0.0


class Recipe(BaseModel):
    """Everything that decides about the outcome of a training, apart from the network, the data and the seed.

    Attributes:
        epochs: passes over the training images; the images that fill no global batch are left out of each.
        warmup_epochs: epochs of linear warm-up from 0 to ``lr``.
        global_batch: images per update for which ``lr`` is meant.
        lr: learning rate at the end of the warm-up.
        min_lr: learning rate at the last update.
        weight_decay: AdamW's, on weights of two and more dimensions only, without layer scale.
        label_smoothing: share of the target that all classes get alike.
        ema_decay: of the exponential average of the weights, per update; 0: none is kept.
        ema_warmup: whether its decay starts low and grows (see :mod:`csa_deploy.train.average`); None: where the
            training is too short for ``ema_decay``.
        drop_path: stochastic depth of the last block, growing linearly over the depth from 0.
        layer_scale: its initial value; 0: the network has none.
        random_crop: share of the area that a random crop keeps, (least, most); None: the whole image.
        flip: probability of a horizontal flip.
        affine: random affine maps; None: none.
        elastic: smooth random displacements (Simard et al., 2003), their standard deviation as a share of the side.
        rand_augment: RandAugment's magnitude of 10, two operations; None: none.
        erasing: probability of random erasing.
        mixup: beta-distribution parameter of mixup; 0: none.
        cutmix: the same for CutMix.
        crowded: share of the epochs, from the first on, whose images have more objects; only where images are made
            (``scenes``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Annotated[int, Field(ge=1)]
    warmup_epochs: NotNegative = 0.0
    global_batch: Annotated[int, Field(ge=1)]
    lr: Positive
    min_lr: NotNegative = 0.0
    weight_decay: NotNegative = 0.05
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_warmup: bool | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layer_scale: NotNegative = 0.0
    random_crop: tuple[Positive, Positive] | None = None
    flip: Share = 0.0
    affine: Affine | None = None
    elastic: Share = 0.0
    rand_augment: Annotated[float, Field(gt=0, lt=10)] | None = None
    erasing: Share = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    crowded: Share = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"{self.warmup_epochs:g} warm-up epochs do not fit into {self.epochs} epochs")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}")
        if self.random_crop and not self.random_crop[0] <= self.random_crop[1] <= 1:
            raise ValueError("random_crop is (least, most) share of the area, at most 1")
        return self

    def to_json(self) -> dict[str, Any]:
        """JSON form, with every default filled in."""
        return self.model_dump(mode="json")


def names() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(spec: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        spec: name of a packaged recipe, or a YAML file.
        overrides: values that replace the recipe's; None leaves it.

    Raises:
        UsageError: no such recipe, not readable, an unknown key or a bad value; the line names it.
    """
    path = RECIPES / f"{spec}.yaml" if spec in names() else Path(spec)
    start, known = "start from a packaged one: docs/train.md", f"give a YAML file or one of {', '.join(names())}"
    data = read_mapping(path, "recipe", example=start, missing=known)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return Recipe(**_shortened(data, given))
    except ValidationError as error:
        raise invalid(error, spec, fix=f"keys of a recipe: {', '.join(Recipe.model_fields)}") from None


def _shortened(recipe: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the given values; a warm-up that does not fit into fewer epochs takes its share of them."""
    whole = {**recipe, **given}
    numbers = [recipe.get("epochs"), recipe.get("warmup_epochs", 0), whole.get("epochs")]
    if "warmup_epochs" not in given and all(isinstance(n, (int, float)) and n >= 0 for n in numbers):
        before, warmup, epochs = numbers
        if before and warmup > epochs:
            whole["warmup_epochs"] = warmup / before * epochs
    return whole


def default_recipe(data: str, size: tuple[int, int]) -> str:
    """Name of the packaged recipe: the data set's own, else by the input size in pixels (``small`` up to 64)."""
    return data if data in names() else "small" if max(size) <= 64 else "imagenet"


def recipe_for(
    data: str,
    size: tuple[int, int],
    spec: str | None,
    overrides: Mapping[str, Any],
    *,
    qat: bool = False,
    average: bool = False,
) -> Recipe:
    """The recipe of a training: ``spec``, or the one for the data and the input size.

    Quantization-aware fine-tuning without ``spec`` takes ``qat`` with the pictorial augmentation of the data's recipe.
    Where an ``average`` of the weights is asked for and the recipe has none, it gets the published one.

    Raises:
        UsageError: see :func:`load_recipe`.
    """
    usual = default_recipe(data, size)
    if qat and spec is None:
        given = {**{key: getattr(load_recipe(usual), key) for key in PICTORIAL}, **overrides}
        chosen = load_recipe("qat", given)
    else:
        chosen = load_recipe(spec or usual, overrides)
    if average and not chosen.ema_decay and overrides.get("ema_decay") is None:
        chosen = chosen.model_copy(update={"ema_decay": EMA_DECAY})
    return chosen
