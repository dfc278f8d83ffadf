"""A real sshd on loopback with throw-away keys, and stand-ins for trtexec on its PATH."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))  # for engine_graphs, whatever pytest's import mode
sys.path.insert(0, str(Path(__file__).parent))
from engine_graphs import save_graph
from loopback import Sshd, running_sshd

STANDIN = Path(__file__).with_name("trtexec_standin.py")


def write_trtexec(folder: Path, version: str) -> Path:
    """A stand-in trtexec of a version."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trtexec"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} {version} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def trtexec(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(version: str) -> Path:
        if version not in made:
            made[version] = write_trtexec(tmp_path_factory.mktemp(f"trt{version}"), version)
        return made[version]

    return get


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    yield from running_sshd(tmp_path_factory.mktemp("sshd"))


def linear_graph(path: Path, dtype: type = np.float32) -> Path:
    """x (1, 4) -> MatMul -> y (1, 3), in FP32 or FP16 throughout."""
    kind = TensorProto.FLOAT if dtype == np.float32 else TensorProto.FLOAT16
    weights = {"w": np.random.default_rng(1).standard_normal((4, 3)).astype(dtype)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="/net/fc")
    # The newest opset that TensorRT 8.6 takes.
    return save_graph(path, [node], {"x": (kind, [1, 4])}, {"y": (kind, [1, 3])}, weights, opset=17)


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_graph(tmp_path_factory.mktemp("graph") / "net.onnx")


@pytest.fixture(scope="session")
def graph_fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_graph(tmp_path_factory.mktemp("graph") / "net16.onnx", np.float16)
