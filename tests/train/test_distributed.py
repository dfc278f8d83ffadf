"""Two processes on the CPU (gloo) against one, through the command line."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

NETWORK = """
from torch import nn
preprocessing = {"size": (12, 12), "mode": "L", "mean": (0.5,), "std": (0.25,), "crop": 1.0}

def make():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 2)
    )
"""
# No augmentation: its random numbers belong to a rank. All else is there, weights that drift apart would show.
RECIPE = "epochs: 3\nwarmup_epochs: 1\nglobal_batch: 8\nlr: 0.02\nema_decay: 0.5\nlabel_smoothing: 0.1\n"
RENDEZVOUS = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
CSA_DEPLOY = str(Path(sys.executable).with_name("csa-deploy"))


def run(folder: Path, images: Path, output: str, *arguments: str, launcher: tuple[str, ...] = ()) -> str:
    (folder / "net.py").write_text(NETWORK)
    (folder / "recipe.yaml").write_text(RECIPE)
    command = [*launcher, CSA_DEPLOY, "train", "net.py:make", "--data", str(images), "--recipe", "recipe.yaml"]
    command += ["--output", output, "--accelerator", "cpu", "--threads", "1", "--workers", "0", *arguments]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(output: Path) -> list[float]:
    with (output / "log" / "from_0000000" / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["devices", "torchrun"])
def test_two_processes_train_as_one(way: str, images: Path, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", *RENDEZVOUS)
    said = run(tmp_path, images, "one")
    if way == "devices":
        both = run(tmp_path, images, "two", "--devices", "2")
    else:
        both = run(tmp_path, images, "two", launcher=torchrun)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert both.count("18 of 18 updates") == 1  # one process speaks
    assert [line for line in both.splitlines() if "top-1" in line] == [x for x in said.splitlines() if "top-1" in x]
    for name in ("model.safetensors", "model_ema.safetensors"):
        one, two = (load_file(tmp_path / output / name) for output in ("one", "two"))
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-4)
