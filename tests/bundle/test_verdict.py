"""A bundle says what the gates said, is not made of what one refused unasked, and lists what a rebuild needs."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_graphs import conv_graph

from csa_deploy.bundle.make import make_bundle
from csa_deploy.bundle.needs import needs_of
from csa_deploy.bundle.verdict import verdict_of
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import AccuracyGateError, CsaDeployError, OperationRejectedError, PerformanceGateError
from csa_deploy.pipeline import run_stages
from csa_deploy.source import load_source
from csa_deploy.workspace import Workspace

FACTORY = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    net.preprocessing = {"size": (8, 8)}
    return net
"""
Feeds = list[dict[str, np.ndarray]]


def deployed(folder: Path, stages: list[str], network: Path | str | None = None, **settings: Any) -> Context:
    """A workspace as these stages leave it; a gate that fails there is what it is about."""
    network = network or conv_graph(folder / "net.onnx")
    given = {"network": str(network), "precision": ["fp32", "fp16"], "threads": 1, **settings}
    config = make_config(given)
    found = Context(config, load_source(str(network)), Workspace(folder / "deploy"))
    with found.workspace.locked():
        run_stages(stages, found)
    return found


def index_of(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as archive:
        stream = archive.extractfile("bundle.json")
        assert stream is not None
        return json.load(stream)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, x=np.random.RandomState(0).standard_normal((12, 3, 8, 8)).astype("f4"))
    return path


@pytest.mark.parametrize(
    ("stages", "settings", "error", "said"),
    [
        (["verify"], {"budget": ["fp16.snr_db=200"]}, AccuracyGateError, "fail: accuracy budgets"),
        (["profile"], {"limit": ["fp32.p50_ms=0.0000001"], "iterations": 100}, PerformanceGateError, "p50_ms at most"),
    ],
    ids=["accuracy", "latency"],
)
@pytest.mark.shows("MEA-37", "ERR-31")
def test_what_a_gate_refused_is_not_bundled_unasked(
    stages: list[str],
    settings: dict[str, Any],
    error: type[CsaDeployError],
    said: str,
    data: Path,
    feeds: Feeds,
    tmp_path: Path,
) -> None:
    context = deployed(tmp_path, stages, data=str(data), **settings)
    out = tmp_path / "net.tar"
    with pytest.raises(error, match=said) as caught:
        make_bundle(context.workspace, "fp16", out, feeds)
    assert "\n" not in str(caught.value) and "--despite-failure" in str(caught.value) and not out.exists()
    made = make_bundle(context.workspace, "fp16", out, feeds, despite_failure=True)
    stated = index_of(out)["verdict"]
    assert stated["state"] == "fail" == made.verdict.state and made.verdict.text.startswith("FAIL: ")
    assert any(said in reason for reason in stated["reasons"])


def test_a_denied_scope_that_gates_is_exit_4(tmp_path: Path) -> None:
    context = deployed(tmp_path, ["check"])
    stages = context.workspace.stages
    stages["check"] = replace(stages["check"], passed=False)  # what a gate that denies leaves
    assert verdict_of(context.workspace).failed is OperationRejectedError


@pytest.mark.shows("MEA-37")
def test_what_did_not_run_makes_it_incomplete(feeds: Feeds, tmp_path: Path) -> None:
    context = deployed(tmp_path, ["precision"])
    made = make_bundle(context.workspace, "fp16", tmp_path / "net.tar", feeds)
    assert made.verdict.state == "incomplete" and "verify was not run" in made.verdict.reasons
    assert index_of(made.path)["verdict"]["state"] == "incomplete"


@pytest.mark.slow
def test_what_a_rebuild_needs_is_listed_with_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(FACTORY)
    scope: dict[str, Any] = {}
    exec(FACTORY, scope)
    save_file({name: torch.zeros_like(v) for name, v in scope["make"]().state_dict().items()}, "w.safetensors")
    Path("elsewhere").mkdir()
    Path("w.safetensors").rename("elsewhere/w.safetensors")
    np.savez("c.npz", input=np.random.RandomState(1).standard_normal((70, 3, 8, 8)).astype("f4"))
    settings = {"checkpoint": "elsewhere/w.safetensors", "calib": "c.npz", "search": False, "techniques": ["none"]}
    context = deployed(tmp_path, ["precision"], "nets.py:make", precision=["int8"], **settings)
    needs = {need.what: need for need in needs_of(context)}
    for what, path in (("network", "nets.py"), ("checkpoint", "elsewhere/w.safetensors")):
        assert needs[what].path == path
        assert needs[what].sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert "changed" not in needs[what].reason
    assert needs["calibration data"].path == "c.npz" and len(str(needs["calibration data"].sha256)) == 64

    Path("nets.py").write_text(FACTORY + "\n")  # the hash would be of a file that the graph was not made of
    assert "changed since the export" in {need.what: need for need in needs_of(context)}["network"].reason
    Path("elsewhere/w.safetensors").rename("gone")
    gone = {need.what: need for need in needs_of(context)}["checkpoint"]
    assert gone.sha256 is None and "not there any more" in gone.reason
