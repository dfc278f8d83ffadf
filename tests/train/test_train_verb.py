"""The verb ``train``: spellings, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from csa_deploy.cli.train import modern

PUBLISHED = (
    "--model convselfattn --drop_path 0.1 --batch_size 128 --lr 4e-3 --update_freq 2 --use_amp true --model_ema true "
    "--model_ema_eval true --sync_BN true --warmup_epochs 20 --epochs 300 --resume last.ckpt --eval true "
    "--data_path imagenet --output_dir out"
)
OURS = (
    "convselfattn --drop-path 0.1 --batch-size 128 --lr 4e-3 --accumulate 2 --amp --ema --sync-bn --warmup-epochs 20 "
    "--epochs 300 --resume last.ckpt --evaluate-only --data imagenet --output out"
)


def test_the_published_command_line_is_understood() -> None:
    assert modern(PUBLISHED.split()) == OURS.split()


@pytest.mark.parametrize(
    ("old", "ours"),
    [
        ("--use_amp --sync_BN", "--amp --sync-bn"),
        ("--use_amp=false --model_ema false", "--no-amp --no-ema"),
        ("--eval false --lr 1e-3", "--lr 1e-3"),
        ("--model_ema_eval --epochs 3", "--epochs 3"),
        ("--data_path=a=b", "--data a=b"),
        ("csa_digits --data digits --amp", "csa_digits --data digits --amp"),
    ],
)
def test_old_switches_take_a_value_or_none(old: str, ours: str) -> None:
    assert modern(old.split()) == ours.split()


NETWORK = """
from torch import nn

preprocessing = {"size": (12, 12), "mode": "L", "mean": (0.5,), "std": (0.25,)}

def make(drop_path=0.0, layer_scale=0.0):
    assert (drop_path, layer_scale) in ((0.0, 0.0), (0.2, 0.5)), "made in vain, or as the recipe says"
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))
"""


def csa_deploy(folder: Path, arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(Path(sys.executable).with_name("csa-deploy")), *arguments.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_published_command_lines_train_and_evaluate(images: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    command = f"train --model net.py:make --drop_path 0.2 --layer_scale_init_value 0.5 --data_path {images}"
    command += " --output_dir out --batch_size 4 --update_freq 2 --lr 4e-3 --min_lr 1e-5 --weight_decay 0.05 --epochs 2"
    command += " --warmup_epochs 1 --use_amp true --model_ema true --model_ema_decay 0.5 --model_ema_eval true"
    command += " --sync_BN true --input_size 12 --num_workers 0"
    done = csa_deploy(tmp_path, command)
    assert done.returncode == 0, done.stderr
    assert "12 of 12 updates, finished" in done.stdout
    assert "scaled linearly it would be --lr 0.0005" in done.stderr
    (trained,) = (line for line in done.stdout.splitlines() if "model_ema: top-1" in line)
    assert (tmp_path / "out/model_ema.safetensors").is_file()

    machine = csa_deploy(tmp_path, f"{command} --log-json")
    events = [json.loads(line) for line in machine.stderr.splitlines()]
    (event,) = (e for e in events if e["event"] == "trained")
    assert event["updates"] == 12 and event["measured"].keys() == {"seconds", "images_per_second", "waiting"}

    again = csa_deploy(tmp_path, f"{command} --resume out/last.ckpt --eval true")
    assert again.returncode == 0, again.stderr
    assert trained in again.stdout and "evaluated as it is after 12 updates" in again.stdout
