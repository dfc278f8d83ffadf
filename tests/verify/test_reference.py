"""FP64 says whose error it is, and the reference's own accuracy says whether the labels can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from scipy.stats import binomtest
from torch import nn

from csa_deploy.errors import UsageError
from csa_deploy.graph.facts import stated_types
from csa_deploy.metrics.intervals import share
from csa_deploy.metrics.stream import OutputMetrics
from csa_deploy.runners import exact_runner
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.spec import TensorSpec
from csa_deploy.verify.candidates import Candidate, require_same_interface
from csa_deploy.verify.reference import OwnAccuracy, arbitrate, own_accuracy
from csa_deploy.verify.results import OutputColumns


def network(scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(1), nn.Linear(12, 4))
    with torch.no_grad():
        module[1].weight.mul_(scale)
    return module


def candidate_of(runner: TorchRunner, x: np.ndarray, want: np.ndarray) -> Candidate:
    candidate = Candidate("fp32", "fp32", "", runner)
    candidate.update({"y": want}, runner.run({"x": x}), ["s0"], None)
    return candidate


@pytest.mark.parametrize(("ours", "theirs", "blamed"), [(1.0, 1.001, "candidate"), (1.001, 1.0, "reference")])
def test_fp64_decides(ours: float, theirs: float, blamed: str) -> None:
    spec = [TensorSpec("x", (1, 3, 2, 2), "float32")]
    x = np.random.default_rng(0).standard_normal((1, 3, 2, 2)).astype("f4")
    exact = network()

    class Off(nn.Module):
        """Right in FP64; in FP32 off by a factor, as a bad kernel would be."""

        def __init__(self, factor: float) -> None:
            super().__init__()
            self.inner, self.factor = exact, factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner.to(x.dtype)(x) * (self.factor if x.dtype == torch.float32 else 1.0)

    reference, other = (TorchRunner(Off(f), spec, ["y"], threads=1) for f in (ours, theirs))
    with reference, other:
        candidate = candidate_of(other, x, reference.run({"x": x})["y"])
        (found,), reason = arbitrate(reference, [candidate], {"s0": {"x": x}})
    assert reason == "" and found.farther == blamed


@pytest.mark.parametrize(("scale", "farther"), [(1.0, "neither"), (1.01, "candidate")])
def test_onnx_itself_decides_in_fp64_between_two_graphs(
    make_tiny: Any, tmp_path: Path, scale: float, farther: str
) -> None:
    source, other = make_tiny(), make_tiny()
    onnx.save(source, tmp_path / "source.onnx")
    weight = other.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(scale * numpy_helper.to_array(weight), weight.name))
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype("f4")
    with OnnxRuntimeRunner(source.SerializeToString()) as ours, OnnxRuntimeRunner(other.SerializeToString()) as theirs:
        candidate = Candidate("fp32", "fp32", "", theirs)
        want = ours.run({"x": x})
        candidate.update(want, theirs.run({"x": x}), ["s0"], None)
        found, reason = arbitrate(ours, [candidate], {"s0": {"x": x}}, tmp_path / "source.onnx")
    assert reason == "" and {judged.farther for judged in found} == {farther}
    assert all(judged.reference_error < 1e-5 for judged in found)


def test_where_fp64_is_impossible_it_says_so(make_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = make_tiny(), {"s0": {"x": np.zeros((1, 3, 16, 16), "f4")}}
    onnx.save(model, tmp_path / "a.onnx")
    runner = OnnxRuntimeRunner(model.SerializeToString(), threads=1)
    monkeypatch.setattr(exact_runner, "MOST_MACS", 1)
    found, reason = arbitrate(runner, [], feeds, tmp_path / "a.onnx")
    assert found == [] and "multiply-accumulates would take" in reason
    monkeypatch.undo()
    half = model.graph.initializer[0]
    half.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(half).astype(np.float16), half.name))
    onnx.save(model, tmp_path / "b.onnx")
    assert "not FP32 throughout" in arbitrate(runner, [], feeds, tmp_path / "b.onnx")[1]
    assert arbitrate(runner, [], {}, tmp_path / "b.onnx") == ([], "")


def accuracy(labels: np.ndarray, predicted: np.ndarray, trained: bool = True) -> Any:
    want = np.eye(10, dtype="f4")[predicted]
    metrics = OutputMetrics("y")
    metrics.update(want, want, [str(i) for i in range(len(want))], labels)
    return own_accuracy(OutputColumns("y", 10, metrics.columns), labels.tolist(), trained=trained)


@pytest.mark.shows("MEA-29", "ERR-24")
def test_labels_off_by_one_are_recognised() -> None:
    predicted = np.arange(100) % 10
    assert accuracy(predicted, predicted).verdict == "pass"
    for shift in (1, -1):
        found = accuracy((predicted + shift) % 10, predicted)
        assert found.verdict == "fail" and f"off by {shift}" in found.statement


@pytest.mark.shows("MEA-29", "ERR-24")
def test_a_reference_no_better_than_chance_fails_only_when_trained() -> None:
    draw = np.random.default_rng(0)
    labels, predicted = draw.integers(0, 10, 2000), draw.integers(0, 10, 2000)
    assert accuracy(labels, predicted).verdict == "fail"
    assert accuracy(labels, predicted, trained=False).verdict == "not expected"
    assert accuracy(np.arange(3), np.arange(3)).verdict == "pass"


@pytest.mark.parametrize(("count", "verdict"), [(1, "undecided"), (4, "undecided"), (5, "fail")])
def test_a_few_misses_do_not_condemn_a_trained_reference(count: int, verdict: str) -> None:
    assert accuracy(np.zeros(count, int), np.full(count, 4)).verdict == verdict


def test_precision_is_read_from_the_types(make_tiny: Any) -> None:
    model = make_tiny()
    assert stated_types(model).precision == "fp32"
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    assert stated_types(model).precision == "fp16"
    model.graph.node.append(onnx.helper.make_node("QuantizeLinear", ["y", "s"], ["q"]))
    assert stated_types(model).precision == "int8"


def test_other_names_and_sizes_are_listed_side_by_side(make_tiny: Any, tmp_path: Path) -> None:
    reference = OnnxRuntimeRunner(make_tiny().SerializeToString(), threads=1)
    for other, message in (
        (make_tiny(name="image"), r"bad has image \[1, 3, 16, 16\]; the reference has x \[1, 3, 16, 16\]"),
        (make_tiny(inputs=(1, 3, 8, 8)), r"bad has x \[1, 3, 8, 8\]; the reference has x \[1, 3, 16, 16\]"),
    ):
        with pytest.raises(UsageError, match=message):
            require_same_interface(reference, OnnxRuntimeRunner(other.SerializeToString(), threads=1), "bad")


@pytest.mark.parametrize(
    ("classes", "right", "count", "verdict"),
    [
        (2, 100, 100, "pass"),  # perfect
        (2, 6, 6, "pass"),
        (2, 5, 5, "undecided"),  # one in sixteen coins does that
        (2, 950, 1000, "pass"),
        (2, 61, 100, "pass"),
        (2, 60, 100, "undecided"),  # 95 % interval from 49.7 %
        (2, 50, 100, "fail"),
        (3, 620, 1000, "pass"),
        (3, 333, 1000, "fail"),
        (10, 990, 1000, "pass"),
        (1000, 1, 1000, "fail"),
    ],
)
@pytest.mark.shows("MEA-29", "ERR-23")
def test_the_lower_end_of_the_interval_is_held_against_chance(
    classes: int, right: int, count: int, verdict: str
) -> None:
    """Twice the chance is all of it where there are two classes."""
    low = binomtest(right, count).proportion_ci(0.95, "exact").low
    found = OwnAccuracy(right / count, share(right, count), 1 / classes, trained=True)
    assert found.verdict == verdict
    assert (found.verdict == "pass") == (low > 1 / classes)


@pytest.mark.shows("MEA-29", "ERR-24")
def test_swapped_classes_are_called_so() -> None:
    labels = np.arange(100) % 2
    columns = {"reference_class": (1 - labels).astype(float)}
    found = own_accuracy(OutputColumns("y", 2, columns), labels.tolist(), trained=True)
    assert found is not None and found.verdict == "fail" and "swapped" in found.statement
