"""``csa-deploy quantize`` as a user types it, on the trained network."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from csa_deploy.precision.techniques import TECHNIQUES
from csa_deploy.precision.thresholds import METHODS
from csa_deploy.precision.trt_cache import read_cache

SETTINGS = ("--precision", "fp32,fp16,int8", "--calib-samples", 64, "--samples", 100)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, csa):
    """64 training digits to calibrate on, 100 held-out ones to verify."""
    folder = tmp_path_factory.mktemp("first")
    return folder, csa(folder, "quantize", "csa_digits", *SETTINGS)


def workspace(folder: Path) -> Path:
    return folder / "deploy" / "csa_digits"


def test_it_keeps_the_accuracy_and_says_so(quantized):
    folder, said = quantized
    assert said.returncode == 0, said.stderr
    verified = json.loads((workspace(folder) / "records" / "verify.json").read_text())
    (int8,) = [c for c in verified["candidates"] if c["label"] == "int8"]
    metrics = int8["outputs"][0]["metrics"]
    assert metrics["top1_drop"] <= 0.01
    assert metrics["snr_db"] >= 20
    for words in ("int8 graph", "latency, estimated by a cost model", "calibration cache of TensorRT 8.6"):
        assert words in said.stdout


def test_for_dla_it_says_what_runs_there_and_how_dla_rounds(tmp_path, csa):
    """The record, the console and the report state it, and the graph that it writes is one that the scope allows."""
    settings = ("--scope", "dla-orin-11", "--fix", "--target-dla", "--fp16-io", "--techniques", "none")
    said = csa(tmp_path, "quantize", "csa_digits", *SETTINGS, *settings)
    assert said.returncode == 0, said.stderr
    assert "DLA rounds half away from zero" in said.stdout and "88 of 88 nodes run there" in said.stdout
    root = workspace(tmp_path)
    dla = json.loads((root / "records" / "precision.json").read_text())["precisions"]["int8"]["dla"]
    assert (dla["scope"], dla["nodes"], dla["off"], dla["io"]) == ("dla-orin-11", 88, [], "fp16")
    assert dla["rounding"] == "half away from zero" and dla["tensors"] == 89
    csa(tmp_path, "report", "csa_digits")
    assert "DLA rounds half away from zero" in (root / "report.html").read_text()
    found = csa(tmp_path, "check", root / "onnx" / "csa_digits.int8.onnx", "--tensorrt", "11.4.1")
    assert found.returncode == 0, found.stderr
    assert "dla-orin-11: allowed" in found.stdout and "0 fall back to the GPU" in found.stdout
    assert "trt-11" in found.stdout and "drive-os-6" not in found.stdout
    denied = csa(
        tmp_path, "check", root / "onnx" / "csa_digits.int8.onnx", "--scope", "dla-orin-11", "--tensorrt", "11.3.1"
    )
    assert denied.returncode == 2 and "says nothing about --tensorrt" in denied.stderr
    later = csa(tmp_path, "quantize", "csa_digits", "--no-target-dla", "--techniques", "none", "--no-search")
    assert later.returncode == 0, later.stderr
    assert "dla" not in json.loads((root / "records" / "precision.json").read_text())["precisions"]["int8"]


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(quantized, tmp_path, csa):
    csa(tmp_path, "quantize", "csa_digits", *SETTINGS)
    first, second = workspace(quantized[0]), workspace(tmp_path)
    for name in ("onnx/csa_digits.int8.onnx", "calibration/csa_digits.calibration.cache", "calibration/audit.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_audit_holds_what_a_review_needs(quantized):
    root = workspace(quantized[0])
    audit = json.loads((root / "calibration" / "audit.json").read_text())
    record = json.loads((root / "records" / "precision.json").read_text())
    assert audit["images"] == len(audit["hashes"]) == 64
    assert audit["data"] == "digits:train" and audit["random"] is False
    tensor = next(iter(audit["tensors"].values()))
    assert set(tensor["thresholds"]) == set(tensor["clipped"]) == set(METHODS)
    assert sum(tensor["histogram"]["counts"]) == tensor["values"]
    assert audit["preprocessing"]["size"] == [32, 32]
    int8 = record["precisions"]["int8"]
    assert int8["search"]["pareto"][0]["metrics"]["snr_db"] > 20
    assert set(int8["techniques"]) == set(TECHNIQUES)
    assert int8["techniques"].pop("clip_equalization")["reason"].startswith("0 groups")  # it has no Clip
    for found in int8["techniques"].values():
        assert found["used"] == (found["gain_db"] > max(0.1, 2 * found["gain_error_db"]))
        assert found["images"] == 22  # a third of the 64
    _, scales = read_cache(root / int8["cache"])
    graph = onnx.load(root / "onnx" / "csa_digits.optimized.onnx").graph
    assert {value.name for value in (*graph.input, *graph.output)} < set(scales)
    assert {name for node in graph.node if node.op_type != "Constant" for name in node.output} <= set(scales)


@pytest.mark.shows("MEA-20", "ERR-16")
def test_images_of_the_evaluation_are_refused_for_calibration(tmp_path, csa):
    said = csa(tmp_path, "quantize", "csa_digits", "--int8", "--calib", "digits", "--samples", 10)
    assert said.returncode == 2
    assert "are in the evaluation set" in said.stderr


def test_int8_without_calibration_data_is_refused(lab, csa):
    said = csa(lab, "quantize", "tiny.onnx", "--int8", "--data", "x.npz")
    assert said.returncode == 2
    assert "INT8 needs calibration images" in said.stderr


def test_random_data_only_where_it_is_written_out(lab, csa):
    said = csa(lab, "quantize", "tiny.onnx", "--int8", "--calib", "random", "--data", "x.npz", "--budget", "snr_db=5")
    record = json.loads((lab / "deploy" / "tiny" / "records" / "precision.json").read_text())
    notes = " ".join(record["notes"])
    assert "random numbers" in notes and "keeps this setting until another is given: --calib FOLDER" in notes
    assert record["precisions"]["int8"]["rest"] == "fp32"  # opset 17 has no FP16 in QuantizeLinear
    assert said.returncode in (0, 6)


def test_why_names_what_keeps_int8_from_being_faster(quantized, csa):
    folder, _ = quantized
    said = csa(folder, "quantize", "--why", "deploy/csa_digits/onnx/csa_digits.int8.onnx")
    assert said.returncode == 0
    assert "gate in floating point" in said.stdout


@pytest.mark.slow
def test_calibration_goes_on_after_ctrl_c(lab, csa):
    command = (
        "quantize",
        "tiny.onnx",
        "--int8",
        "--calib",
        "random",
        "--calib-samples",
        "1000",
        "--data",
        "x.npz",
        "-v",
    )
    often = "from csa_deploy.precision import calibration as c; c._SAVE_EVERY = 0"
    often += "; from csa_deploy.cli.main import main; main()"
    unfinished = lab / "deploy" / "tiny" / "calibration" / "unfinished.npz"
    first = subprocess.Popen([sys.executable, "-c", often, *command], cwd=lab, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not unfinished.is_file():
        time.sleep(0.01)
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=120)[1]
    assert first.returncode == 130 and "the next run goes on from there" in said
    assert unfinished.is_file()
    resumed = csa(lab, *command, "--budget", "snr_db=1")
    assert "calibration goes on after" in resumed.stderr
    assert not unfinished.exists()
    audit = (lab / "deploy" / "tiny" / "calibration" / "audit.json").read_bytes()
    csa(lab, *command, "--budget", "snr_db=1", "--workspace", "calm")
    assert audit == (lab / "calm" / "calibration" / "audit.json").read_bytes()
