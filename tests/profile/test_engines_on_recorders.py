"""The whole stage with a device that is a recorder: which series an engine gets, and what each says when it cannot."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_recorders import COPY_IN, COPY_OUT, LAUNCH, MIB, REPLAY, Code, Context, Engine, Runtime, install

from csa_deploy.cli.session import opened, resolve
from csa_deploy.engine.device import cuda_state
from csa_deploy.errors import EnvironmentLacksError, PerformanceGateError
from csa_deploy.pipeline import run_stages
from csa_deploy.profile import bench
from csa_deploy.profile.device import WARM_MS, DeviceSubject, nothing_of
from csa_deploy.profile.gates import ANEW
from csa_deploy.runners import engine_runner
from csa_deploy.runners.device.cuda_python import CudaPython
from csa_deploy.runners.device.timing import DeviceTimer

pytestmark = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
SERIES = ("", " device", " transfers", " cuda graph")
ON_DEVICE = (*SERIES[1:], " layers", " memory on the device")


@pytest.fixture(autouse=True)
def short_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the host's clock a recorder would warm up for real."""
    monkeypatch.setattr(bench, "WARM_MS", 0.0)


@pytest.fixture(scope="module")
def root(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished deployment, to profile anew in."""
    return shutil.copytree(digits.root, tmp_path_factory.mktemp("recorded") / "csa_digits")


def profile(root: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], Exception | None]:
    """Record, measurements and failure of the stage, in this process."""
    given = {"workspace": str(root), "iterations": 12, "warmup": 1, "threads": 1, **settings}
    config, where = resolve("csa_digits", given, inherit=False)
    with opened(config, where) as context:
        context.workspace.forget(["profile"])
        failure = run_stages(["profile"], context)
        return context.workspace.record("profile"), context.workspace.measured("profile"), failure


def free(engines: int) -> list[int]:
    return [8 * MIB, 5 * MIB, 4 * MIB] * engines


def lacks(record: dict[str, Any]) -> dict[str, str]:
    return {item["what"]: item["reason"] for item in record["not_measured"]}


def engines_of(root: Path) -> int:
    return len(json.loads((root / "records/build.json").read_text())["engines"])


def test_an_engine_gets_every_series_from_the_devices_clock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(free=free(engines_of(root)))
    inspection = '{"Layers": [{"Name": "conv", "Metadata": "[ONNX Layer: nowhere]"}]}'
    install(monkeypatch, Engine(runtime, inspection))
    limits = {"engine fp32 device": {"p50_ms": 4.0}, "engine fp32": {"peak_mib": 4.0, "weights_mib": 1.0}}
    record, measured, failure = profile(root, limit=limits)
    for series, milliseconds in zip(SERIES[1:], (LAUNCH, COPY_IN + LAUNCH + COPY_OUT, REPLAY), strict=True):
        assert measured["latency"][f"engine fp32{series}"]["samples_ms"] == [milliseconds] * 12
    assert len(measured["latency"]["engine fp32"]["samples_ms"]) == 12
    assert not [what for what in lacks(record) if what.startswith("engine fp32")]
    found = measured["engines"]["engine fp32"]
    assert [(layer["name"], layer["time_us"], layer["mapped_by"]) for layer in found["layers"]] == [
        ("conv", 3000.0, "nothing"),
        ("Reformatting CopyNode for y", 250.0, "nothing"),
    ]
    assert (found["memory"]["peak_bytes"], found["memory"]["context_bytes"]) == (4 * MIB, 2 * MIB)
    assert {f"{gate['label']} {gate['quantity']}": gate["verdict"] for gate in measured["gates"]} == {
        "engine fp32 device p50_ms": "fail",
        "engine fp32 peak_mib": "pass",
        "engine fp32 weights_mib": "pass",
    }
    assert isinstance(failure, PerformanceGateError)
    assert "CUDA events" in record["contract"]["timed_on_device"]["engine ... device"]
    first_report = runtime.calls.index("report")
    assert "cudaGraphLaunch" not in runtime.calls[first_report:]  # layers come after everything that is timed


def test_a_capture_that_fails_leaves_the_rest_and_its_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Engine(Runtime("cudaStreamEndCapture", Code.INVALIDATED, free(engines_of(root)))))
    record, measured, failure = profile(root)
    assert lacks(record)["engine fp32 cuda graph"] == "cudaStreamEndCapture fails: INVALIDATED"
    assert "engine fp32 cuda graph" not in measured["latency"]
    assert measured["latency"]["engine fp32 device"]["samples_ms"] == [LAUNCH] * 12
    assert failure is None


def test_without_bindings_the_host_alone_times(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise EnvironmentLacksError("no CUDA bindings: neither cuda-python nor PyCUDA", fix="install them")

    install(monkeypatch, Engine(Runtime()))
    monkeypatch.setattr(engine_runner, "open_device", missing)
    record, measured, _ = profile(root)
    assert {what for what, reason in lacks(record).items() if reason.startswith("no CUDA bindings")} >= {
        f"engine fp32{quantity}" for quantity in ON_DEVICE
    }
    assert "engine fp32" in measured["latency"] and "engine fp32 device" not in measured["latency"]
    assert measured["engines"]["engine fp32"]["layers"] is None
    assert measured["engines"]["engine fp32"]["memory"]["context_bytes"] == 2 * MIB


def test_layers_that_tensorrt_does_not_give_are_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Engine(Runtime(free=free(engines_of(root))), reports=False))
    record, measured, _ = profile(root)
    assert lacks(record)["engine fp32 layers"] == "TensorRT gives no times of layers"
    assert measured["engines"]["engine fp32"]["memory"]["weights_bytes"] == MIB


def test_seconds_are_spent_by_the_devices_clock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Engine(Runtime(free=free(engines_of(root)))))
    _, measured, _ = profile(root, seconds=0.2)
    # 6.5 ms each, ten at a time, 20 ms per block: two blocks' bursts make one too many
    assert len(measured["latency"]["engine fp32 device"]["samples_ms"]) == 100


def test_a_baselines_engines_are_timed_in_the_same_rounds(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Engine(Runtime(free=free(3 * engines_of(root)))))
    profile(root)
    before = shutil.copytree(root, tmp_path / "before")
    record, measured, failure = profile(root, baseline=str(before), max_slowdown=5.0)
    gates = {gate["label"]: gate for gate in measured["gates"] if gate["quantity"].startswith("p50")}
    for series in SERIES:
        assert (gates[f"engine fp32{series}"]["verdict"], gates[f"engine fp32{series}"]["reason"]) == ("pass", ANEW)
    assert set(gates) == set(measured["latency"])
    assert not [label for label in measured["latency"] if label.startswith("baseline")]
    assert record["contract"]["baseline"].startswith("timed anew")
    assert failure is None


@pytest.mark.skipif(bool(cuda_state().devices), reason="a CUDA device is there")
@pytest.mark.shows("MEA-33", "ERR-27")
def test_without_a_device_every_quantity_of_every_engine_says_so(digits: Any) -> None:
    found = {item["what"]: item["reason"] for item in digits.record("profile")["not_measured"]}
    for precision in digits.record("build")["engines"]:
        for quantity in ("", *ON_DEVICE):
            assert found[f"engine {precision}{quantity}"] == cuda_state().reason
    assert cuda_state().reason.startswith("no CUDA device: ")


def test_a_warm_up_lasts_until_the_devices_clocks_have_risen() -> None:
    runtime = Runtime()
    arrays = {"x": np.zeros((1, 2), np.float32)}, {"y": np.zeros((1, 3), np.float32)}
    with DeviceTimer(CudaPython(runtime), Context(runtime), *arrays) as timer:
        subject = DeviceSubject("engine fp16 device", timer)
        before = runtime.clock.now
        subject.warm()
        assert WARM_MS <= runtime.clock.now - before < 2 * WARM_MS
        assert subject.samples_ms == []


def test_the_cause_is_what_is_kept_of_a_message() -> None:
    lines = nothing_of("engine fp16", "x.engine cannot run: no CUDA device: why")
    assert {line.reason for line in lines} == {"no CUDA device: why"}
    assert len(lines) == 6
