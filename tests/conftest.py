"""What the tests of the pipeline share: the command as a user types it, small networks, and one finished deployment."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import settings
from onnx import TensorProto, helper, numpy_helper, parser

from tests.showing import pytest_configure, pytest_itemcollected, pytest_runtest_makereport

__all__ = ["pytest_configure", "pytest_itemcollected", "pytest_runtest_makereport"]

COMMAND = Path(sys.executable).with_name("csa-deploy")
HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(not HAS_RTX, reason="TensorRT-RTX is not installed")

# The same examples in every run, so that a commit passes or fails for its own sake; `--hypothesis-profile=search` draws
# new ones.
settings.register_profile("search", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True)
settings.load_profile("same")

Csa = Callable[..., "subprocess.CompletedProcess[str]"]
Misfits = Callable[[str, Path], str]

# A shell that starts the tests in the background makes them ignore SIGINT, and so their child processes, in which the
# tests look for what an interrupt does.
signal.signal(signal.SIGINT, signal.default_int_handler)


PROCESSES = frozenset(
    (
        "csa",
        "dask_cluster",
        "digits",
        "own_cluster",
        "sshd",
        "trtexec",
        "trtexec_folder",
        "workspace",
        "bundle",
        "deployed",
        "browser",
    )
)
"""Fixtures that start the command, a server, a browser or a builder."""


LONG = frozenset(
    (
        *("test_api", "test_pipeline", "test_diagnosis", "test_checkpoint", "test_run_fix"),
        *("test_hostile_models", "test_damaged_files", "test_readers", "test_planted_faults", "test_foreign_networks"),
        *("test_exporter", "test_train_verb", "test_user_errors", "test_repairing", "test_sharing", "test_bindings"),
        *("test_rewrite_properties", "test_run_time_shapes", "test_gpu_script", "test_repairs_and_scopes"),
        *("test_head_repairs", "test_kept_work", "test_graph_module", "test_probe", "test_boundaries", "test_metric"),
        *("test_evaluate", "test_errata_verb", "test_tests", "test_calibration_properties", "test_runtime"),
        *("test_stored_tasks", "test_whole_inference", "test_build", "test_run", "test_matrix_gates"),
        "test_data_frames",
    )
)
"""Modules that take more than about two seconds each on two idle cores; their rooms have others."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The fast tier does not even import what is slow: each worker would."""
    return True if config.option.markexpr == "not slow" and collection_path.stem in LONG else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long, or starts such processes, is no part of the fast tier; its files come first.

    Side by side, a long file that starts last leaves the other cores without work.
    """
    for item in items:
        if item.path.stem in LONG or PROCESSES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="module", autouse=True)
def _lines_reached_are_kept() -> Iterator[None]:
    """What `make coverage` counted is on disk after each file: a worker that is killed loses one file, not all."""
    yield
    if "coverage" in sys.modules and (counted := sys.modules["coverage"].Coverage.current()):
        counted.get_data()


LEVELS = {name: logging.getLogger(name).level for name in (None, "csa_deploy")}


@pytest.fixture(autouse=True)
def _levels_of_loggers() -> None:
    """A command that ran in this process, in a test or a fixture of a module, set how much is logged; a test starts
    from what it was at first."""
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)


NETS = """
import torch
from torch import nn


def tiny():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(16), nn.Conv2d(8, 10, 1), nn.Flatten(1))
    net.preprocessing = {"size": (16, 16)}
    return net

class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("no such luck\\nin here")

def broken():
    return Broken()

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.example_inputs = {"camera": torch.zeros(1, 3, 8, 8), "speed": torch.zeros(1, 4)}

    def forward(self, camera, speed):
        return {"path": self.conv(camera).flatten(1)[:, :4] + speed, "brake": 2 * speed}

def two():
    torch.manual_seed(0)
    return Two()
"""


def tiny_model(seed: int = 0, inputs: tuple[int, ...] = (1, 3, 16, 16), name: str = "x") -> onnx.ModelProto:
    """Conv, ReLU, average pool, 1x1 convolution to 10 classes: builds for every compute capability."""
    draw = np.random.default_rng(seed)
    first = 0.3 * draw.standard_normal((8, inputs[1], 3, 3)).astype("f4")
    last = draw.standard_normal((10, 8, 1, 1)).astype("f4")
    nodes = [
        helper.make_node("Conv", [name, "first"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("AveragePool", ["r"], ["p"], name="pool", kernel_shape=list(inputs[2:])),
        helper.make_node("Conv", ["p", "last"], ["l"], name="head"),
        helper.make_node("Flatten", ["l"], ["y"], name="flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (inputs[0], 10))],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(last, "last")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="session")
def build() -> Callable[..., onnx.ModelProto]:
    """``build(signature, body, opset=18, **weights)``: a weight is an array, or a shape to fill with random numbers."""

    def make(signature: str, body: str, opset: int = 18, domains: str = "", **weights: object) -> onnx.ModelProto:
        header = f'<ir_version: 8, opset_import: ["" : {opset}{domains}]>'
        model = parser.parse_model(f"{header} net {signature} {{ {body} }}")
        generator = np.random.default_rng(7)
        for name, weight in weights.items():
            array = generator.uniform(0.5, 1.5, weight).astype("f4") if isinstance(weight, tuple) else weight
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"n{number}"
        return model

    return make


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., onnx.ModelProto]:
    return tiny_model


@pytest.fixture(scope="session")
def misfits() -> Misfits:
    """``misfits(schema, file)``: what check-jsonschema says against a file, by a schema that it carries."""
    main = pytest.importorskip("check_jsonschema").main

    def run(schema: str, file: Path) -> str:
        done = CliRunner().invoke(main, ["--builtin-schema", schema, str(file)])
        assert done.exit_code in (0, 1), done.output
        return done.output if done.exit_code else ""

    return run


@pytest.fixture()
def lab(tmp_path: Path) -> Path:
    """A working directory with ``tiny.onnx``, data for it in ``x.npz``, and factories in ``nets.py``."""
    onnx.save(tiny_model(), tmp_path / "tiny.onnx")
    draw = np.random.default_rng(5)
    np.savez(tmp_path / "x.npz", x=draw.standard_normal((6, 3, 16, 16)).astype("f4"), labels=np.arange(6))
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


@pytest.fixture(scope="session")
def csa() -> Csa:
    """``csa(cwd, *arguments)`` runs the installed command, two threads at most."""

    def run(cwd: Path, *arguments: object, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "2", **options.pop("env", {})}
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )

    return run


@dataclass(frozen=True)
class Deployment:
    """A finished run of ``csa_digits``: its directory, what the commands said, and the workspace."""

    cwd: Path
    said: list[subprocess.CompletedProcess[str]]

    @property
    def root(self) -> Path:
        return self.cwd / "deploy" / "csa_digits"

    def record(self, stage: str) -> dict[str, Any]:
        return json.loads((self.root / "records" / f"{stage}.json").read_text())

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.root / "manifest.json").read_text())


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, csa: Csa) -> Deployment:
    """``csa_digits`` on 20 digits, all stages; without TensorRT-RTX all but build. Read only."""
    cwd = tmp_path_factory.mktemp("digits")
    settings = ("--samples", 20, "--iterations", 5, "--log-json")
    if HAS_RTX:
        said = [csa(cwd, "run", "csa_digits", *settings)]
    else:
        said = [csa(cwd, "verify", "csa_digits", "--samples", 20, "--log-json")]
        said += [csa(cwd, verb, "csa_digits", "--log-json") for verb in ("profile", "report")]
    for done in said:
        assert done.returncode == 0, done.stderr
    return Deployment(cwd, said)
