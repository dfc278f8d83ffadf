"""Networks whose tensors share no batch axis: six cameras that become one map, a recogniser with the time first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import CsaDeployError, UsageError
from csa_deploy.pipeline import run_stages
from csa_deploy.precision.qdq_placement import place
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.runners.base import run_padded
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.source import load_source
from csa_deploy.workspace import Workspace

NETS = """
import torch
from torch import nn


class Cameras(nn.Module):
    def __init__(self, cameras, fuse):
        super().__init__()
        self.conv, self.head, self.fuse = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 4, 1), fuse
        self.example_inputs = {"cameras": torch.zeros(cameras, 3, 16, 16)}

    def forward(self, cameras):
        x = torch.relu(self.conv(cameras))
        return self.head(x.mean(0, keepdim=True) if self.fuse else x)


def one_map():
    return Cameras(6, True)


def each():
    return Cameras(6, False)


class Attending(Cameras):
    def forward(self, cameras):  # one row per camera, each of which looks at all of them
        x = torch.relu(self.conv(cameras)).mean((2, 3))
        return torch.softmax(x @ x.T, 1) @ x


def attending():
    return Attending(6, False)
"""
FAST: dict[str, Any] = {"exporter": "torchscript", "threads": 1}


def run(lab: Path, network: str, stages: list[str], **settings: Any) -> tuple[Workspace, CsaDeployError | None]:
    lab.mkdir(exist_ok=True)
    config = make_config({"network": network, **FAST, **settings})
    workspace = Workspace(lab / "w")
    with workspace.locked():
        return workspace, run_stages(stages, Context(config, load_source(network), workspace))


@pytest.fixture()
def nets(tmp_path: Path) -> Path:
    (tmp_path / "cameras.py").write_text(NETS)
    draw = np.random.default_rng(2)
    for name, count in (("data", 3), ("calib", 5)):
        np.savez(tmp_path / f"{name}.npz", cameras=draw.standard_normal((count, 6, 3, 16, 16)).astype("f4"))
    np.savez(tmp_path / "rows.npz", cameras=draw.standard_normal((14, 3, 16, 16)).astype("f4"))
    return tmp_path


def test_six_cameras_become_one_map(nets: Path) -> None:
    workspace, failure = run(
        nets,
        f"{nets}/cameras.py:one_map",
        ["verify", "profile"],
        data=str(nets / "data.npz"),
        calib=str(nets / "calib.npz"),
        precision=["fp32", "fp16", "int8"],
        localize=True,
        iterations=2,
    )
    assert failure is None
    export, verify = workspace.record("export"), workspace.record("verify")
    assert export["inputs"][0]["shape"] == [6, 3, 16, 16] and export["outputs"][0]["shape"] == [1, 4, 7, 7]
    assert (export["batch"], export["sample"]) == (1, "whole")
    assert any("share no batch axis" in note for note in export["notes"])
    assert {d["samples"] for d in export["differences"]} == {2, 3}  # random ones and those of the file
    assert verify["data"]["samples"] == 3 and len(verify["localization"]) == 4
    labels = {c["label"]: c["outputs"][0]["metrics"] for c in verify["candidates"]}
    # ONNX Runtime on the files, without this project's code, is the oracle of the numbers.
    data = np.load(nets / "data.npz")["cameras"]
    graphs = {"fp32": verify["candidates"][1]["path"], "exported": export["graph"]}
    for label, graph in graphs.items():
        session = ort.InferenceSession(str(nets / "w" / graph))
        want = np.stack([session.run(None, {"cameras": sample})[0] for sample in data])
        assert want.shape == (3, 1, 4, 7, 7) and labels[label]["max_abs_error"] < 1e-5
    assert 40 < float(labels["fp16"]["snr_db"]) < 120 and 15 < float(labels["int8"]["snr_db"]) < 80


def test_the_batch_of_the_example_inputs_is_adopted(nets: Path) -> None:
    network = f"{nets}/cameras.py:each"
    workspace, failure = run(nets, network, ["verify"], data=str(nets / "rows.npz"))
    record = workspace.record("export")
    assert failure is None and record["batch"] == 6 and record["inputs"][0]["shape"] == [6, 3, 16, 16]
    assert "batch 6, which is that of example_inputs" in record["notes"]
    assert workspace.record("verify")["data"]["samples"] == 14
    assert load_source(network).make_network(batch=2).inputs["cameras"].shape == (2, 3, 16, 16)


def test_rows_that_look_at_one_another_make_one_sample(nets: Path) -> None:
    """Shapes alone would say six samples; a trial tells, and the user may say it either way."""
    network, data = f"{nets}/cameras.py:attending", {"data": str(nets / "data.npz")}
    workspace, failure = run(nets, network, ["verify", "profile"], **data, iterations=3, precision=["fp32", "fp16"])
    record, verify = workspace.record("export"), workspace.record("verify")
    assert failure is None and (record["sample"], record["batch"]) == ("whole", 1)
    assert any("a row of the inputs changes other rows of the outputs" in note for note in record["notes"])
    session = ort.InferenceSession(str(nets / "w" / record["graph"]))
    reference = load_source(network).make_network().module
    errors = []
    for sample in np.load(nets / "data.npz")["cameras"]:  # six cameras each
        with torch.inference_mode():
            want = reference(torch.from_numpy(sample)).numpy()
        errors.append(np.abs(session.run(None, {"cameras": sample})[0] - want).max())
    assert verify["data"]["samples"] == 3
    found = next(c for c in verify["candidates"] if c["label"] == "exported")["outputs"][0]
    assert found["metrics"]["max_abs_error"] == pytest.approx(max(errors), rel=1e-6) and found["classes"] == 0
    timed = workspace.measured("profile")["latency"]["fp32"]
    assert timed["throughput"] == pytest.approx(1000 / timed["mean_ms"], rel=0.01)  # of inferences, not of cameras
    other, failure = run(nets / "b", network, ["verify"], data=str(nets / "rows.npz"), sample="batched")
    assert other.record("export")["sample"] == "batched" and other.record("verify")["data"]["samples"] == 14
    with pytest.raises(UsageError, match="--sample batched: not all inputs and outputs have the batch"):
        run(nets / "c", f"{nets}/cameras.py:one_map", ["export"], sample="batched")


def test_a_map_of_six_cameras_is_judged_by_its_masks(nets: Path, build: Any) -> None:
    """mIoU, its drop, calibration and search on whole inferences; NumPy on ONNX Runtime's maps is the oracle."""
    body = "c = Conv<kernel_shape=[3,3], strides=[2,2]>(images, k) r = Relu(c) f = ReduceMean<keepdims=1>(r, first) "
    body += "map = Conv<kernel_shape=[1,1]>(f, k2)"
    draw = np.random.default_rng(4)
    weights = {n: draw.standard_normal(s).astype("f4") for n, s in (("k", (8, 3, 3, 3)), ("k2", (4, 8, 1, 1)))}
    model = build("(float[cams,3,H,W] images) => (float[1,4,h,w] map)", body, first=np.array([0]), **weights)
    onnx.save(model, nets / "bev.onnx")
    images = draw.standard_normal((48, 6, 3, 16, 16)).astype("f4")
    session = ort.InferenceSession(str(nets / "bev.onnx"))
    best = np.stack([session.run(None, {"images": sample})[0][0].argmax(0) for sample in images])
    masks = np.where(draw.random(best.shape) < 0.2, draw.integers(0, 4, best.shape), best).astype("u1")
    for name, rows in (("bev", slice(24)), ("calibrate", slice(24, None))):
        np.savez(nets / f"{name}.npz", images=images[rows], masks=masks[rows])
    images, masks, best = images[:24], masks[:24], best[:24]
    workspace, _ = run(
        nets,
        str(nets / "bev.onnx"),
        ["verify"],
        input_shape="images=6x3x16x16",
        task="segmentation",
        data=str(nets / "bev.npz"),
        calib=str(nets / "calibrate.npz"),
        precision=["fp32", "int8"],
        budget={"int8": {"mean_iou_drop": 0.05, "snr_db": 5, "cosine": 0.5}},
    )
    record = workspace.record("verify")
    int8 = next(c for c in record["candidates"] if c["label"] == "int8")
    graph = ort.InferenceSession(str(nets / "w" / int8["path"]))
    own = np.stack([graph.run(None, {"images": sample})[0][0].argmax(0) for sample in images])

    def mean_iou(found: np.ndarray) -> float:
        pairs = [((masks == c) & (found == c), (masks == c) | (found == c)) for c in range(4)]
        return float(np.mean([both.sum() / either.sum() for both, either in pairs]))

    assert record["data"]["samples"] == 24
    assert int8["metrics"]["reference_mean_iou"] == pytest.approx(mean_iou(best), abs=1e-9)
    assert int8["metrics"]["mean_iou"] == pytest.approx(mean_iou(own), abs=2e-3)
    assert not any("not judged in the search" in note for note in workspace.record("precision")["notes"])


