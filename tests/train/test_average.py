"""The average of the weights: against the formula written out, and after a short training against the weights."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from csa_deploy.accuracy import Accuracy
from csa_deploy.network import NetworkEntry
from csa_deploy.train.average import averaged, first_share, warmed
from csa_deploy.train.options import TrainOptions
from csa_deploy.train.recipe import Recipe, load_recipe
from csa_deploy.train.result import Average, TrainResult
from csa_deploy.train.run import train
from csa_deploy.train.schedule import make_schedule

DIGITS, ANIMALS, IMAGENET = 4_000, 8_704 - 1_736, 1_281_167  # images to train on


def walk(average: AveragedModel, network: nn.Linear, steps: np.ndarray) -> list[float]:
    found = []
    for value in steps:
        with torch.no_grad():
            network.weight.fill_(float(value))
        average.update_parameters(network)
        found.append(average.module.weight.item())
    return found


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.9999])
def test_a_warm_average_is_the_formula(decay: float) -> None:
    steps = np.random.RandomState(0).standard_normal(40).astype(np.float32)
    network = nn.Linear(1, 1, bias=False)
    got = walk(averaged(network, decay, warmup=True), network, steps)
    value, wanted = Fraction(0), []
    for n, step in enumerate(steps.tolist(), start=1):
        keep = min(Fraction(decay), Fraction(1 + n, 10 + n)) if n > 1 else Fraction(0)
        value = keep * value + (1 - keep) * Fraction(step)
        wanted.append(float(value))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    # The share of the first update is what a step that only that one makes leaves.
    alone = walk(averaged(network, decay, warmup=True), network, np.eye(1, 40)[0])
    assert alone[-1] == pytest.approx(first_share(decay, 40, warmup=True), abs=1e-12, rel=1e-4)


def test_without_a_warm_up_it_is_torchs_own_to_the_bit() -> None:
    steps = np.random.RandomState(1).standard_normal(30)
    network = nn.Linear(1, 1, bias=False)
    plain = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    assert walk(averaged(network, 0.9), network, steps) == walk(plain, network, steps)
    assert first_share(0.9, 30, warmup=False) == pytest.approx(0.9**29)


def test_a_resumed_average_goes_on_where_it_was() -> None:
    steps = np.random.RandomState(2).standard_normal(30)
    network = nn.Linear(1, 1, bias=False)
    whole = walk(averaged(network, 0.99, warmup=True), network, steps)
    first, second = (averaged(network, 0.99, warmup=True) for _ in range(2))
    walk(first, network, steps[:12])
    second.module.load_state_dict(first.module.state_dict())
    second.n_averaged.fill_(int(first.n_averaged))
    assert walk(second, network, steps[12:]) == whole[12:]


@pytest.mark.parametrize(("name", "images"), [("small", DIGITS), ("animals", ANIMALS), ("imagenet", IMAGENET)])
def test_the_published_trainings_are_as_they_were(name: str, images: int) -> None:
    """Also that of csa_digits, whose weights come with the package: byte for byte the same average."""
    recipe = load_recipe(name)
    total = make_schedule(recipe, images, recipe.global_batch).total
    assert not warmed(recipe.ema_decay, total, recipe.ema_warmup)
    assert warmed(recipe.ema_decay, total // 10, recipe.ema_warmup)
    assert not warmed(recipe.ema_decay, total // 10, False)
    assert warmed(recipe.ema_decay, total, True) and not warmed(0.0, 5, True)


def test_after_any_short_training_the_beginning_is_forgotten() -> None:
    for decay in (0.9, 0.99, 0.999, 0.9999):
        for total in range(20, 2_000, 13):
            share = first_share(decay, total, warmup=warmed(decay, total, None))
            assert share <= 0.01, (decay, total)


def trained(entry: NetworkEntry, images: Path, folder: Path, warmup: bool | None) -> TrainResult:
    recipe = Recipe(epochs=6, global_batch=8, lr=0.02, ema_decay=0.99, ema_warmup=warmup)
    result = train(entry, TrainOptions(str(images), folder, recipe), lambda done, total: None, lambda _: None)
    assert result is not None
    return result


def apart(result: TrainResult) -> float:
    """How far the average is from the weights themselves."""
    model, average = (load_file(result.weights[name]) for name in ("model", "model_ema"))
    return float(sum((model[n] - average[n]).float().square().sum() for n in model if "num_batches" not in n).sqrt())


def test_the_average_of_a_short_training_is_of_its_end(entry: NetworkEntry, images: Path, tmp_path: Path) -> None:
    result = trained(entry, images, tmp_path / "auto", None)
    assert result.average is not None and result.average.warmup and result.average.first_share < 1e-4
    assert result.accuracy["model_ema"].hits[1] >= result.accuracy["model"].hits[1]
    assert result.best == "model_ema" and result.settings["recipe"]["ema_warmup"] is True
    published = trained(entry, images, tmp_path / "plain", False)
    assert published.average is not None and published.average.first_share > 0.5
    assert apart(result) < 0.2 * apart(published)


@pytest.mark.parametrize(
    ("average", "counts", "best"),
    [
        (None, {"model": 7}, "model"),
        (Average(0.9, False, 0.0), {"model": 7, "model_ema": 7}, "model_ema"),
        (Average(0.9, False, 0.0), {"model": 8, "model_ema": 7}, "model"),
        (Average(0.9, False, 0.0), {}, "model_ema"),
        (None, {}, "model"),
    ],
)
def test_which_weights_to_deploy(average: Average | None, counts: dict[str, int], best: str) -> None:
    accuracy = {name: Accuracy(10, 2, {1: top1}) for name, top1 in counts.items()}
    result = TrainResult("n", "d", {}, 1, 1, 0, accuracy, average, {}, {}, ())
    assert result.best == best and result.to_json()["deploy"] == best
