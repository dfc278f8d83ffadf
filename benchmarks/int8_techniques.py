"""What each technique that needs no retraining adds to INT8 on three networks, and how well sensitivity is estimated.

All layers are in INT8. Calibrated on the training digits, or on views of scikit-image's photographs; measured on the
held-out digits, or on views of foolbox's photographs. ``A`` is the energy of the outputs' error, relative to that of
the outputs, with the technique alone (the last row: with those that the evidence on calibration images keeps), ``B``
without any.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks.int8_accuracy import views
from benchmarks.mobilenet import preprocessing as mobilenet_preprocessing
from benchmarks.pairs import Ratio
from benchmarks.trained_like import preprocessing as convselfattn_preprocessing
from benchmarks.workspaces import CLI
from csa_deploy.data.base import Dataset
from csa_deploy.data.images import to_array
from csa_deploy.data.named import digits, imagenet_samples, photos
from csa_deploy.data.packages import PHOTOGRAPHS
from csa_deploy.graph.interface import interface_of
from csa_deploy.graph.load import load_model
from csa_deploy.metrics.table import worst_values
from csa_deploy.network import Preprocessing
from csa_deploy.precision.activations import Feeds
from csa_deploy.precision.calibration import Statistics, calibrate
from csa_deploy.precision.calibration_data import open_calibration
from csa_deploy.precision.int8 import rest_of
from csa_deploy.precision.judging import compare
from csa_deploy.precision.propagation import propagated
from csa_deploy.precision.qdq_placement import place
from csa_deploy.precision.selection import FITTED_IMAGES, HELD_IMAGES, read_samples, split
from csa_deploy.precision.sensitivity import measure, rank_correlation
from csa_deploy.precision.techniques import TECHNIQUES, EvaluationContext, Plan, try_techniques
from csa_deploy.spec import sampling_of

HERE = Path(__file__).parent
SEED = 0
SENSITIVITY_IMAGES = 4


@dataclass(frozen=True)
class Case:
    """A network with the images to calibrate and to measure on."""

    name: str
    model: onnx.ModelProto
    data: Dataset
    evaluation: list[Feeds]

    def recalibrate(self, model: onnx.ModelProto, tensors: tuple[str, ...]) -> Statistics:
        """Statistics over all calibration images."""
        return calibrate(model, self.data, tensors)


def run() -> list[Ratio]:
    """Relative error energies with and without each technique, then the rank correlation of the two sensitivities."""
    with tempfile.TemporaryDirectory() as folder:
        return [row for make in (_digits, _convselfattn, _mobilenet) for row in _rows(make(Path(folder)))]


def _rows(case: Case) -> list[Ratio]:
    placement = place(case.model)
    statistics = case.recalibrate(case.model, placement.tensors)
    plain = Plan(case.model, placement, statistics.thresholds("mse"), statistics.largest)
    samples = read_samples(case.data, sampling_of(*interface_of(case.model)), HELD_IMAGES + FITTED_IMAGES)
    held, fitted = split(len(samples.feeds))
    evaluation = EvaluationContext(
        samples.only(fitted).feeds,
        samples.only(held).feeds,
        case.recalibrate,
        "mse",
        half_scales=rest_of(case.model) == "fp16",
        seed=SEED,
    )
    without = _error(plain, case.evaluation)
    found = []
    for name, technique in TECHNIQUES.items():
        candidate, _ = technique(plain, evaluation)
        if candidate is not None:
            found.append(_row(f"INT8 error energy, {case.name}", name, _error(candidate, case.evaluation), without))
    kept, findings = try_techniques(plain, tuple(TECHNIQUES), evaluation)
    used = [name for name, finding in findings.items() if finding.used]
    label = f"kept by evidence: {', '.join(used) or 'none'}"
    found.append(_row(f"INT8 error energy, {case.name}", label, _error(kept, case.evaluation), without))
    return [*found, _agreement(case, kept, samples.only(held).feeds[:SENSITIVITY_IMAGES])]


def _error(plan: Plan, evaluation: list[Feeds]) -> float:
    network = plan.switchable(None)
    names = [layer.name for layer in network.layers]
    pairs = [(network.run(feeds, ()), network.run(feeds, names)) for feeds in evaluation]
    found = worst_values(compare([a for a, _ in pairs], [b for _, b in pairs]).values())
    return float(10 ** (-found["snr_db"] / 10))


def _agreement(case: Case, plan: Plan, samples: list[Feeds]) -> Ratio:
    """Rank correlation with sensitivities measured on several images: of the estimate, and of measuring on one."""
    network = plan.switchable(None)
    measured, once = measure(network, samples), measure(network, samples[:1])
    estimated = propagated(plan.model, network.layers, plan.thresholds, samples)
    names = [layer.name for layer in network.layers]
    agreement = [
        rank_correlation([measured[name] for name in names], [found[name] for name in names])
        for found in (estimated, once)
    ]
    what = f"rank correlation with sensitivity measured on {len(samples)} images, {case.name}"
    return Ratio.of(what, "estimated in one run", "measured on one image", [(agreement[0], agreement[1])])


def _row(what: str, name: str, with_: float, without: float) -> Ratio:
    return Ratio.of(what, name.replace("_", " "), "plain INT8", [(with_, without)])


def _digits(folder: Path) -> Case:
    from csa_models.registry import csa_digits

    pixels = [batch.inputs for batch in digits(csa_digits.preprocessing).batches(1)]
    return _case("csa_digits", "csa_digits", "digits:train", csa_digits.preprocessing, folder, pixels)


def _convselfattn(folder: Path) -> Case:
    return _photographed("convselfattn", "trained_like", folder, convselfattn_preprocessing, every=10)


def _mobilenet(folder: Path) -> Case:
    return _photographed("mobilenet_v2", "mobilenet", folder, mobilenet_preprocessing, every=1)


def _photographed(name: str, file: str, folder: Path, how: Preprocessing, every: int) -> Case:
    pictured, evaluation = photos(how), imagenet_samples(how)
    pictures = folder / "views"
    pictures.mkdir(exist_ok=True)
    for number, picture in enumerate(views((pictured.image(photo) for photo in PHOTOGRAPHS), mirror=False)):
        picture.save(pictures / f"{number:03d}.png")
    shown = list(views(evaluation.image(s.id) for s in evaluation.samples))[::every]
    tensors = [{"image": to_array(picture, how)[None]} for picture in shown]
    return _case(name, f"{HERE / file}.py:{name}", str(pictures), how, folder, tensors)


def _case(
    name: str, network: str, calibration: str, how: Preprocessing, folder: Path, tensors: list[dict[str, np.ndarray]]
) -> Case:
    """Export and optimize a network by the command line."""
    root = folder / name
    subprocess.run([CLI, "optimize", network, "--workspace", root, "--quiet"], check=True)
    (graph,) = (root / "onnx").glob("*.optimized.onnx")
    model = load_model(graph, full_check=False)
    value = model.graph.input[0].name
    feeds = [{value: next(iter(arrays.values()))} for arrays in tensors]
    data = open_calibration(calibration, how, {value: feeds[0][value].shape}, samples=512, seed=SEED)
    return Case(name, model, data, feeds)
