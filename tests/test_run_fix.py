"""``run --fix``: the repaired network stays the network, its reference PyTorch, its budgets those of the run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csa_deploy.cli.main import app
from csa_deploy.errors import OperationRejectedError
from csa_deploy.repair.cost import half_cost

NET = """
import torch
from torch import nn


class Small(nn.Module):
    preprocessing = {"size": (16, 16), "mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


def small():
    torch.manual_seed(0)
    return Small()
"""
SCOPES = ("--scope", "drive-os-6", "--scope", "drive-os-7")


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/nets.py").write_text(NET)
    images = np.random.default_rng(5).standard_normal((6, 3, 16, 16)).astype("f4")
    np.savez(tmp_path / "x.npz", x=images, labels=np.arange(6))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def go(verb: str, *words: str) -> None:
    given = ["--exporter", "torchscript", "--iterations", "3"] if verb == "run" else []
    app([verb, "code/nets.py:small", "-w", "w", "-q", *given, *words], standalone_mode=False)


def record(stage: str) -> dict[str, Any]:
    return json.loads((Path("w/records") / f"{stage}.json").read_text())


def stages() -> dict[str, Any]:
    return json.loads(Path("w/manifest.json").read_text())["stages"]


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
def test_a_denied_network_is_repaired_inside_the_pipeline(folder: Path) -> None:
    run = ("--restricted", *SCOPES, "--data", "x.npz", "--compute-capability", "8.6", "--fp32", "--fp16")
    with pytest.raises(OperationRejectedError, match="drive-os-6") as denied:
        go("run", *run)
    assert "--fix" in str(denied.value.fix) and record("check")["of"] == "exported"
    go("run", *run, "--fix")

    repaired = onnx.load(Path("w") / record("repair")["graph"])
    assert "ReduceMean" not in {node.op_type for node in repaired.graph.node}
    verdicts = {found["scope"]: (found["before"], found["after"]) for found in record("repair")["verdicts"]}
    assert verdicts["drive-os-6"][0] == "denied" and "denied" not in verdicts["drive-os-6"][1:]
    assert record("check")["of"] == "repaired"

    assert record("precision")["precisions"]["fp32"]["graph"] == record("repair")["graph"]
    half = onnx.load("w/onnx/nets-small.fp16.onnx")
    assert {node.op_type for node in half.graph.node} - {"Cast"} == {node.op_type for node in repaired.graph.node}
    verified = record("verify")
    assert verified["reference"]["backend"] == "torch" and verified["data"]["name"] == "x.npz"
    assert {c["label"] for c in verified["candidates"]} >= {"exported", "fp32", "fp16"}
    assert {scope["verdict"] for scope in record("build")["engines"]["fp16"]["scopes"]} <= {"allowed", "unknown"}
    assert record("export")["preprocessing"]["mean"] == [0.4, 0.4, 0.4]
    metadata = {entry.key for entry in onnx.load("w/onnx/nets-small.fp16.onnx").metadata_props}
    assert metadata >= {entry.key for entry in onnx.load("w/onnx/nets-small.onnx").metadata_props}

    page = Path("w/report.html").read_text()
    assert 'id="repair-title"' in page and "global_pool_to_pool" in page and "repaired graph" in page


def test_without_fix_the_repaired_graph_is_gone_and_with_it_it_is_back(folder: Path) -> None:
    go("quantize", "--data", "x.npz", "--fp16", "--fix", "--exporter", "torchscript", *SCOPES)
    first = Path("w/onnx/nets-small.fp16.onnx").read_bytes()
    assert record("repair")["costs"]["fp16"]["inputs"] == "4 samples of x.npz"
    go("quantize", "--no-fix")
    assert "repair" not in stages()
    assert Path("w/onnx/nets-small.fp16.onnx").read_bytes() != first
    assert record("precision")["precisions"]["fp16"]["graph"] == "onnx/nets-small.fp16.onnx"
    go("quantize", "--fix")
    assert Path("w/onnx/nets-small.fp16.onnx").read_bytes() == first


def test_other_data_measure_the_cost_again_and_keep_the_graph(folder: Path) -> None:
    go("quantize", "--data", "x.npz", "--fp16", "--fix", "--exporter", "torchscript", *SCOPES)
    made = {path: path.stat().st_mtime_ns for path in Path("w/onnx").iterdir()}
    np.savez("y.npz", x=np.ones((4, 3, 16, 16), "f4"), labels=np.arange(4))
    go("quantize", "--data", "y.npz")
    assert "y.npz" in record("repair")["summary"]
    assert {path: path.stat().st_mtime_ns for path in Path("w/onnx").iterdir()} == made


@pytest.mark.shows("MEA-15", "ERR-12")
def test_a_repair_that_costs_accuracy_in_fp16_is_named(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that adds and takes away 2,000 again is exact enough in FP32, and loses its digits in FP16."""
    before = build("(float[1,4,8,8] x) => (float[1,4,8,8] y)", "y = Relu(x)")
    after = build(
        "(float[1,4,8,8] x) => (float[1,4,8,8] y)", "a = Relu(x)\n b = Add(a, c)\n y = Sub(b, c)", c=np.float32([2000])
    )
    feeds = [{"x": np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype("f4")}]
    monkeypatch.setattr(
        sys.modules["csa_deploy.repair.cost"], "repair", lambda model, names: type("R", (), {"model": before})
    )
    cost = half_cost(before, after, ["costly"], feeds, "one random input")
    exact = np.maximum(feeds[0]["x"], 0).astype(np.float64)
    half = (np.maximum(feeds[0]["x"], 0).astype("f2") + np.float16(2000)) - np.float16(2000)
    loss = 10 * np.log10((exact**2).sum() / ((exact - half.astype(np.float64)) ** 2).sum())
    assert cost.after_db == pytest.approx(loss, abs=0.1)
    assert [share.rule for share in cost.shares] == ["costly"]
    assert cost.shares[0].lost_db == pytest.approx(cost.before_db - cost.after_db, abs=0.1)
    assert "costly costs" in cost.words
    assert half_cost(before, before, ["free"], feeds, "one random input").shares == ()
