"""What users do wrong, and what machines do to a training, ends in one line with its code, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from csa_deploy.data.dataset import open_split
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.network import NetworkEntry
from csa_deploy.train.faults import faults_of_others, load_state
from csa_deploy.train.loading import EvaluationImages, evaluation_loader
from csa_deploy.train.network import HostSyncBatchNorm, synchronised
from csa_deploy.train.options import TrainOptions
from csa_deploy.train.recipe import Recipe, load_recipe, recipe_for
from csa_deploy.train.run import train

from .conftest import PREPROCESSING, make_tiny, write_images

COMMAND = [sys.executable, str(Path(sys.executable).with_name("csa-deploy")), "train"]
NETWORK = """
from torch import nn
preprocessing = {"size": (12, 12), "mode": "L", "mean": (0.5,), "std": (0.25,), "crop": 1.0}
def make():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))
"""


def fit(entry: NetworkEntry, options: TrainOptions) -> Any:
    return train(entry, options, lambda done, total: None, lambda summary: None)


def test_fewer_epochs_take_their_share_of_the_warm_up() -> None:
    assert load_recipe("small", {"epochs": 1}).warmup_epochs == pytest.approx(2 / 30)
    assert load_recipe("small", {"epochs": 10}).warmup_epochs == 2, "it fits"
    with pytest.raises(UsageError, match="3 warm-up epochs do not fit into 1 epochs"):
        load_recipe("small", {"epochs": 1, "warmup_epochs": 3})


@pytest.mark.parametrize(
    ("line", "said"), [("lr: .inf", "finite number"), ("1: 2", "1: unknown key"), ("min_lr: 1", "above lr")]
)
def test_recipes_that_make_no_sense_are_refused(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"epochs: 1\nglobal_batch: 8\n{'' if line.startswith('lr') else 'lr: 0.1'}\n{line}\n")
    with pytest.raises(UsageError, match=said):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("recipe", "asked", "given", "decay"),
    [("qat", True, None, 0.9999), ("qat", False, None, 0.0), ("qat", True, 0.0, 0.0), ("small", True, None, 0.99)],
)
def test_an_average_that_is_asked_for_is_kept(recipe: str, asked: bool, given: float | None, decay: float) -> None:
    made = recipe_for("digits", (32, 32), recipe, {"ema_decay": given}, average=asked)
    assert made.ema_decay == decay


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *(
            (f"--{name} {value}", name)
            for name, value in (("batch-size", -4), ("accumulate", 0), ("evaluate-every", 0))
        ),
        *((f"--{name} -1", name) for name in ("threads", "workers", "seed", "nodes")),
        ("--devices 0", "devices"),
        ("--accelerator tpu", "use auto, cpu or cuda"),
        ("--dry-run --images -5", "images"),
        ("--size 1", "does not run on 1x1 pixels"),
        ("--size 100000000", "does not run on"),
    ],
)
def test_options_out_of_range_are_refused(given: str, said: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "r.yaml").write_text("epochs: 1\nglobal_batch: 8\nlr: 0.001\n")
    command = [*COMMAND, "net.py:make", "--data", str(images), "--recipe", "r.yaml", *given.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_unreadable_image_in_a_worker_is_named_without_its_traceback(images: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "train", 8, 0)
    write_images(tmp_path / "val", 4, 1)
    bad = next((tmp_path / "val").rglob("*.png"))
    bad.write_bytes(b"no image")
    held_out = open_split(str(tmp_path), PREPROCESSING).held_out
    assert held_out is not None
    batch = next(iter(evaluation_loader(EvaluationImages(held_out, PREPROCESSING), 4, 0, 1, 1)))
    with pytest.raises(UsageError, match=str(bad)) as raised:
        batch.checked()
    assert "Traceback" not in raised.value.message


def test_an_evaluation_that_fails_leaves_the_epoch_before_it(
    entry: NetworkEntry, recipe: Recipe, tmp_path: Path
) -> None:
    write_images(tmp_path / "d/train", 16, 0)
    write_images(tmp_path / "d/val", 4, 1)
    next((tmp_path / "d/val").rglob("*.png")).write_bytes(b"no image")
    with pytest.raises(UsageError, match="cannot be read as an image"):
        fit(entry, TrainOptions(str(tmp_path / "d"), tmp_path / "out", recipe))
    assert load_state(tmp_path / "out/last.ckpt")["update"] == 3 * 2, "all of the training"


def test_a_training_does_not_go_on_with_another_global_batch(
    entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path: Path
) -> None:
    options = TrainOptions(str(images), tmp_path, recipe.model_copy(update={"epochs": 1}), batch_size=4, accumulate=2)
    fit(entry, options)
    with pytest.raises(UsageError, match=r"another global batch \(8, now 16\)"):
        fit(entry, replace(options, batch_size=8))
    assert fit(entry, replace(options, batch_size=8, accumulate=1)).finished, "the same images per update"


def test_checkpoints_that_do_not_fit_are_refused_in_words(
    entry: NetworkEntry, images: Path, recipe: Recipe, tmp_path: Path
) -> None:
    plain = recipe.model_copy(update={"epochs": 1, "ema_decay": 0.0})
    options = TrainOptions(str(images), tmp_path, plain)
    fit(entry, options)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    with pytest.raises(UsageError, match="no average of the weights"):
        fit(entry, replace(options, recipe=recipe, evaluate_only=True))

    def wider() -> nn.Module:
        return nn.Sequential(*list(make_tiny())[:-1], nn.Linear(8 * 144, 3))

    with pytest.raises(UsageError, match=r"of another network: 2 of its tensors differ, first 4\.bias"):
        fit(replace(entry, factory=wider), replace(options, evaluate_only=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        fit(entry, replace(options, output=tmp_path / "file"))


def test_a_misspelt_class_folder_is_named(images: Path) -> None:
    near = replace(PREPROCESSING, classes=("bar", "blob"))
    with pytest.raises(UsageError, match=r"bars: none of the network's 2 classes.*nearest: bar"):
        open_split(str(images), near)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_sigterm_to_the_whole_job_saves_although_workers_get_it_too(images: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "r.yaml").write_text("epochs: 2000\nglobal_batch: 8\nlr: 0.001\n")
    command = [*COMMAND, "net.py:make", "--data", str(images), "--recipe", "r.yaml", "--workers", "2", "-o", "out"]
    job = subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not (tmp_path / "out/last.ckpt").exists() and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(job.pid, signal.SIGTERM)
    shown, said = job.communicate(timeout=60)
    assert job.returncode == 0, said
    assert "stopped; the same command goes on from here" in shown
    assert load_state(tmp_path / "out/last.ckpt")["update"] >= 6


def test_a_worker_cannot_be_ended_before_it_listens(images: Path) -> None:
    split = open_split(str(images), PREPROCESSING)
    evaluation_loader(EvaluationImages(split.train, PREPROCESSING), 2, 0, 1, workers=1)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as workers:
        assert signal.SIGTERM in workers.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result(timeout=60)


def test_words_of_the_network_library_become_ours() -> None:
    with pytest.raises(EnvironmentLacksError, match="another process of this training has ended"), faults_of_others():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:2049")
    with pytest.raises(RuntimeError, match="something else"), faults_of_others():
        raise RuntimeError("something else")


@pytest.fixture()
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (6, 4, 3, 3), (6, 4, 2, 3, 3)])
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"track_running_stats": False}, {"affine": False}])
def test_host_batch_norm_is_torchs(shape: tuple[int, ...], options: dict[str, Any], group: None) -> None:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    torch.manual_seed(0)
    theirs, ours = kind(4, **options), nn.Sequential(kind(4, **options))
    synchronised(ours, torch.device("cpu"))
    assert type(ours[0]) is HostSyncBatchNorm
    for _ in range(3):
        x = 3 * torch.randn(shape) + 1
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours[0].state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
