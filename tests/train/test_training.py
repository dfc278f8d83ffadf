"""Whole trainings, and what may go wrong in them."""

from __future__ import annotations

import json
import os
import resource
import signal
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from csa_deploy.checkpoint import load_checkpoint
from csa_deploy.errors import AccuracyGateError, EnvironmentLacksError, UsageError
from csa_deploy.network import NetworkEntry
from csa_deploy.train.faults import save_tensors
from csa_deploy.train.loading import TrainBatch
from csa_deploy.train.loop import Training
from csa_deploy.train.options import TrainOptions
from csa_deploy.train.recipe import Recipe
from csa_deploy.train.result import EpochSummary, TrainResult
from csa_deploy.train.run import train

from .conftest import HELD_OUT, TRAIN, make_tiny

UPDATES = 3 * (TRAIN // 8)


def run(entry: NetworkEntry, options: TrainOptions, at: dict[int, Any] | None = None) -> TrainResult:
    def progress(done: int, _: int) -> None:
        if at and done in at:
            at[done]()

    result = train(entry, options, progress, lambda _: None)
    assert result is not None
    return result


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.fixture(scope="module")
def whole(
    entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, Path]:
    """A training without incidents."""
    output = tmp_path_factory.mktemp("whole")
    return run(entry, TrainOptions(str(images), output, recipe)), output


def test_a_training_says_what_it_did(whole: tuple[TrainResult, Path]) -> None:
    result, output = whole
    assert result.finished
    assert (result.total, result.warmup) == (UPDATES, TRAIN // 8)
    assert set(result.accuracy) == {"model", "model_ema"}
    assert all(a.samples == HELD_OUT and list(a.hits) == [1] for a in result.accuracy.values())  # of two classes
    assert result.measured["images_per_second"] > 0
    assert "measured" not in (output / "result.json").read_text()
    assert "loss" in (output / "log" / "from_0000000" / "metrics.csv").read_text()


def test_a_training_learns(entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path: Path) -> None:
    plain = Recipe(epochs=6, global_batch=8, lr=recipe.lr, ema_decay=0.5)
    result = run(entry, TrainOptions(str(images), tmp_path, plain))
    assert {name: accuracy.hits[1] for name, accuracy in result.accuracy.items()} == {
        "model": HELD_OUT,
        "model_ema": HELD_OUT,
    }


@pytest.mark.parametrize("name", ["model", "model_ema"])
def test_the_weights_can_be_deployed(whole: tuple[TrainResult, Path], name: str) -> None:
    _, output = whole
    network = make_tiny()
    load_checkpoint(network, output / f"{name}.safetensors")
    other = make_tiny()
    assert load_checkpoint(other, output / "last.ckpt", key=name) == name
    assert same(network.state_dict(), other.state_dict())


def test_the_seed_decides(
    entry: NetworkEntry, images: Path, recipe: Recipe, whole: tuple[TrainResult, Path], tmp_path: Path
) -> None:
    _, output = whole
    run(entry, TrainOptions(str(images), tmp_path / "same", recipe))
    run(entry, TrainOptions(str(images), tmp_path / "other", recipe, seed=1))
    for name in ("model.safetensors", "result.json"):
        assert (tmp_path / "same" / name).read_bytes() == (output / name).read_bytes()
    assert (tmp_path / "other/model.safetensors").read_bytes() != (output / "model.safetensors").read_bytes()


@pytest.mark.parametrize("stop_at", [1, 6, 8])  # in the first epoch, at its end, in the second
def test_sigterm_saves_and_the_training_goes_on_bit_for_bit(
    entry: NetworkEntry, images: Path, recipe: Recipe, whole: tuple[TrainResult, Path], tmp_path: Path, stop_at: int
) -> None:
    options = TrainOptions(str(images), tmp_path, recipe)
    before = signal.getsignal(signal.SIGTERM)
    stopped = run(entry, options, {stop_at - 1: terminate, stop_at: terminate})
    assert signal.getsignal(signal.SIGTERM) is before
    assert (stopped.updates, stopped.finished) == (stop_at + (stop_at == 1), False)
    assert "stopped after" in stopped.not_done[0]
    assert run(entry, options).finished
    first, second = (torch.load(p / "last.ckpt", weights_only=True) for p in (whole[1], tmp_path))
    assert same(first, second)


def test_a_checkpoint_of_another_training_is_refused(
    entry: NetworkEntry, images: Path, recipe: Recipe, whole: tuple[TrainResult, Path], tmp_path: Path
) -> None:
    options = TrainOptions(str(images), tmp_path, recipe, resume=whole[1] / "last.ckpt")
    with pytest.raises(UsageError, match="another seed"):
        run(entry, replace(options, seed=1))
    with pytest.raises(UsageError, match="another recipe"):
        run(entry, replace(options, recipe=recipe.model_copy(update={"lr": 0.5})))
    with pytest.raises(UsageError, match="no such checkpoint"):
        run(entry, replace(options, resume=tmp_path / "none.ckpt"))
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UsageError, match="cannot be read"):
        run(entry, replace(options, resume=tmp_path / "bad.ckpt"))


def test_evaluation_alone(
    entry: NetworkEntry, images: Path, recipe: Recipe, whole: tuple[TrainResult, Path], tmp_path: Path
) -> None:
    options = TrainOptions(str(images), tmp_path, recipe, evaluate_only=True)
    with pytest.raises(UsageError, match="nothing was trained"):
        run(entry, options)
    assert run(entry, replace(options, resume=whole[1] / "last.ckpt")).accuracy == whole[0].accuracy


def test_evaluation_alone_leaves_the_training_as_it_is(
    entry: NetworkEntry,
    images: Path,
    recipe: Recipe,
    whole: tuple[TrainResult, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = whole[1]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    other = recipe.model_copy(update={"epochs": 30})  # as when the training's own flags are not given again
    result = run(entry, TrainOptions(str(images), output, other, evaluate_only=True))
    assert result.accuracy == whole[0].accuracy and result.updates == UPDATES
    kept = json.loads((output / "evaluation.json").read_text())
    assert kept["accuracy"].keys() == {"model", "model_ema"} and "finished" not in kept
    (output / "evaluation.json").unlink()
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before
    assert not [r for r in caplog.records if "goes on" in r.message]


def test_a_loss_that_is_no_number_keeps_its_batch(
    entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path: Path
) -> None:
    wild = recipe.model_copy(update={"lr": 1e30, "warmup_epochs": 0})
    with pytest.raises(AccuracyGateError, match="bad_batch_rank0"):
        run(entry, TrainOptions(str(images), tmp_path, wild))
    path = tmp_path / "bad_batch_rank0.safetensors"
    assert load_file(path)["images"].shape == (8, 1, 12, 12)
    with safe_open(path, "pt") as file:
        assert ".png" in file.metadata()["names"]


def test_of_several_steps_the_bad_one_is_kept(
    entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second update's second step of four gets an image that is no number."""
    prepared, steps = Training._prepared, count(1)

    def poisoned(training: Training, batch: TrainBatch) -> tuple[torch.Tensor, torch.Tensor]:
        x, targets = prepared(training, batch)
        return (x * torch.nan if next(steps) == 6 else x), targets

    monkeypatch.setattr(Training, "_prepared", poisoned)
    with pytest.raises(AccuracyGateError, match="update 1: the loss is not finite"):
        run(entry, TrainOptions(str(images), tmp_path, recipe, batch_size=2, accumulate=4))
    kept = load_file(tmp_path / "bad_batch_rank0.safetensors")["images"]
    assert kept.shape == (2, 1, 12, 12)
    assert kept.isnan().all()


def test_a_full_disk_keeps_the_previous_checkpoint(
    entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path: Path
) -> None:
    """A limit on file sizes fails as a full disk does: in the middle of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    try:
        with pytest.raises(EnvironmentLacksError, match="the previous checkpoint is kept"):
            run(entry, TrainOptions(str(images), tmp_path, recipe), {8: fill})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["update"] == 6
    assert not list(tmp_path.glob(".*.tmp"))
    weights = tmp_path / "some.safetensors"
    save_tensors(weights, {"x": torch.zeros(9)})
    try:
        fill()
        with pytest.raises(EnvironmentLacksError, match="the previous file is kept"):
            save_tensors(weights, {"x": torch.zeros(9999)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_file(weights)["x"].shape == (9,)
    assert run(entry, TrainOptions(str(images), tmp_path, recipe)).finished


def test_unreadable_images_are_counted_and_named(
    entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path: Path
) -> None:
    for path in (*images.rglob("train/*/*.png"), *images.rglob("val/*/*.png")):
        copy = tmp_path / "data" / path.relative_to(images)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "data/train/bars/000.png").write_bytes(b"broken")
    result = run(entry, TrainOptions(str(tmp_path / "data"), tmp_path / "out", recipe))
    assert list(result.unreadable) == ["bars/000.png"]
    assert "no image format" in result.unreadable["bars/000.png"]


def test_figures_for_tensorboard(entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    run(entry, TrainOptions(str(images), tmp_path, recipe, tensorboard=True))
    (events,) = (tmp_path / "tensorboard" / "from_0000000").glob("events.out.tfevents.*")
    assert b"model_ema_top1" in events.read_bytes()


def test_progress_and_epochs_are_told(entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path: Path) -> None:
    updates: list[int] = []
    epochs: list[EpochSummary] = []
    options = TrainOptions(str(images), tmp_path, recipe, evaluate_every=2)
    train(entry, options, lambda done, total: updates.append(done), epochs.append)
    assert updates == list(range(1, UPDATES + 1))
    assert [bool(e.accuracy) for e in epochs] == [False, True, True]
    assert epochs[0].lr == pytest.approx(0.02 * 5 / 6)


def test_a_network_with_too_few_outputs_is_refused(images: Path, recipe: Recipe, tmp_path: Path) -> None:
    def one_class() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(144, 1))

    from .conftest import PREPROCESSING

    narrow = NetworkEntry("narrow", "", one_class, PREPROCESSING, weights="none")
    with pytest.raises(UsageError, match=r"labels 0\.\.1 do not fit a network with 1 outputs"):
        run(narrow, TrainOptions(str(images), tmp_path, recipe))
