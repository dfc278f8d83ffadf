"""Recipes and the schedule that follows from them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from csa_deploy.errors import UsageError
from csa_deploy.train.recipe import default_recipe, load_recipe, names, recipe_for
from csa_deploy.train.schedule import batch_warning, make_schedule

IMAGENET_IMAGES = 1_281_167


def test_the_published_schedule() -> None:
    schedule = make_schedule(load_recipe("imagenet"), IMAGENET_IMAGES, 4096)
    assert (schedule.per_epoch, schedule.total, schedule.warmup) == (312, 93_600, 6_240)
    assert schedule.rate(0) == 0.0
    assert schedule.rate(3_120) == pytest.approx(2e-3)
    assert schedule.rate(6_240) == pytest.approx(4e-3)
    assert schedule.rate(93_599) == pytest.approx(1e-6)
    middle = 6_240 + (93_599 - 6_240) / 2
    assert schedule.rate(round(middle)) == pytest.approx((4e-3 + 1e-6) / 2, rel=1e-4)
    rates = [schedule.rate(update) for update in range(6_240, 93_600)]
    assert all(a > b for a, b in pairwise(rates))


def test_the_published_recipe() -> None:
    recipe = load_recipe("imagenet")
    assert (recipe.drop_path, recipe.layer_scale, recipe.ema_decay) == (0.1, 1e-6, 0.9999)
    assert (recipe.mixup, recipe.cutmix, recipe.rand_augment, recipe.erasing) == (0.8, 1.0, 9, 0.25)
    assert (recipe.weight_decay, recipe.label_smoothing) == (0.05, 0.1)


def test_another_global_batch_is_said_with_the_scaled_rate() -> None:
    recipe = load_recipe("imagenet")
    assert batch_warning(recipe, 4096) is None
    assert "--lr 0.001" in str(batch_warning(recipe, 1024))


def test_fewer_images_than_a_batch_are_refused() -> None:
    with pytest.raises(UsageError, match="do not fill"):
        make_schedule(load_recipe("imagenet"), 4_095, 4_096)


def test_values_on_the_command_line_go_first_and_none_leaves_the_recipe() -> None:
    recipe = load_recipe("small", {"epochs": 3, "lr": None})
    assert (recipe.epochs, recipe.lr) == (3, 4e-3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epoch": 3}, "epoch"),
        ({"lr": -1}, "lr"),
        ({"epochs": 1, "warmup_epochs": 2}, "warm-up"),
        ({"random_crop": [0.5, 1.5]}, "random_crop"),
        ({"affine": {"twist": 1}}, "affine.twist"),
    ],
)
def test_a_bad_recipe_is_refused_by_name(change: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load_recipe("small", change)


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 2\nglobal_batch: 4\nlr: 1.0e-3\n")
    assert load_recipe(str(path)).global_batch == 4
    path.write_text("- epochs")
    with pytest.raises(UsageError, match="mapping"):
        load_recipe(str(path))
    with pytest.raises(UsageError, match="animals, imagenet, qat, scenes, small"):
        load_recipe(str(tmp_path / "none.yaml"))


def test_data_and_input_size_choose_the_recipe() -> None:
    asked = [("digits", (32, 32)), ("animals", (32, 32)), ("imagenet", (224, 224)), ("folder", (64, 224))]
    assert [default_recipe(*one) for one in asked] == ["small", "animals", "imagenet", "imagenet"]
    assert {name: load_recipe(name).epochs for name in names()} == {
        "animals": 16,
        "imagenet": 300,
        "qat": 2,
        "scenes": 5,
        "small": 30,
    }


def test_fine_tuning_augments_as_the_data_need_it() -> None:
    small, tuning = load_recipe("small"), recipe_for("digits", (32, 32), None, {"lr": None}, qat=True)
    assert (tuning.epochs, tuning.lr) == (2, load_recipe("qat").lr)
    assert (tuning.affine, tuning.elastic, tuning.mixup) == (small.affine, small.elastic, 0)
    assert recipe_for("imagenet", (224, 224), None, {"epochs": 5}, qat=True).rand_augment == 9
    assert recipe_for("digits", (32, 32), "qat", {}, qat=True) == load_recipe("qat")
