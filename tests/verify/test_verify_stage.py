"""The comparison finds planted errors, names the sample, and takes any batch."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from csa_deploy.cli.session import resolve
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.engine.device import CudaDevice, CudaState
from csa_deploy.errors import AccuracyGateError, UsageError
from csa_deploy.pipeline import run_stages, stage_key
from csa_deploy.results import jsonable
from csa_deploy.source import load_source
from csa_deploy.stages import STAGES
from csa_deploy.stages import verify as verify
from csa_deploy.workspace import StageOutput, Workspace

SAMPLES = 6
Verify = Callable[..., StageOutput]


@pytest.fixture()
def compared(lab: Path) -> Verify:
    """``compared(change, **settings)``: verify ``lab/tiny.onnx`` after ``change(model)`` was done to a graph."""

    def run(
        change: Callable[[onnx.ModelProto], None] | None = None, graph: str = "tiny.optimized.onnx", **settings: Any
    ) -> StageOutput:
        given = {"network": str(lab / "tiny.onnx"), "data": str(lab / "x.npz"), "threads": 1, **settings}
        config = make_config(given)
        workspace = Workspace(lab / "w")
        context = Context(config, load_source(config.network), workspace)
        with workspace.locked(), workspace.scratch("verify") as scratch:
            run_stages(["precision"], context)
            context.scratch = scratch
            if change is not None:
                model = onnx.load(lab / "w/onnx" / graph)
                change(model)
                onnx.save(model, lab / "w/onnx" / graph)
            return verify.run(context)

    return run


def candidates(output: StageOutput) -> dict[str, Any]:
    return {c["label"]: c for c in output.stated["candidates"]}


def set_weight(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    def apply(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))

    return apply


def one_weight(array: np.ndarray) -> np.ndarray:
    array.flat[0] += 0.05 if array.dtype == np.float32 else 1.0  # FP16 may lose more by itself
    return array


def one_nan(array: np.ndarray) -> np.ndarray:
    array.flat[0] = np.nan
    return array


def test_graphs_that_agree_pass(compared: Verify) -> None:
    output = compared()
    found = candidates(output)
    assert output.failure is None and set(found) == {"fp32", "fp16"}  # the exported graph is the reference here
    assert {c["verdict"] for c in found.values()} == {"undecided"}  # six samples show no agreement of 99 %
    states = {check["metric"]: check["state"] for check in found["fp32"]["checks"]}
    assert states == {"max_rel_error": "pass", "cosine": "pass", "top1_agreement": "undecided"}
    assert found["fp32"]["outputs"][0]["metrics"]["snr_db"] > 100
    assert 50 < found["fp16"]["outputs"][0]["metrics"]["snr_db"] < 100
    assert output.stated["data"]["samples"] == SAMPLES and output.stated["data"]["labelled"]


@pytest.mark.parametrize("graph", ["tiny.optimized.onnx", "tiny.fp16.onnx"])
@pytest.mark.shows("MEA-31", "ERR-09")
def test_one_wrong_weight_fails(compared: Verify, graph: str) -> None:
    output = compared(set_weight("last", one_weight), graph)
    label = "fp32" if "optimized" in graph else "fp16"
    assert isinstance(output.failure, AccuracyGateError)
    assert output.failure.exit_code == 6 and label in output.failure.message
    worst = candidates(output)[label]["outputs"][0]["worst"][0]["id"]
    assert f"(worst sample {worst})" in output.failure.message


@pytest.mark.shows("MEA-31", "ERR-14")
def test_nan_fails_and_names_output_and_sample(compared: Verify) -> None:
    output = compared(set_weight("last", one_nan))
    assert isinstance(output.failure, AccuracyGateError)
    assert "output 'y' is not finite on sample 0" in output.failure.message
    assert candidates(output)["fp32"]["verdict"] == "fail"


def test_an_input_that_is_not_finite_is_not_blamed_on_a_graph(compared: Verify, lab: Path) -> None:
    x = np.load(lab / "x.npz")["x"]
    x[2, 0, 3, 3] = np.nan
    np.savez(lab / "x.npz", x=x)
    output = compared()
    assert isinstance(output.failure, AccuracyGateError)
    assert output.failure.message == "verify: the reference's own output 'y' is not finite on sample 2"
    assert output.stated["localization"] == []


@pytest.mark.shows("MEA-09", "ERR-07")
def test_wrong_preprocessing_fails(compared: Verify) -> None:
    """A candidate that normalises its input again."""

    def normalise(model: onnx.ModelProto) -> None:
        node = onnx.helper.make_node("Mul", ["x", "std"], ["scaled"])
        model.graph.initializer.append(numpy_helper.from_array(np.float32(1 / 0.225), "std"))
        model.graph.node.insert(0, node)
        next(n for n in model.graph.node if n.op_type == "Conv").input[0] = "scaled"

    output = compared(normalise)
    assert isinstance(output.failure, AccuracyGateError) and candidates(output)["fp32"]["verdict"] == "fail"


def test_swapped_classes_fail_on_agreement(compared: Verify) -> None:
    output = compared(set_weight("last", lambda a: a[::-1].copy()))
    metrics = candidates(output)["fp32"]["outputs"][0]["metrics"]
    assert metrics["top1_agreement"] < 0.5 and output.failure is not None


def test_a_budget_of_the_configuration_decides(compared: Verify) -> None:
    assert compared(budget=["fp16.snr_db=150"]).failure is not None
    assert compared(budget=["fp16.snr_db=20"]).failure is None


def test_an_accuracy_budget(compared: Verify, lab: Path) -> None:
    assert compared(budget=["fp32.top1=0.99"]).failure is not None  # the labels are 0..5, the network is random
    x = np.load(lab / "x.npz")["x"]
    np.savez(lab / "x.npz", x=x)
    output = compared(budget=["fp32.top1=0.99"])
    assert output.failure is None
    (check,) = [c for c in candidates(output)["fp32"]["checks"] if c["metric"] == "top1"]
    assert check["passed"] is None and "no labels" in check["reason"]


@pytest.mark.parametrize("batch", [1, 4])
def test_every_batch_sees_every_sample_once(lab: Path, compared: Verify, make_tiny: Any, batch: int) -> None:
    """Six samples in batches of four: the last one is filled up, and the filling does not count."""
    reference = candidates(compared())["fp16"]["outputs"][0]
    onnx.save(make_tiny(inputs=(batch, 3, 16, 16)), lab / "tiny.onnx")
    output = compared(batch=batch)
    got = candidates(output)["fp16"]["outputs"][0]
    assert got["metrics"] == pytest.approx(reference["metrics"], rel=1e-4)
    assert [w["id"] for w in got["worst"]] == [w["id"] for w in reference["worst"]]
    columns = np.load(lab / "w/.scratch/verify/samples.npz") if (lab / "w/.scratch").exists() else None
    assert columns is None and output.stated["data"]["samples"] == SAMPLES


@pytest.mark.shows("MEA-29")
def test_the_tensors_that_went_in_are_named_by_hash(compared: Verify, lab: Path) -> None:
    x = np.load(lab / "x.npz")["x"]
    digest = hashlib.sha256(b"".join(hashlib.sha256(sample.tobytes()).digest() for sample in x)).hexdigest()
    assert compared().stated["data"]["tensors_sha256"] == digest


def test_fp16_inputs_get_what_fp32_inputs_get(compared: Verify) -> None:
    output = compared(fp16_io=True)
    assert output.failure is None and candidates(output)["fp16"]["outputs"][0]["metrics"]["snr_db"] > 40


def test_labels_that_do_not_fit(compared: Verify, lab: Path) -> None:
    np.savez(lab / "x.npz", x=np.zeros((2, 3, 16, 16), "f4"), labels=np.array([0, 10]))
    with pytest.raises(UsageError, match=r"labels 0\.\.10 do not fit a network with 10 outputs"):
        compared()


def test_data_that_do_not_fit(compared: Verify, lab: Path) -> None:
    np.savez(lab / "x.npz", x=np.zeros((2, 3, 8, 8), "f4"))
    with pytest.raises(UsageError, match="the data do not fit the network"):
        compared()


def test_a_gpu_that_appears_makes_the_comparison_of_engines_stale(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines that could not run before can now; graphs alone are compared where they were."""
    root = tmp_path / "w"
    shutil.copytree(digits.root, root)
    workspace = Workspace(root)
    if not workspace.stages.get("build"):
        pytest.skip("no engine was built here")
    config, _ = resolve("csa_digits", {"workspace": str(root)}, inherit=True)
    context = Context(config, load_source("csa_digits"), workspace)
    assert workspace.is_current("verify", stage_key(STAGES["verify"], context)) and not verify.stale(context)
    gpu = CudaState((CudaDevice(0, "Orin", "8.7", 2**35),), "12.6")
    monkeypatch.setattr(verify, "cuda_state", lambda: gpu)
    assert verify.stale(context)
    record = root / "records" / "verify.json"
    there = {**json.loads(record.read_text()), "runtime": jsonable(verify._runtime())}
    record.write_text(json.dumps(there))
    assert not verify.stale(context), "it ran there"
    monkeypatch.setattr(verify, "cuda_state", lambda: CudaState(reason="no CUDA device"))
    assert not verify.stale(context), "what a GPU gave stays on a machine without one"
    monkeypatch.setattr(verify, "cuda_state", lambda: gpu)
    record.write_text(json.dumps({**there, "runtime": {"devices": [], "packages": []}}))
    seen = []
    monkeypatch.setattr(verify, "run", lambda context: seen.append(context) or exit())
    with workspace.locked(), pytest.raises(SystemExit):
        run_stages(["verify"], context)
    assert seen
    workspace.forget({"build"})
    assert not verify.stale(context), "graphs alone are compared where they were"
