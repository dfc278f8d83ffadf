"""Calibration against plain inference and against ONNX Runtime's own quantizer, each measurement in its own process.

``python -m benchmarks.calibration`` also draws memory over the number of images, as ``results/calibration.svg``.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.pairs import Ratio
from benchmarks.workspaces import deployed

THREADS = 2
MANY, FEW, MODELOPT = 512, 32, "modelopt"
SIZES = (16, 64, 512)
PICTURE = Path(__file__).parent / "results" / "calibration.svg"


def run() -> list[Ratio]:
    """Seconds and peak memory on ``convselfattn`` at 224, on random images."""
    root, _ = deployed("convselfattn")
    graph = root / "onnx" / "convselfattn.optimized.onnx"
    ours = {count: measured(graph, "ours", count) for count in SIZES}
    plain = measured(graph, "plain", MANY)
    few, theirs = measured(graph, "ours", FEW), measured(graph, "quantize_static", FEW)
    found = [
        ratio(f"seconds, {MANY} images", "calibration", ours[MANY][0], "plain forward passes", plain[0]),
        ratio(f"seconds, {FEW} images", "calibration", few[0], "quantize_static, entropy", theirs[0]),
        ratio(f"peak memory, MiB, {FEW} images", "calibration", few[1], "quantize_static, entropy", theirs[1]),
        ratio("peak memory, MiB", f"{MANY} images", ours[MANY][1], "16 images", ours[SIZES[0]][1]),
    ]
    if importlib.util.find_spec(MODELOPT):
        peer = measured(graph, MODELOPT, FEW)
        found.append(ratio(f"seconds, {FEW} images", "calibration", few[0], "Model Optimizer, entropy", peer[0]))
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture([(count, mib) for count, (_, mib) in ours.items()]))
    return found


def ratio(what: str, a: str, seconds_a: float, b: str, seconds_b: float) -> Ratio:
    """One comparison, measured once: each is minutes of work over many images."""
    return Ratio(what, a, b, seconds_a, seconds_b, *[seconds_a / seconds_b] * 3, pairs=1)


def measured(graph: Path, what: str, images: int) -> tuple[float, float]:
    """Seconds and peak MiB of one of the functions below, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.calibration", what, str(graph), str(images)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    seconds, mib = json.loads(answer)
    return seconds, mib


def plain(graph: Path, images: int) -> None:
    """Forward passes alone."""
    from csa_deploy.precision.calibration_data import open_calibration
    from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

    runner = OnnxRuntimeRunner(graph, threads=THREADS, spin=False)
    shapes = {s.name: tuple(int(e or 1) for e in s.shape) for s in runner.input_specs}
    for batch in open_calibration("random", None, shapes, samples=images).batches(1):
        runner.run(batch.feed(shapes))


def ours(graph: Path, images: int) -> None:
    """One streaming pass, entropy thresholds, and the Q/DQ graph."""
    import onnx

    from csa_deploy.precision.calibration import calibrate
    from csa_deploy.precision.calibration_data import open_calibration
    from csa_deploy.precision.placement import place
    from csa_deploy.precision.qdq import insert_qdq

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
            output_path=str(Path(folder) / "int8.onnx"),
        )


def _reader(graph: Path, images: int):
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    from csa_deploy.precision.calibration_data import open_calibration

    inputs = onnx.load(str(graph), load_external_data=False).graph.input
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inputs}

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = open_calibration("random", None, shapes, samples=images).batches(1)

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else batch.feed(shapes)

    return Reader()


def picture(points: list[tuple[int, float]]) -> str:
    """Peak memory over the number of images, as SVG."""
    width, height, top = 480, 240, 1.25 * max(mib for _, mib in points)
    most = max(count for count, _ in points)
    at = [(50 + 410 * count / most, 210 - 190 * mib / top, count, mib) for count, mib in points]
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
    import resource
    import time

    _, what, graph_file, number = sys.argv
    start = time.perf_counter()
    {"plain": plain, "ours": ours, "quantize_static": quantize_static, MODELOPT: modelopt}[what](
        Path(graph_file), int(number)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([time.perf_counter() - start, peak]))
