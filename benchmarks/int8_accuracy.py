"""MobileNetV2 with its ImageNet weights in INT8: agreement with FP32 on photographs that were not calibrated on.

Both quantizers get the same calibration images: views of scikit-image's photographs. Agreement is on views of foolbox's
photographs: the whole picture, four parts of it, and the mirror images of these.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from PIL import Image, ImageOps

from benchmarks.mobilenet import preprocessing
from benchmarks.pairs import Ratio
from benchmarks.workspaces import CLI
from csa_deploy.data.images import to_array
from csa_deploy.data.named import imagenet_samples, photos
from csa_deploy.data.packages import PHOTOGRAPHS
from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.graph.load import load_model
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

Place = tuple[float, float, float]
VIEWS: tuple[Place, ...] = ((0.0, 0.0, 1.0), (0.0, 0.0, 0.7), (0.3, 0.3, 0.7), (0.3, 0.0, 0.7), (0.0, 0.3, 0.7))
"""Left and upper edge and length, as shares of a picture's sides."""
NETWORK = f"{Path(__file__).with_name('mobilenet.py')}:mobilenet_v2"


def run() -> list[Ratio]:
    """Share of views on which INT8 names another class than FP32, ours against quantize_static's defaults."""
    pictured, evaluation = photos(preprocessing), imagenet_samples(preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        calibration, root = Path(folder) / "views", Path(folder) / "workspace"
        calibration.mkdir()
        pictures = list(views((pictured.image(name) for name in PHOTOGRAPHS), mirror=False))
        for number, picture in enumerate(pictures):
            picture.save(calibration / f"{number:03d}.png")
        settings = ("--int8", "--calib", calibration, "--data", "imagenet-samples", "--workspace", root, "--quiet")
        done = subprocess.run([CLI, "quantize", NETWORK, *settings], capture_output=True, text=True)
        if done.returncode not in (0, 6):  # 6: the default budget is for the user to set, here the figure counts
            raise RuntimeError(done.stderr)
        (exported,) = (root / "onnx").glob("*v2.onnx")
        (int8,) = (root / "onnx").glob("*.int8.onnx")
        theirs = root / "theirs.onnx"
        quantize_static(str(exported), str(theirs), Reader(exported, pictures))
        tensors = [to_array(p, preprocessing)[None] for p in views(evaluation.image(s.id) for s in evaluation.samples)]
        exact = classes(OnnxRuntimeRunner(exported, spin=False), tensors)
        ours = OnnxRuntimeRunner(
            keep_rounding(load_model(int8, full_check=False)).SerializeToString(), optimize=False, spin=False
        )
        found = []
        for what, part in (("photographs", slice(None, None, 2 * len(VIEWS))), ("views of them", slice(None))):
            shares = [
                float((classes(runner, tensors[part]) != exact[part]).mean())
                for runner in (ours, OnnxRuntimeRunner(theirs, optimize=False, spin=False))
            ]
            label = f"disagrees with FP32, share of {len(exact[part])} {what}"
            sides = "mobilenet_v2 csa-deploy INT8", "quantize_static, defaults"
            found.append(Ratio.of(label, *sides, [(shares[0], shares[1])]))
        return found


def views(
    pictures: Iterable[Image.Image | None], *, mirror: bool = True, places: Sequence[Place] = VIEWS
) -> Iterable[Image.Image]:
    """Parts of pictures, with their mirror images or without; the first view of each picture is the whole."""
    for picture in pictures:
        assert picture is not None
        for left, top, share in places:
            edges = (left * picture.width, top * picture.height)
            ends = ((left + share) * picture.width, (top + share) * picture.height)
            part = picture.crop((int(edges[0]), int(edges[1]), int(ends[0]), int(ends[1])))
            yield part
            if mirror:
                yield ImageOps.mirror(part)


def classes(runner: OnnxRuntimeRunner, tensors: list[np.ndarray]) -> np.ndarray:
    """The first class of each input."""
    name = runner.input_specs[0].name
    return np.asarray([int(next(iter(runner.run({name: t}).values())).argmax()) for t in tensors])


class Reader(CalibrationDataReader):
    """The calibration images for ONNX Runtime's quantizer."""

    def __init__(self, graph: Path, pictures: list[Image.Image]) -> None:
        self.name = OnnxRuntimeRunner(graph, spin=False).input_specs[0].name
        self.pictures = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image, None at the end."""
        picture = next(self.pictures, None)
        return None if picture is None else {self.name: to_array(picture, preprocessing)[None]}
