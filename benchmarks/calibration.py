"""Calibration against plain inference and against other quantizers, each measurement in its own process.

``python -m benchmarks.calibration`` also draws memory over the number of images, as ``results/calibration.svg``.
NVIDIA Model Optimizer wants other versions of ONNX and ONNX Runtime than ours: name the Python that has it in the
variable ``MODELOPT_PYTHON``.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.pairs import NotMeasured, Ratio
from benchmarks.workspaces import deployed

if TYPE_CHECKING:
    from onnxruntime.quantization import CalibrationDataReader

NETWORK = "convselfattn"
THREADS = 2
MANY, FEW, PAIRS = 512, 32, 3
SIZES = (16, 32, 64, 128, 512)
ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "benchmarks" / "results" / "calibration.svg"


class Measured(NamedTuple):
    """What a process took: seconds, seconds of all its threads on a core, and MiB at the most."""

    seconds: float
    cpu: float
    mib: float


def run() -> list[Ratio | NotMeasured]:
    """Seconds, images per second and peak memory on :data:`NETWORK`, on random images."""
    root, _ = deployed(NETWORK)
    graph = root / "onnx" / f"{NETWORK}.optimized.onnx"
    found: list[Ratio | NotMeasured] = []
    many = [(measured(graph, "ours", MANY), measured(graph, "plain", MANY)) for _ in range(PAIRS)]
    found.append(compared(f"seconds, {MANY} images", "plain forward passes", seconds(many)))
    on_cores = [(ours.cpu, plain.cpu) for ours, plain in many]
    found.append(compared(f"CPU seconds, {MANY} images", "plain forward passes", on_cores))
    aside = [(many[-1][0], measured(graph, "plain_side_by_side", MANY))]
    found.append(compared(f"seconds, {MANY} images", "plain forward passes, two side by side", seconds(aside)))
    few = [(measured(graph, "ours", FEW), measured(graph, "quantize_static", FEW)) for _ in range(PAIRS)]
    found += against("quantize_static, entropy", few)
    try:
        found += against("Model Optimizer, entropy", [(few[-1][0], measured(graph, "modelopt", FEW))])
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[-1]
        found.append(NotMeasured("Model Optimizer", "not installed" if "No module named" in reason else reason))
    peaks = {MANY: max(ours.mib for ours, _ in many), FEW: max(ours.mib for ours, _ in few)}
    peaks |= {count: measured(graph, "ours", count).mib for count in SIZES if count not in peaks}
    found += [
        Ratio.of("peak memory, MiB", f"{count} images", f"{SIZES[0]} images", [(peaks[count], peaks[SIZES[0]])])
        for count in SIZES[1:]
    ]
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture([(count, peaks[count]) for count in SIZES]))
    return found


def against(peer: str, pairs: list[tuple[Measured, Measured]]) -> list[Ratio]:
    """Seconds, images per second and peak memory, of us and of another quantizer."""
    speeds = [(FEW / ours, FEW / theirs) for ours, theirs in seconds(pairs)]
    return [
        compared(f"seconds, {FEW} images", peer, seconds(pairs)),
        compared(f"images per second (more is better), {FEW} images", peer, speeds),
        compared(f"peak memory, MiB, {FEW} images", peer, [(ours.mib, theirs.mib) for ours, theirs in pairs]),
    ]


def seconds(pairs: list[tuple[Measured, Measured]]) -> list[tuple[float, float]]:
    """The seconds alone."""
    return [(ours.seconds, theirs.seconds) for ours, theirs in pairs]


def compared(what: str, peer: str, values: list[tuple[float, float]]) -> Ratio:
    """Our figure against that of a peer, pair by pair."""
    return Ratio.of(what, "calibration", peer, values)


def measured(graph: Path, what: str, images: int) -> Measured:
    """One of the functions below in a fresh process."""
    python = os.environ.get("MODELOPT_PYTHON", sys.executable) if what == "modelopt" else sys.executable
    command = [python, "-m", "benchmarks.calibration", what, str(graph), str(images)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()[-1]
    return Measured(*json.loads(answer))


def plain(graph: Path, images: int) -> None:
    """Forward passes alone."""
    from csa_deploy.precision.calibration_data import open_calibration
    from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

    runner = OnnxRuntimeRunner(graph, threads=THREADS, spin=False)
    shapes = {s.name: tuple(int(e or 1) for e in s.shape) for s in runner.input_specs}
    for batch in open_calibration("random", None, shapes, samples=images).batches(1):
        runner.run(batch.feed(shapes))


def plain_side_by_side(graph: Path, images: int) -> None:
    """Forward passes alone, as many images side by side as there are threads."""
    from concurrent.futures import ThreadPoolExecutor

    from csa_deploy.precision.calibration_data import open_calibration
    from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

    runner = OnnxRuntimeRunner(graph, threads=1, spin=False)
    shapes = {s.name: tuple(int(e or 1) for e in s.shape) for s in runner.input_specs}
    batches = open_calibration("random", None, shapes, samples=images).batches(1)
    with ThreadPoolExecutor(THREADS) as pool:
        while together := [batch.feed(shapes) for batch in itertools.islice(batches, THREADS)]:
            list(pool.map(runner.run, together))


def ours(graph: Path, images: int) -> None:
    """One streaming pass, entropy thresholds, and the Q/DQ graph."""
    import onnx

    from csa_deploy.precision.calibration import calibrate
    from csa_deploy.precision.calibration_data import open_calibration
    from csa_deploy.precision.qdq import insert_qdq
    from csa_deploy.precision.qdq_placement import place

    model = onnx.load(str(graph))
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    placement = place(model)
    data = open_calibration("random", None, shapes, samples=images)
    statistics = calibrate(model, data, placement.tensors, threads=THREADS)
    insert_qdq(model, placement, statistics.thresholds("entropy"))


def quantize_static(graph: Path, images: int) -> None:
    """ONNX Runtime's quantizer with entropy calibration, on the same images."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization import quantize_static as theirs

    with tempfile.TemporaryDirectory() as folder:
        theirs(
            str(graph),
            str(Path(folder) / "int8.onnx"),
            _reader(graph, images),
            calibrate_method=CalibrationMethod.Entropy,
            per_channel=True,
            activation_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )


