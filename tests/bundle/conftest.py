"""A workspace as the stages leave it, made once by the real stages with a stand-in trtexec, and bundles of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))  # for engine_graphs, whatever pytest's import mode
from engine_graphs import conv_graph

from csa_deploy.bundle.make import Made, make_bundle
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.pipeline import run_stages
from csa_deploy.source import load_source
from csa_deploy.workspace import Workspace

STANDIN = Path(__file__).parents[1] / "trtexec" / "trtexec_standin.py"


@pytest.fixture(scope="session")
def trtexec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bin")
    (folder / "trtexec").write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} 10.3.0 "$@"\n')
    (folder / "trtexec").chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, trtexec_folder: Path) -> Workspace:
    folder = tmp_path_factory.mktemp("work")
    graph = conv_graph(folder / "net.onnx")
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{trtexec_folder}:{before}"
    try:
        config = make_config({"network": str(graph), "backend": "trtexec", "precision": ["fp32", "fp16"]})
        found = Workspace(folder / "deploy")
        with found.locked():
            run_stages(["build"], Context(config, load_source(str(graph)), found))
    finally:
        os.environ["PATH"] = before
    return found


@pytest.fixture(scope="session")
def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(2)]


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen on this machine")
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "maker", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def bundle(workspace: Workspace, feeds: list[dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_bundle(workspace, "fp16", tmp_path_factory.mktemp("bundle") / "net.tar", feeds)
