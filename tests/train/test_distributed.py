"""Two processes on the CPU (gloo) against one, through the command line."""

from __future__ import annotations

import csv
import os
import socket
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


def started(
    folder: Path,
    images: Path,
    output: str,
    *arguments: str,
    launcher: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    (folder / "net.py").write_text(NETWORK)
    (folder / "recipe.yaml").write_text(RECIPE)
    command = [*launcher, CSA_DEPLOY, "train", "net.py:make", "--data", str(images), "--recipe", "recipe.yaml"]
    command += ["--output", output, "--accelerator", "cpu", "--threads", "1", "--workers", "0", *arguments]
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(*processes: subprocess.Popen[str]) -> str:
    """What all of them print; they run at the same time."""
    texts = [process.communicate(timeout=240) for process in processes]
    assert all(process.returncode == 0 for process in processes), [err for _, err in texts]
    return "".join(out for out, _ in texts)


def two_machines(folder: Path, images: Path, scheduler: bool) -> str:
    """What happens on two machines, with both on this one; ``scheduler`` sets what SLURM's srun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    both = []
    for node in ("0", "1"):
        environment, arguments = {"NODE_RANK": node}, ["--nodes", "2", "--devices", "1"]
        if scheduler:
            environment = {f"SLURM_{name}": node for name in ("PROCID", "NODEID")} | {"SLURM_LOCALID": "0"}
            environment |= {
                "SLURM_NTASKS": "2",
                "SLURM_NNODES": "2",
                "SLURM_NTASKS_PER_NODE": "1",
                "SLURM_JOB_NAME": "train",
            }
            arguments = []
        both.append(started(folder, images, "two", *arguments, environment={**rendezvous, **environment}))
    return said(*both)


def losses(output: Path) -> list[float]:
    with (output / "log" / "from_0000000" / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One process: its output folder and what it prints."""
    folder = tmp_path_factory.mktemp("alone")
    return folder / "one", said(started(folder, images, "one"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["devices", "torchrun", "nodes", "slurm"])
def test_two_processes_train_as_one(way: str, images: Path, tmp_path: Path, alone: tuple[Path, str]) -> None:
    if way == "devices":
        both = said(started(tmp_path, images, "two", "--devices", "2"))
    elif way == "torchrun":
        torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", *RENDEZVOUS)
        both = said(started(tmp_path, images, "two", launcher=torchrun))
    else:
        both = two_machines(tmp_path, images, scheduler=way == "slurm")
    one, printed = alone
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=1e-5)
    assert both.count("18 of 18 updates") == 1  # one process speaks
    assert [line for line in both.splitlines() if "top-1" in line] == [x for x in printed.splitlines() if "top-1" in x]
    for name in ("model.safetensors", "model_ema.safetensors"):
        first, second = (load_file(output / name) for output in (one, tmp_path / "two"))
        for key in first:
            torch.testing.assert_close(second[key], first[key], rtol=1e-3, atol=1e-4)


ROUNDS = """
import sys
import torch
from torch import distributed, nn
from csa_deploy.train.devices import within_group

torch.set_num_threads(1)

def work():
    network = nn.parallel.DistributedDataParallel(nn.Linear(4, 4))
    network(torch.ones(2, 4)).sum().backward()
    distributed.all_gather_object([None, None], rank)
    distributed.barrier()
    distributed.destroy_process_group()

rank, count, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for round in range(count):
    distributed.init_process_group("gloo", store=distributed.FileStore(f"{folder}/{round}", 2), rank=rank, world_size=2)
    CALL
print("all rounds")
"""


def rounds(folder: Path, call: str, count: int, seconds: float) -> list[str]:
    """What each of two processes says that form a group and leave it, ``count`` times within ``seconds``."""
    (folder / "rounds.py").write_text(ROUNDS.replace("CALL", call))
    both = [
        subprocess.Popen(
            [sys.executable, "rounds.py", rank, str(count), str(folder)], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    try:
        return [process.communicate(timeout=seconds)[0] for process in both]
    finally:
        for process in both:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_leaving_a_group_never_waits_for_ever(tmp_path: Path) -> None:
    """With ``work()`` alone thirty rounds always ended so; a training did now and then, after its last word."""
    assert rounds(tmp_path, "within_group(work)", 30, 240) == ["all rounds\n"] * 2