def test_a_batch_that_the_outputs_do_not_follow_is_refused(nets: Path) -> None:
    with pytest.raises(UsageError, match=r"--batch 4, but not all inputs and outputs have it as their first axis"):
        run(nets, f"{nets}/cameras.py:one_map", ["export"], batch=4)


def test_data_of_single_cameras_do_not_fit(nets: Path) -> None:
    with pytest.raises(UsageError, match=r"takes cameras \(n, 6, 3, 16, 16\), the data hold cameras \(n, 3, 16, 16\)"):
        run(nets, f"{nets}/cameras.py:one_map", ["export"], data=str(nets / "rows.npz"))


def test_data_of_whole_inferences_name_the_setting(nets: Path) -> None:
    with pytest.raises(UsageError, match=r"the network takes cameras \(n, 3, 16, 16\)") as error:
        run(nets, f"{nets}/cameras.py:each", ["export"], data=str(nets / "data.npz"))
    assert error.value.fix == "say --sample whole, where one inference takes one sample"
    workspace, failure = run(nets, f"{nets}/cameras.py:each", ["verify"], data=str(nets / "data.npz"), sample="whole")
    assert failure is None and workspace.record("verify")["data"]["samples"] == 3


def test_time_first_is_compared_whole(tmp_path: Path, build: Any) -> None:
    body = "c = Conv<kernel_shape=[8,4], strides=[8,4]>(x, k) t = Transpose<perm=[3,0,1,2]>(c) "
    body += "r = Reshape(t, s) m = MatMul(r, w) y = Softmax(m)"
    model = build(
        "(float[1,1,8,W] x) => (float[1,seqlen] y)",
        body,
        opset=12,
        k=(5, 1, 8, 4),
        w=(5, 7),
        s=np.array([-1, 1, 5]),
    )
    onnx.save(model, tmp_path / "crnn.onnx")
    draw = np.random.default_rng(2)
    for name, count in (("data", 4), ("calib", 6)):
        np.savez(tmp_path / f"{name}.npz", x=draw.standard_normal((count, 1, 8, 48)).astype("f4"))
    workspace, failure = run(
        tmp_path,
        str(tmp_path / "crnn.onnx"),
        ["verify"],
        input_shape="1x1x8x48",
        data=str(tmp_path / "data.npz"),
        calib=str(tmp_path / "calib.npz"),
        precision=["fp32", "fp16", "int8"],
        localize=True,
        budget={"int8": {"snr_db": 5, "cosine": 0.5}, "fp16": {"snr_db": 30}},
    )
    assert failure is None
    record = workspace.record("export")
    assert record["outputs"][0]["shape"] == [12, 1, 7] and record["sample"] == "whole"
    assert any("the file declares [1, '?'], which is corrected" in note for note in record["notes"])
    assert any("opset 12 converted to 18" in note for note in record["notes"])
    verify = workspace.record("verify")
    assert [c["label"] for c in verify["candidates"]] == ["fp32", "fp16", "int8"] and verify["data"]["samples"] == 4
    assert not [m for m in verify["not_measured"] if "batch axis" in m["reason"]]


def test_the_search_sees_the_samples_that_the_gate_sees(build: Any) -> None:
    """Twelve time steps of one inference are one sample of both, not twelve of the search."""
    body = "c = Conv<kernel_shape=[8,4], strides=[8,4]>(x, k) t = Transpose<perm=[3,0,1,2]>(c) y = Reshape(t, s)"
    model = build("(float[1,1,8,48] x) => (float[12,1,5] y)", body, k=(5, 1, 8, 4), s=np.array([12, 1, 5]))
    feed = {"x": np.random.default_rng(0).standard_normal((1, 1, 8, 48)).astype("f4")}
    with OnnxRuntimeRunner(model.SerializeToString()) as runner:
        gate = run_padded(runner, feed)
    network = Switchable(model, place(model), {"x": 4.0})
    search = network.run(feed, ())
    assert search["y"].shape == gate["y"].shape == (1, 12, 5)
    np.testing.assert_array_equal(search["y"], gate["y"])
