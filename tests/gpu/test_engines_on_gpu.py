"""Engines of every precision are built for this device, run, compared with PyTorch, timed and looked into."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from csa_deploy.runners.device.base import _installed

PRECISIONS = ("fp32", "fp16", "int8")
LEAST_DB = {"fp32": 90.0, "fp16": 40.0, "int8": 15.0}
needs_bindings = pytest.mark.skipif(
    not _installed("cuda.bindings.runtime"), reason="cuda-python is not installed: PyCUDA has no CUDA graphs"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """csa_digits through the whole pipeline, with engines for this machine's device."""
    pytest.importorskip("polygraphy")
    if not (_installed("tensorrt") or _installed("tensorrt_rtx")):
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")
    root = tmp_path_factory.mktemp("gpu") / "csa_digits"
    settings = ("--samples", "200", "--calib-samples", "128", "--iterations", "200", "--no-search")
    precisions = [f"--{precision}" for precision in PRECISIONS]
    command = [
        sys.executable,
        "-m",
        "csa_deploy",
        "run",
        "csa_digits",
        *precisions,
        *settings,
        "--workspace",
        str(root),
    ]
    done = subprocess.run([*command, "--compute-capability", "current"], capture_output=True, text=True)
    if done.returncode in (3, 5):  # something is missing here, or this TensorRT does not build for this device
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode in (0, 6), done.stderr  # INT8 without its search may miss its budget
    return json.loads((root / "report.json").read_text())


@pytest.fixture
def measured(report):
    return report["measurements"]["profile"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_engine_agrees_with_pytorch(report, precision):
    candidates = {c["label"]: c for c in report["records"]["verify"]["candidates"]}
    metrics = candidates[f"engine {precision}"]["outputs"][0]["metrics"]
    assert metrics["snr_db"] > LEAST_DB[precision]
    assert metrics["top1_agreement"] > 0.9


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_engine_is_timed_on_the_host(measured, precision):
    assert measured["latency"][f"engine {precision}"]["percentiles_ms"]["50"] > 0


@needs_bindings
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_engine_is_timed_by_the_devices_clock(measured, precision):
    series = ("", " device", " transfers", " cuda graph")
    host, device, transfers, graph = (
        measured["latency"][f"engine {precision}{name}"]["percentiles_ms"]["50"] for name in series
    )
    assert 0 < device < transfers < host
    assert graph < 1.2 * device  # a graph leaves no gaps for the host to fill
    assert all(len(measured["latency"][f"engine {precision}{name}"]["samples_ms"]) == 200 for name in series)


@needs_bindings
@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_add_up_and_most_time_is_traced_to_modules(measured, precision):
    layers = measured["engines"][f"engine {precision}"]["layers"]
    device = measured["latency"][f"engine {precision} device"]["percentiles_ms"]["50"]
    assert sum(layer["share"] for layer in layers) == pytest.approx(1, abs=1e-3)
    assert 0.3 * device < sum(layer["time_us"] for layer in layers) / 1e3 < 20 * device  # profiling adds to each
    assert sum(layer["share"] for layer in layers if layer["nodes"]) > 0.5
    assert any(layer["modules"] for layer in layers)


@needs_bindings
@pytest.mark.parametrize("precision", PRECISIONS)
def test_memory_is_stated_and_seen(measured, precision):
    memory = measured["engines"][f"engine {precision}"]["memory"]
    assert memory["context_bytes"] >= 0
    assert memory["peak_bytes"] >= memory["loaded_bytes"] >= 0
    assert memory["weights_bytes"] is None or memory["weights_bytes"] > 0


def test_the_gpu_was_read(measured):
    seen = measured["telemetry"]["seen"]
    assert seen["gpu clock [MHz]"]["max"] > 0
    assert "gpu throttle reasons" in seen


def test_energy_is_of_a_named_counter_or_has_a_reason(report, measured):
    lacking = {item["what"] for item in report["records"]["profile"]["not_measured"]}
    for label, rails in measured["energy_per_inference_j"].items():
        assert all(joule > 0 for joule in rails.values())
        assert "NVML whole GPU" in rails or f"energy per inference of {label}, NVML whole GPU" in lacking
