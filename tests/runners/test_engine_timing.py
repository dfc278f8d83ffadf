"""An engine's runner on recorders: order of the calls, times that come from events, layers and memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_recorders import COPY_IN, COPY_OUT, LAUNCH, MIB, REPLAY, TENSORRT, Engine, Runtime, install

from csa_deploy.errors import BuildFailedError, EnvironmentLacksError
from csa_deploy.runners import engine_runner
from csa_deploy.runners.device.memory import engine_memory
from csa_deploy.runners.device.timing import Spans
from csa_deploy.runners.engine_runner import EngineRunner

FEEDS = {"x": np.array([[3.0, 4.0]], np.float32)}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "net.engine"
    path.write_bytes(bytes(1000))
    return path


def test_each_way_of_timing_has_its_own_context(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(free=[8 * MIB, 5 * MIB, 4 * MIB])
    install(monkeypatch, Engine(runtime))
    with EngineRunner(engine, backend="tensorrt-rtx") as runner:
        assert runner.run(FEEDS)["y"].tolist() == [[3.0, 4.0, 0.0]]
        with runner.timer(FEEDS) as timing:
            assert timing.time(1) == [Spans(COPY_IN, LAUNCH, COPY_OUT)]
            assert timing.time(1, graph=True) == [Spans(COPY_IN, REPLAY, COPY_OUT)]
        layers = runner.layer_times(FEEDS, iterations=3)
        memory = runner.memory()
        assert runner.inspection() == '{"Layers": []}'
    assert layers == {"conv": [3.0] * 3, "Reformatting CopyNode for y": [0.25] * 3}  # a name reported twice is added up
    assert (memory.loaded_bytes, memory.peak_bytes, memory.device) == (3 * MIB, 4 * MIB, "")
    assert (memory.weights_bytes, memory.context_bytes, memory.engine_bytes) == (MIB, 2 * MIB, 1000)
    assert memory.to_json()["activations_and_workspace"].startswith("TensorRT holds")
    calls = runtime.calls
    assert calls[:6] == [
        "cudaGetDeviceCount",
        "cudaMemGetInfo",
        "activate",
        "cudaMemGetInfo",
        "infer",
        "cudaMemGetInfo",
    ]
    assert calls.count("create_execution_context") == 2
    assert calls.count("cudaMemGetInfo") == 3
    timed = calls[: calls.index("execute profiled")]
    assert "report" not in timed  # profiling never touches what is timed
    profiled = [call for call in calls if call in ("execute profiled", "cudaStreamSynchronize", "report")]
    assert profiled[-15:] == ["execute profiled", "cudaStreamSynchronize", "report"] * 5
    assert calls.count("cudaMalloc") == calls.count("cudaFree") == 4
    assert calls.index("deactivate") < calls.index("cudaStreamDestroy")


def test_without_bindings_the_engine_runs_and_the_reason_is_kept(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise EnvironmentLacksError("no CUDA bindings: neither cuda-python nor PyCUDA", fix="install them")

    runtime = Runtime()
    install(monkeypatch, Engine(runtime))
    monkeypatch.setattr(engine_runner, "open_device", missing)
    with EngineRunner(engine, backend="tensorrt-rtx") as runner:
        runner.run(FEEDS)
        memory = runner.memory()
        with pytest.raises(EnvironmentLacksError, match="no CUDA bindings"), runner.timer(FEEDS):
            pass
        with pytest.raises(EnvironmentLacksError, match="no CUDA bindings"):
            runner.layer_times(FEEDS, iterations=1)
    assert (memory.loaded_bytes, memory.peak_bytes) == (None, None)
    assert memory.device.startswith("no CUDA bindings")
    assert memory.context_bytes == 2 * MIB


def test_a_profiler_that_gives_nothing_is_said(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(free=[8 * MIB, 5 * MIB])
    install(monkeypatch, Engine(runtime, reports=False))
    with (
        EngineRunner(engine, backend="tensorrt-rtx") as runner,
        pytest.raises(BuildFailedError, match="no times of layers"),
    ):
        runner.layer_times(FEEDS, iterations=1)
    assert runtime.calls.count("cudaMalloc") == runtime.calls.count("cudaFree") == 2


class OlderEngine:
    """TensorRT 10.0: no statistics, and the older name of the context's size."""

    device_memory_size = 7


def test_memory_of_an_older_tensorrt() -> None:
    older = type("older", (), {})
    memory = engine_memory(older, OlderEngine(), 5, [], "no bindings")
    assert (memory.context_bytes, memory.weights_bytes, memory.streamable_weights_bytes) == (7, None, None)


def test_weights_that_an_engine_does_not_know_are_none() -> None:
    class Silent(Engine):
        def get_engine_stat(self, stat: str) -> int:
            return -1

    assert engine_memory(TENSORRT, Silent(Runtime()), 5, [], "no bindings").weights_bytes is None
