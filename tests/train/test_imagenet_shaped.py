"""The published network and recipe at 224 x 224, on synthetic shards in ImageNet's layout."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from csa_models.registry import convselfattn
from PIL import Image

from csa_deploy.train.options import TrainOptions
from csa_deploy.train.recipe import load_recipe
from csa_deploy.train.run import train

BATCH, ACCUMULATE, SHARDS = 2, 1, 3


def write_shard(path: Path, seed: int, images: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    with tarfile.open(path, "w") as archive:
        for i in range(images):
            height, width = random.randint(180, 400, 2)
            picture = io.BytesIO()
            Image.fromarray(random.randint(0, 256, (height, width, 3)).astype(np.uint8)).save(picture, "JPEG")
            for suffix, data in (("jpg", picture.getvalue()), ("cls", str(random.randint(1000)).encode())):
                info = tarfile.TarInfo(f"{seed:03d}-{i:03d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


@pytest.mark.slow
def test_the_published_training_starts_stops_and_goes_on(tmp_path: Path) -> None:
    for shard in range(SHARDS):
        write_shard(tmp_path / "data" / "train" / f"{shard}.tar", shard)
    write_shard(tmp_path / "data" / "val" / "0.tar", SHARDS)
    recipe = load_recipe("imagenet", {"epochs": 1, "warmup_epochs": 2 / 3})
    options = TrainOptions(
        str(tmp_path / "data"), tmp_path / "whole", recipe, batch_size=BATCH, accumulate=ACCUMULATE, workers=0
    )
    parts = TrainOptions(**{**vars(options), "output": tmp_path / "parts"})

    def terminate(done: int, total: int) -> None:
        if done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = train(convselfattn, options, lambda done, total: None, lambda summary: None)
    stopped = train(convselfattn, parts, terminate, lambda summary: None)
    train(convselfattn, parts, lambda done, total: None, lambda summary: None)
    assert whole is not None
    assert stopped is not None
    assert (whole.total, whole.warmup, whole.updates) == (3, 2, 3)
    assert whole.accuracy["model"].samples == 2
    # One more than the one after which the signal came: the processes agree about it in an update.
    assert stopped.updates == 2
    state, other = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(state["model"][key], other["model"][key]) for key in state["model"])
    assert sum(p.numel() for p in state["model"].values() if p.is_floating_point()) > 27_638_836
    assert {key.rpartition(".")[2] for key in state["model"]} >= {"gamma", "running_mean"}
