"""Whose weights ``evaluate`` measures: those of the workspace, those that are named, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

NETWORK = """
from torch import nn

preprocessing = {"size": (8, 8)}


def make():
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3, 4))
"""


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """A network of four classes, weights that are right by construction, and data."""
    (tmp_path / "net.py").write_text(NETWORK)
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3, 4))
    random = np.random.RandomState(0)
    images = np.repeat(random.standard_normal((60, 3, 1, 1)) * 4, 64, axis=2).reshape(60, 3, 8, 8).astype(np.float32)
    with torch.no_grad():
        labels = network(torch.from_numpy(images)).argmax(1).numpy()
    np.savez(tmp_path / "x.npz", input=images, labels=labels)
    (tmp_path / "weights").mkdir()
    save_file(network.state_dict(), tmp_path / "weights" / "right.safetensors")
    return tmp_path


@pytest.mark.slow
@pytest.mark.shows("MEA-11")
def test_the_weights_of_the_workspace_are_remembered(folder: Path, typed: Any) -> None:
    """As the stages do; random weights were measured in silence here."""
    assert typed(folder, "export", "net.py:make", "--checkpoint", "weights/right.safetensors").code == 0
    done = typed(folder, "evaluate", "net.py:make", "--data", "x.npz")
    assert done.code == 0 and "top-1 100.00 %" in done.out and "weights: weights/right.safetensors" in done.out
    found = json.loads(typed(folder, "evaluate", "net.py:make", "--data", "x.npz", "--json").out)
    assert found["checkpoint"] == "weights/right.safetensors" and found["trained"] is True and found["notes"] == []
    graph = "deploy/net-make/onnx/net-make.onnx"
    assert json.loads(typed(folder, "evaluate", graph, "--data", "x.npz", "--json").out)["trained"] is None
    # Another workspace remembers nothing.
    assert "random weights" in typed(folder, "evaluate", "net.py:make", "--data", "x.npz", "-w", "other").out


@pytest.mark.shows("MEA-11", "ERR-09")
def test_random_weights_are_said_and_no_result(folder: Path, typed: Any) -> None:
    torch.manual_seed(1)
    labels = np.random.RandomState(3).randint(0, 4, 60)
    np.savez(folder / "y.npz", input=np.load(folder / "x.npz")["input"], labels=labels)
    done = typed(folder, "evaluate", "net.py:make", "--data", "y.npz")
    assert done.code == 6 and "no checkpoint: random weights" in done.out and "--checkpoint" in done.err
    assert "not shown to be better than guessing (25.00 %)" in done.err
    found = json.loads(typed(folder, "evaluate", "net.py:make", "--data", "y.npz", "--format", "json").out)
    assert found["trained"] is False and found["error"]["exit_code"] == 6 and found["samples"] == 60
    named = typed(folder, "evaluate", "net.py:make", "--data", "y.npz", "--checkpoint", "weights/right.safetensors")
    assert named.code == 0  # trained weights on other labels: a measurement


@pytest.mark.parametrize("verb", ["verify", pytest.param("quantize", marks=pytest.mark.slow)])
def test_the_stages_that_compare_say_it_too(folder: Path, typed: Any, verb: str) -> None:
    words = (verb, "net.py:make", "--data", "x.npz", "--fp16", "--threads", 1, "--samples", 2)
    assert "no checkpoint: random weights" in typed(folder, *words).err
    assert "random weights" not in typed(folder, *words, "--checkpoint", "weights/right.safetensors").err


@pytest.mark.parametrize("mixed", [False, True])
def test_samples_that_are_mixed_end_with_6(tmp_path: Path, typed: Any, build: Any, mixed: bool) -> None:
    """A mean over the samples instead of over the rows: accuracy alone does not show it."""
    body = "m = ReduceMean(input, axis) d = Sub(input, m) y = Flatten(d)"
    axis = np.array([0 if mixed else 2])
    onnx.save(build("(float[4,3,2,2] input) => (float[4,12] y)", body, axis=axis), tmp_path / "n.onnx")
    images = np.random.default_rng(0).standard_normal((8, 3, 2, 2)).astype("f4")
    np.savez(tmp_path / "x.npz", input=images, labels=np.arange(8))
    done = typed(tmp_path, "evaluate", "n.onnx", "--data", "x.npz", "--json")
    assert done.code == (6 if mixed else 0), done.err
    assert json.loads(done.out)["batch"]["verdict"] == ("fail" if mixed else "pass")