def modelopt(graph: Path, images: int) -> None:
    """NVIDIA Model Optimizer with entropy calibration, on the same images."""
    from modelopt.onnx.quantization import quantize

    with tempfile.TemporaryDirectory() as folder:
        quantize(
            str(graph),
            quantize_mode="int8",
            calibration_data_reader=_reader(graph, images),
            calibration_method="entropy",
            high_precision_dtype="fp32",  # no conversion to FP16 afterwards, as in the others
            output_path=str(Path(folder) / "int8.onnx"),
        )


def _reader(graph: Path, images: int) -> CalibrationDataReader:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    from csa_deploy.precision.calibration_data import open_calibration

    inputs = onnx.load(str(graph), load_external_data=False).graph.input
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inputs}

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = open_calibration("random", None, shapes, samples=images).batches(1)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else batch.feed(shapes)

    return Reader()


def picture(points: list[tuple[int, float]]) -> str:
    """Peak memory over the number of images, as SVG; every doubling of the images takes the same width."""
    width, height, top = 480, 240, 1.25 * max(mib for _, mib in points)
    first, last = (math.log2(points[i][0]) for i in (0, -1))
    at = [
        (70 + 370 * (math.log2(count) - first) / (last - first), 210 - 190 * mib / top, count, mib)
        for count, mib in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in at)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/><text x="{x:.1f}" y="{y - 8:.1f}">{mib:.0f} MiB</text>'
        f'<text x="{x:.1f}" y="228">{count}</text>'
        for x, y, count, mib in at
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" text-anchor="middle"><path d="M50 20V210H470" fill="none" stroke="#888"/>'
        f'<polyline points="{line}" fill="none" stroke="#0a6"/>{marks}'
        f'<text x="240" y="14">peak memory of calibration over the number of images</text></svg>\n'
    )


if __name__ == "__main__":
    import time

    from csa_deploy.memory import peak_memory

    _, what, graph_file, number = sys.argv
    start = time.perf_counter()
    functions = (plain, plain_side_by_side, ours, quantize_static, modelopt)
    {function.__name__: function for function in functions}[what](Path(graph_file), int(number))
    print(json.dumps([time.perf_counter() - start, time.process_time(), peak_memory() / 2**20]))
