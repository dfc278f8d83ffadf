"""Engines that trtexec built, timed where they were built: here, by the stand-in of the target's tests."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from csa_deploy.profile.cost import graph_cost

STANDIN = Path(__file__).parents[1] / "trtexec" / "trtexec_standin.py"


@pytest.mark.slow
def test_series_layers_and_reasons_of_trtexec(digits: Any, csa: Any, tmp_path: Path) -> None:
    shutil.copytree(digits.cwd / "deploy", tmp_path / "deploy")
    trtexec = tmp_path / "bin" / "trtexec"
    trtexec.parent.mkdir()
    trtexec.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} 10.3.0 "$@"\n')
    trtexec.chmod(0o755)
    where = {"PATH": f"{trtexec.parent}:{os.environ['PATH']}"}
    done = csa(tmp_path, "build", "csa_digits", "--backend", "trtexec", env=where)
    assert done.returncode == 0, done.stderr
    root = tmp_path / "deploy/csa_digits"
    # The stand-in times one layer, "all"; the engine inspector's file says what it stands for.
    graph = json.loads((root / "engines/csa_digits.fp16.engine.passport.json").read_text())["graph"]["file"]
    node = next(n for n in graph_cost(root / "onnx" / graph).nodes if n.module)
    layers = {"Layers": [{"Name": "all", "Metadata": f"[ONNX Layer: {node.name}]"}]}
    (root / "engines/csa_digits.fp16.engine.layers.json").write_text(json.dumps(layers))
    limit = ("--limit", "engine-fp16-device.p50_ms=1000")
    done = csa(tmp_path, "profile", "csa_digits", "--iterations", 60, "--threads", 1, *limit, env=where)
    assert done.returncode == 0, done.stderr
    measured = json.loads((root / "measurements/profile.json").read_text())
    total, alone = (measured["latency"][f"engine fp16{name}"]["samples_ms"] for name in ("", " device"))
    assert [round(a - b, 3) for a, b in zip(total, alone, strict=True)] == [0.02] * 60  # the stand-in's copies
    (layer,) = measured["engines"]["engine fp16"]["layers"]
    assert (layer["nodes"], layer["modules"], layer["time_us"]) == ([node.name], [node.module], 1000.0)
    (gate,) = measured["gates"]
    assert gate["verdict"] in ("pass", "undecided")  # on a busy machine neighbours are too alike to decide
    lacks = {i["what"]: i["reason"] for i in json.loads((root / "records/profile.json").read_text())["not_measured"]}
    assert "trtexec" in lacks["engine fp16 cuda graph"] and "trtexec" in lacks["engine fp16 memory on the device"]
    assert "engine fp16" in done.stdout and "p99" in done.stdout
