"""Build on a target over a real sshd, with a stand-in for trtexec of each version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.engine.trtexec import trtexec_build
from csa_deploy.target.machine import open_machine

VERSIONS = ("8.6.13", "10.3.0", "11.1.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_build_over_ssh(sshd, trtexec: Callable[[str], Path], graph: Path, tmp_path: Path, version: str) -> None:
    config = sshd.config(
        workdir=str(tmp_path / "there"), trtexec=str(trtexec(version)), tensorrt=version, platform="drive-orin"
    )
    sent: list[tuple[int, int]] = []
    with open_machine(config) as machine:
        out = tmp_path / "here" / "net.engine"
        result = trtexec_build(
            machine,
            graph,
            out,
            BuildPlan(backend="trtexec", restricted=True),
            progress=lambda d, t: sent.append((d, t)),
        )
    assert out.read_bytes()[:4] == b"ftrt"
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "net.engine",
        "net.engine.layers.json",
        "net.engine.log",
    ]
    assert json.loads(result.inspection.read_text())["Layers"][0]["Metadata"] == "[ONNX Layer: /net/fc]"
    assert (result.version, result.build_seconds) == (version, 1.25)
    assert sent[-1] == (graph.stat().st_size, graph.stat().st_size)
    assert list((tmp_path / "there").iterdir()) == []  # the target is left clean
    level = None if version.startswith("11") else "restricted-build"
    assert (result.restricted.level, result.restricted.accepted) == (level, level is not None)
