"""What a comparison costs beyond running the networks, beside polygraphy, and in memory."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pairs import Ratio, measure
from benchmarks.workspaces import CLI, deployed
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.data.dataset import open_dataset
from csa_deploy.data.packages import photograph_files
from csa_deploy.runners.base import run_padded
from csa_deploy.source import load_source
from csa_deploy.stages.verify import compare
from csa_deploy.verify.candidates import collect
from csa_deploy.verify.reference import open_reference
from csa_deploy.workspace import Workspace

THREADS = 2
SAMPLES = 200
COMPARED, PAIRS = 20, 3
MEMORY = (2000, 50)
_NUMBERS = itertools.count(1)


def run() -> list[Ratio]:
    """Overhead on ``convselfattn`` at 224, time beside polygraphy, peak memory from 50 to 2,000 images."""
    return [overhead(), beside_polygraphy(), memory()]


def overhead() -> Ratio:
    """The comparison of one graph against the forward passes that it makes, over :data:`SAMPLES` photographs.

    From both networks loaded to the verdict: the files are opened, decoded and hashed, both networks run, their outputs
    are compared and stored, FP64 is asked, and the budget is judged. The forward passes alone, on tensors that are
    there already, run in turn with it.
    """
    root, _ = deployed("convselfattn")
    folder = _photographs(root.parent / "photographs", SAMPLES)
    given = {"network": "convselfattn", "data": str(folder), "threads": THREADS, "precision": ["fp32"]}
    context = Context(make_config(given), load_source("convselfattn"), Workspace(root))
    reference, preprocessing = open_reference(context)
    candidate = next(c for c in collect(context, []) if c.label == "fp32")
    name = reference.input_specs[0].name
    data = open_dataset(folder, preprocessing)
    tensors = [{name: batch.inputs["image"]} for batch in data.batches(1)]

    def stage() -> float:
        candidate.outputs.clear()
        with context.workspace.scratch("verify") as context.scratch:
            start = time.perf_counter()
            output = compare(context, reference, preprocessing, [candidate], [])
            took = time.perf_counter() - start
        assert output.record.data.samples == SAMPLES and output.failure is None
        return took

    def forward() -> float:
        start = time.perf_counter()
        for feeds in tensors:
            run_padded(reference, feeds)
            run_padded(candidate.runner, feeds)
        return time.perf_counter() - start

    what = f"{SAMPLES} photographs through convselfattn at 224, wall seconds"
    with reference, candidate.runner:
        a, b = ("comparison, to the verdict", stage), ("its two forward passes alone", forward)
        return measure(what, a, b, 2 * PAIRS)


def _photographs(folder: Path, count: int) -> Path:
    """A folder of that many photographs, by links; there are fewer, so each is there several times."""
    files = photograph_files()
    folder.mkdir()
    for number, path in enumerate(itertools.islice(itertools.cycle(files), count)):
        (folder / f"{number:03d}{path.suffix}").symlink_to(path)
    return folder


def beside_polygraphy() -> Ratio:
    """Two graphs compared in ONNX Runtime on the same tensors: our command against polygraphy's two.

    Polygraphy is given the same number of threads by the environment that both get.
    """
    root, report = deployed("convselfattn")
    rows = {row["label"]: root / row["path"] for row in report["rows"] if row["label"] in ("exported", "fp32")}
    arrays = np.random.default_rng(0).standard_normal((COMPARED, 3, 224, 224)).astype("f4")
    network = load_source("convselfattn").make_network()
    name = network.input_specs[0].name
    np.savez(root / "inputs.npz", allow_pickle=False, **{name: arrays})

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
    return measure(what, ("csa-deploy verify", ours), ("polygraphy run --onnxrt, twice", theirs), PAIRS)


def memory() -> Ratio:
    """Peak memory of the command; flat means that nothing is kept per image but a few numbers."""
    root, _ = deployed("csa_digits")

    def peak(samples: int) -> float:
        command = [CLI, "verify", "csa_digits", "--data", "digits:train", "--samples", str(samples), "-q", "-w", root]
        return _peak_mib([*command, "--budget", f"fp16.snr_db={20 + 1e-3 * next(_NUMBERS)}"])

    peak(10)  # makes the graphs for this data, which is not the comparison's memory
    many, few = MEMORY
    values = [(peak(many), peak(few)) for _ in range(2)]
    return Ratio.of("peak memory of verify, MiB", f"{many} images", f"{few} images", values)


@cache
def _environment() -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(THREADS)}


def _seconds(command: list[Any], where: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=where, check=True, capture_output=True, env=_environment())
    return time.perf_counter() - start


# A small process in between: what a process reports as its peak is at least what its parent had when it forked.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def _peak_mib(command: list[Any]) -> float:
    launched = [sys.executable, "-c", _LAUNCHER, *map(str, command)]
    done = subprocess.run(launched, check=True, capture_output=True, text=True, env=_environment())
    return int(done.stdout) / 1024
