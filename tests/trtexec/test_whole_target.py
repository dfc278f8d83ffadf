"""From the command line: a target that builds with its own trtexec, then verify, profile, report and bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("version", "platform", "words", "level"),
    [
        ("10.10.0", "drive-thor", ("--restricted", "--safe"), "safety-build"),
        ("10.10.0", "drive-orin", ("--restricted",), "restricted-build"),
        ("11.4.1", "jetson-orin", (), "static"),
    ],
)
def test_round_trip(
    sshd,
    trtexec: Callable[[str], Path],
    csa,
    graph: Path,
    tmp_path: Path,
    version: str,
    platform: str,
    words: tuple[str, ...],
    level: str,
) -> None:
    file, there = tmp_path / "target.yaml", tmp_path / "there"
    file.write_text(
        f"host: 127.0.0.1\nport: {sshd.port}\nssh_config: {sshd.folder}/ssh_config\nworkdir: {there}\n"
        f"trtexec: {trtexec(version)}\ntensorrt: '{version}'\nplatform: {platform}\n"
    )
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32))
    where = ("--workspace", tmp_path / "w", "--fp32")
    steps = {
        "build": ("build", graph, "--target", file, *words, *where),
        "verify": ("verify", graph, "--data", tmp_path / "data.npz", *where),
        "profile": ("profile", graph, "--iterations", "10", *where),
        "report": ("report", graph, *where[:2]),
        "bundle": ("bundle", graph, "-o", tmp_path / "net.tar", *where[:2], "--precision", "fp32"),
        "proof": ("verify-bundle", tmp_path / "net.tar"),
    }
    said = {}
    for step, line in steps.items():
        done = csa(tmp_path, *line)
        assert done.returncode == 0, (step, done.stdout, done.stderr)
        said[step] = done.stdout + done.stderr
    entry = json.loads((tmp_path / "w" / "records" / "build.json").read_text())["engines"]["fp32"]
    assert entry["restricted"]["level"] == (level if words else None)
    measured = json.loads((tmp_path / "w" / "measurements" / "profile.json").read_text())
    assert len(measured["latency"]["engine fp32"]["samples_ms"]) >= 10
    assert "engine fp32" in said["verify"]
    assert list(there.iterdir()) == []
