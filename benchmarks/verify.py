"""What a comparison costs beyond running the networks, beside polygraphy, and in memory."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pairs import Ratio, measure
from benchmarks.workspaces import CLI, deployed
from csa_deploy.data.base import ImageDataset
from csa_deploy.data.dataset import open_dataset
from csa_deploy.runners.base import run_padded
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.source import load_source
from csa_deploy.verify.candidates import Candidate
from csa_deploy.verify.judging import judge_results
from csa_deploy.verify.results import Results
from csa_deploy.verify.stream import Stream

THREADS = 2
PHOTOGRAPHS, PAIRS = 40, 5  # 200 photographs in all
COMPARED = 20
MEMORY = (2000, 50)
_NUMBERS = itertools.count(1)


def run() -> list[Ratio]:
    """Overhead on ``convselfattn`` at 224, time beside polygraphy, peak memory from 50 to 2,000 images."""
    return [overhead(), beside_polygraphy(), memory()]


def overhead() -> Ratio:
    """A whole comparison with the PyTorch module, from the files to the verdict, against the forward passes alone."""
    root, report = deployed("convselfattn")
    graph = root / next(row["path"] for row in report["rows"] if row["label"] == "fp32")
    network = load_source("convselfattn").make_network()
    reference = TorchRunner(network.module, network.input_specs, network.output_names, threads=THREADS)
    runner = OnnxRuntimeRunner(graph, threads=THREADS, spin=False)
    data = _photographs(network.preprocessing)
    name = network.input_specs[0].name
    tensors = [{name: batch.inputs["image"]} for batch in data.batches(1)]

    def compare() -> float:
        start = time.perf_counter()
        candidate = Candidate("fp32", "fp32", graph.name, runner)
        stream = Stream(lambda _: data, reference, network.preprocessing, [candidate], 1)
        stream.run(lambda done, total: None)
        judge_results(Results(tuple(stream.ids), None, (candidate.columns(),)), lambda _: {"cosine": 0.9})
        return time.perf_counter() - start

    def forward() -> float:
        start = time.perf_counter()
        for feeds in tensors:
            run_padded(reference, feeds)
            run_padded(runner, feeds)
        return time.perf_counter() - start

    with reference, runner:
        what = f"comparison of {PHOTOGRAPHS} photographs, wall seconds"
        return measure(what, ("decode, run both, compare, judge", compare), ("run both", forward), PAIRS)


def _photographs(preprocessing: Any) -> ImageDataset:
    """Photographs, some of them twice under another name."""
    once = open_dataset("photos", preprocessing)
    assert isinstance(once, ImageDataset)
    samples = list(itertools.islice(itertools.cycle(once.samples), PHOTOGRAPHS))
    renamed = [type(s)(f"{i:03d} {s.id}", s.label, s.source) for i, s in enumerate(samples)]
    return ImageDataset("photographs", renamed, (), preprocessing)


def beside_polygraphy() -> Ratio:
    """Two graphs compared in ONNX Runtime on the same tensors: our command against polygraphy's two."""
    root, report = deployed("convselfattn")
    rows = {row["label"]: root / row["path"] for row in report["rows"] if row["label"] in ("exported", "fp32")}
    arrays = np.random.default_rng(0).standard_normal((COMPARED, 3, 224, 224)).astype("f4")
    name = OnnxRuntimeRunner(rows["exported"], threads=THREADS).input_specs[0].name
    np.savez(root / "inputs.npz", **{name: arrays})

    from polygraphy.json import save_json

    save_json([{name: arrays[i : i + 1]} for i in range(COMPARED)], str(root / "inputs.json"))

    def ours() -> float:
        # Another budget each time, so that the comparison is made again; all stages before it are kept.
        budget = f"fp32.max_rel_error={1e-3 + 1e-6 * next(_NUMBERS)}"
        given = ["--data", "inputs.npz", "--precision", "fp32", "--threads", str(THREADS), "--budget", budget]
        return _seconds([CLI, "verify", rows["exported"], *given, "-w", "against", "-q"], root)

    def theirs() -> float:
        polygraphy = [Path(sys.executable).with_name("polygraphy"), "run"]
        common = ["--onnxrt", "--load-inputs", "inputs.json"]
        first = _seconds([*polygraphy, rows["exported"], *common, "--save-outputs", "outputs.json"], root)
        tolerances = ["--atol", "1e-3", "--rtol", "1e-3"]
        return first + _seconds(
            [*polygraphy, rows["fp32"], *common, "--load-outputs", "outputs.json", *tolerances], root
        )

    what = f"two graphs on {COMPARED} tensors of 3x224x224, wall seconds of the commands"
    return measure(what, ("csa-deploy verify", ours), ("polygraphy run --onnxrt, twice", theirs), 3)


def memory() -> Ratio:
    """Peak memory of the command; flat means that nothing is kept per image but a few numbers."""
    root, _ = deployed("csa_digits")
    many, few = MEMORY

    def peak(samples: int) -> Callable[[], float]:
        command = [CLI, "verify", "csa_digits", "--data", "digits:train", "--samples", str(samples), "-q", "-w", root]
        return lambda: _peak_mib([*command, "--budget", f"fp16.snr_db={20 + 1e-3 * next(_NUMBERS)}"])

    what = "peak memory of verify, MiB"
    return measure(what, (f"{many} images", peak(many)), (f"{few} images", peak(few)), 2)


@cache
def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(THREADS)}


def _seconds(command: list[Any], where: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=where, check=True, capture_output=True, env=_environment())
    return time.perf_counter() - start


def _peak_mib(command: list[Any]) -> float:
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with status {status}")
    return usage.ru_maxrss / 1024
