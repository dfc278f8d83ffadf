"""PyTorch as the reference: two inputs, several outputs, a checkpoint, samples that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def test_two_inputs_and_outputs(lab: Path, csa: Any) -> None:
    draw = np.random.default_rng(3)
    camera, speed = draw.standard_normal((5, 3, 8, 8)).astype("f4"), draw.standard_normal((5, 4)).astype("f4")
    np.savez(lab / "two.npz", camera=camera, speed=speed)
    done = csa(lab, "verify", "nets.py:two", "--data", "two.npz", "--exporter", "torchscript")
    assert done.returncode == 0, done.stderr
    record = json.loads((lab / "deploy/nets-two/records/verify.json").read_text())
    assert record["reference"]["backend"] == "torch" and record["data"]["samples"] == 5
    assert [c["label"] for c in record["candidates"]] == ["exported", "fp32", "fp16"]
    assert all([o["name"] for o in c["outputs"]] == ["path", "brake"] for c in record["candidates"])
    np.savez(lab / "two.npz", camera=camera, velocity=speed)
    done = csa(lab, "verify", "nets.py:two", "--data", "two.npz")
    assert done.returncode == 2
    assert "the network takes camera (n, 3, 8, 8), speed (n, 4), the data hold" in done.stderr.splitlines()[-1]


def test_digits(digits: Any) -> None:
    record = digits.record("verify")
    assert record["reference"]["backend"] == "torch" and record["data"]["samples"] == 20
    for candidate in record["candidates"]:
        metrics = candidate["outputs"][0]["metrics"]
        assert candidate["verdict"] == "undecided" and metrics["top1"] >= 0.95  # 20 samples are few
        assert abs(metrics["top1_drop"]) <= 0.002
    stored = np.load(digits.root / "verify/samples.npz")
    assert len(stored["id"]) == 20 and stored["fp16/output/snr_db"].shape == (20,)
    fp16 = next(c for c in record["candidates"] if c["label"] == "fp16")["outputs"][0]
    worst = stored["id"][int(np.argmax(stored["fp16/output/max_abs_error"]))]
    assert fp16["worst"][0]["id"] == worst
    if digits.manifest()["stages"].get("build"):
        assert {m["what"] for m in record["not_measured"]} <= {"engine fp32", "engine fp16"}
