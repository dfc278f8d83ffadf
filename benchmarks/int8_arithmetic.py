"""INT8 in integer arithmetic against ONNX Runtime's fake quantization of the same graph, one thread, one inference."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.pairs import Ratio, measure
from benchmarks.workspaces import CLI
from csa_deploy.graph.int8_arithmetic import to_integer
from csa_deploy.graph.load import load_model
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.verify.candidates import rounding_runner

NETWORKS = {"csa_digits": (), "csa_detection": (), "convselfattn_pad1": ("--calib", "animals")}
PAIRS = 15


def run() -> list[Ratio]:
    """Seconds of an inference, by network and arithmetic; both are run node by node, as ``verify`` does."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for network, calib in NETWORKS.items():
            root = Path(folder) / network
            settings = ("--int8", "--no-search", "--calib-samples", "8", "--techniques", "none", "--quiet")
            done = subprocess.run(
                [CLI, "quantize", network, *settings, *calib, "--workspace", root], capture_output=True, text=True
            )
            if done.returncode not in (0, 6):  # 6: the default budget is for the user to set, here the times count
                raise RuntimeError(done.stderr)
            (graph,) = (root / "onnx").glob("*.int8.onnx")
            model = load_model(graph, full_check=False)
            plain = rounding_runner(model, threads=1, name="fake")
            feeds = {
                spec.name: np.random.default_rng(0).standard_normal(spec.static_shape).astype(spec.dtype)
                for spec in plain.input_specs
            }
            for rounding in ("gpu", "dla"):
                own = rounding_runner(to_integer(model, rounding).model, threads=1, name=rounding)
                what = f"seconds of an inference of {network}"
                sides = (f"{rounding} arithmetic", _timed(own, feeds)), ("fake quantization", _timed(plain, feeds))
                found.append(measure(what, *sides, PAIRS))
    return found


def _timed(runner: OnnxRuntimeRunner, feeds: dict[str, np.ndarray]) -> Callable[[], float]:
    def once() -> float:
        begin = time.perf_counter()
        runner.run(feeds)
        return time.perf_counter() - begin

    return once
