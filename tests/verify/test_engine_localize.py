"""Localisation of an engine: cut where its fusions end, modules restored in the graph and built again.

A stand-in for trtexec builds and runs; it says nothing about TensorRT, only about what is sent to it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.pipeline import run_stages
from csa_deploy.source import load_source
from csa_deploy.stages import build as build
from csa_deploy.stages import verify as verify
from csa_deploy.verify.localize.engines import surviving
from csa_deploy.workspace import Workspace

STANDIN = Path(__file__).parents[1] / "trtexec" / "trtexec_standin.py"


@pytest.fixture()
def built(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """``tiny.onnx`` with an FP16 engine that was built from a graph with one doubled weight."""
    program = lab / "bin" / "trtexec"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} 10.13.0 "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    given = {"network": str(lab / "tiny.onnx"), "data": str(lab / "x.npz"), "samples": 1, "threads": 1}
    config = make_config({**given, "backend": "trtexec", "precision": ["fp16"]})
    context = Context(config, load_source(config.network), Workspace(lab / "w"))
    with context.workspace.locked():
        run_stages(["precision"], context)
        path = lab / "w/onnx/tiny.fp16.onnx"
        model = onnx.load(path)
        weight = next(t for t in model.graph.initializer if t.name == "first")
        weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight), "first"))
        onnx.save(model, path)
        with context.workspace.scratch("build") as context.scratch:
            context.workspace.commit("build", "key", build.run(context))
    return context


def compare(context: Context) -> dict[str, Any]:
    with context.workspace.locked(), context.workspace.scratch("verify") as context.scratch:
        return verify.run(context).stated


def fuse(engine: Path, outputs: list[str]) -> None:
    """Let the inspector list layers that end at these tensors."""
    layers = [{"Name": f"fused to {name}", "Inputs": [], "Outputs": [{"Name": name}]} for name in outputs]
    engine.with_name(f"{engine.name}.layers.json").write_text(json.dumps({"Layers": layers}))


@pytest.mark.slow
def test_a_fault_in_an_engine_is_named_at_the_boundaries_that_its_fusions_leave(built: Context) -> None:
    engine = built.path("engines/tiny.fp16.engine")
    fuse(engine, ["p", "not a tensor of the graph", "y"])
    record = compare(built)
    found = {e["candidate"]: e for e in record["localization"]}
    assert {c["label"]: c["verdict"] for c in record["candidates"]}["engine fp16"] == "fail"
    assert found["fp16"]["culprits"] == ["conv"] and found["fp16"]["boundaries"] == []
    of_engine = found["engine fp16"]
    assert of_engine["boundaries"] == ["p", "y"] and of_engine["compared_with"] == "fp32"
    assert of_engine["culprits"] == ["conv .. pool"]
    assert not list(built.path("engines").glob("*edited*"))


def test_without_layers_an_engine_is_left_to_its_graph(built: Context) -> None:
    engine = built.path("engines/tiny.fp16.engine")
    for content in ({"Layers": ["a mere name"]}, None):
        layers = engine.with_name(f"{engine.name}.layers.json")
        layers.unlink() if content is None else layers.write_text(json.dumps(content))
        assert surviving(engine) is None
    record = compare(built)
    assert [e["candidate"] for e in record["localization"]] == ["fp16"]
    (reason,) = [n["reason"] for n in record["not_measured"] if n["what"] == "layers of engine fp16"]
    assert "not known here" in reason and "see the graph" in reason


def test_an_engine_that_cannot_run_here_says_where_it_could_be_compared(
    built: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuse(built.path("engines/tiny.fp16.engine"), ["p"])
    path = built.path("records/build.json")
    stored = json.loads(path.read_text())
    stored["engines"]["fp16"]["machine"]["platform"] = "drive"
    path.write_text(json.dumps(stored))
    built.config = built.config.model_copy(update={"localize": True})
    record = compare(built)
    (reason,) = [n["reason"] for n in record["not_measured"] if n["what"] == "layers of engine fp16"]
    assert "built on a target; its fusions leave 1 tensors: p" in reason
    assert [e["candidate"] for e in record["localization"]] == ["fp32", "fp16"]


def test_an_engine_of_trtexec_is_evaluated(built: Context, lab: Path, csa: Any) -> None:
    shown = []
    for subject in ("w/engines/tiny.fp16.engine", "w/onnx/tiny.fp16.onnx"):
        done = csa(lab, "evaluate", subject, "--data", "x.npz", "--samples", 2, "--json")
        assert done.returncode == 0, done.stderr
        shown.append(json.loads(done.stdout))
    assert shown[0]["runner"]["backend"] == "trtexec" and shown[0]["hits"] == shown[1]["hits"]
