"""The verb ``train``: spellings, and what it says."""

from __future__ import annotations

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


def test_the_verb_in_the_old_spelling(images: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\npreprocessing = {'size': (12, 12), 'mode': 'L', 'mean': (0.5,), 'std': (0.25,)}\n"
        "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(144, 2))\n"
    )
    command = f"train --model net.py:make --data_path {images} --output_dir out --epochs 1 --warmup_epochs 0"
    command += " --batch_size 4 --update_freq 2 --use_amp false --threads 1 --accelerator cpu"
    done = subprocess.run(
        [sys.executable, str(Path(sys.executable).with_name("csa-deploy")), *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "6 of 6 updates, finished" in done.stdout
    assert "scaled linearly it would be --lr 0.0005" in done.stderr
    assert (tmp_path / "out/model_ema.safetensors").is_file()
