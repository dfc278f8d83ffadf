"""The networks of the comparison: an FP32 graph, images to calibrate on, and other images to measure on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.int8_accuracy import VIEWS, Place, views
from benchmarks.workspaces import CLI
from csa_deploy.data.base import Dataset
from csa_deploy.data.images import to_array
from csa_deploy.data.named import digits, imagenet_samples, photos, scenes
from csa_deploy.data.packages import PHOTOGRAPHS
from csa_deploy.network import Preprocessing

HERE = Path(__file__).parents[1]
HELD_OUT = 200
Images = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Network:
    """A network of the comparison.

    Attributes:
        source: as the command line takes it.
        calibration: at most so many images to calibrate on, float32 (n, C, H, W).
        held_out: the images to measure on.
    """

    source: str
    calibration: Callable[[int], np.ndarray]
    held_out: Images


def _spread(count: int, total: int) -> Sequence[int]:
    return [index * total // count for index in range(min(count, total))]


def _set(opened: Callable[[], Dataset], count: int) -> np.ndarray:
    data = opened()
    chosen = data.take(_spread(count, len(data)))
    return np.concatenate([next(iter(batch.inputs.values())) for batch in chosen.batches(1)])


def _views(how: Preprocessing, count: int) -> np.ndarray:
    pictured = photos(how)
    opened = (pictured.image(name) for name in PHOTOGRAPHS)
    pictures = list(views(opened, mirror=False, places=_places(-(-count // len(PHOTOGRAPHS)))))
    return np.stack([to_array(pictures[index], how) for index in _spread(count, len(pictures))])


def _places(count: int) -> list[Place]:
    """Those of the other benchmarks, and more where these are too few."""
    random = np.random.default_rng(0)
    shares = random.uniform(0.3, 0.9, max(count - len(VIEWS), 0))
    return [*VIEWS, *((*random.uniform(0, 1 - share, 2), share) for share in shares)]


def _photographs(how: Preprocessing) -> np.ndarray:
    """The 20 photographs and their mirror images."""
    data = imagenet_samples(how)
    whole = [picture for i, picture in enumerate(views(data.image(s.id) for s in data.samples)) if i % 10 < 2]
    return np.stack([to_array(picture, how) for picture in whole])


def _photographed(file: str, name: str, how: Preprocessing) -> Network:
    return Network(f"{HERE / file}.py:{name}", lambda count: _views(how, count), lambda: _photographs(how))


def networks() -> dict[str, Network]:
    """By name."""
    from csa_models.registry import csa_detection, csa_digits

    from benchmarks import efficientnet, mobilenet, trained_like

    small, scene = csa_digits.preprocessing, csa_detection.preprocessing
    assert small is not None and scene is not None
    return {
        "csa_digits": Network(
            "csa_digits",
            lambda count: _set(lambda: digits(small, train=True), count),
            lambda: _set(lambda: digits(small), HELD_OUT),
        ),
        "csa_detection": Network(
            "csa_detection",
            lambda count: _set(lambda: scenes(scene, train=True), count),
            lambda: _set(lambda: scenes(scene), HELD_OUT // 4),
        ),
        "mobilenet_v2": _photographed("mobilenet", "mobilenet_v2", mobilenet.preprocessing),
        "efficientnet_lite0": _photographed("efficientnet", "efficientnet_lite0", efficientnet.preprocessing),
        "convselfattn, trained-like": _photographed("trained_like", "convselfattn", trained_like.preprocessing),
    }


def prepare(name: str, folder: Path) -> Path:
    """The FP32 graph that every tool gets, exported and optimized once; ``held-out.npz`` lies beside it."""
    graph = folder / "fp32.onnx"
    if not graph.is_file():
        network = networks()[name]
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([CLI, "optimize", network.source, "--workspace", folder / "workspace", "--quiet"], check=True)
        np.savez(folder / "held-out.npz", images=network.held_out())
        (made,) = (folder / "workspace" / "onnx").glob("*.optimized.onnx")
        made.rename(graph)
    return graph


def images_for(name: str, count: int, folder: Path) -> tuple[Path, int]:
    """A file with calibration images under the name of the network's input, and how many there are."""
    path = folder / f"calibration-{count}.npz"
    value = onnx.load(str(folder / "fp32.onnx"), load_external_data=False).graph.input[0].name
    if not path.is_file():
        arrays: dict[str, Any] = {value: networks()[name].calibration(count)}
        np.savez(path, **arrays)
    with np.load(path) as stored:
        return path, len(stored[value])
