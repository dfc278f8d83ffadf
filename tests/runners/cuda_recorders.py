"""Recorders in the shape of cuda-python, PyCUDA and TensorRT: they note every call and keep a clock of their own.

The clock of a recorder stands still but for work in the stream: a copy in takes 1 ms, one out 0.5 ms, TensorRT's
launches 5 ms and a CUDA graph's 3 ms, so that every time that is computed from events tells where they stood.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from enum import IntEnum
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from csa_deploy.runners.device.cuda_python import CudaPython

COPY_IN, COPY_OUT, LAUNCH, REPLAY = 1.0, 0.5, 5.0, 3.0
MIB = 2**20


class Code(IntEnum):
    OK = 0
    OUT_OF_MEMORY = 2
    INVALIDATED = 901


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.capturing = False

    def spend(self, milliseconds: float) -> None:
        if not self.capturing:
            self.now += milliseconds


class Runtime:
    """cuda.bindings.runtime: every call returns its error first."""

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="local")  # noqa: N815

    def __init__(self, fails: str = "", code: Code = Code.OUT_OF_MEMORY, free: Sequence[int] = ()) -> None:
        self.calls: list[str] = []
        self.fails, self.code = fails, code
        self.free = list(free)
        self.clock = Clock()
        self.stamps: dict[int, float] = {}
        self.host: list[Any] = []
        self.handles = 100

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name == self.fails:
                self.clock.capturing = False
                return self.code, None
            return Code.OK, getattr(self, f"_{name}", self._handle)(*arguments)

        return call

    def _handle(self, *arguments: Any) -> int:
        self.handles += 1
        return self.handles

    def _cudaGetDeviceCount(self) -> int:  # noqa: N802
        return 1

    def _cudaMemGetInfo(self) -> int:  # noqa: N802
        return self.free.pop(0)

    def _cudaMallocHost(self, size: int) -> int:  # noqa: N802
        self.host.append((ctypes.c_byte * size)())
        return ctypes.addressof(self.host[-1])

    def _cudaMemcpyAsync(self, to: Any, source: Any, size: int, kind: str, stream: Any) -> None:  # noqa: N802
        self.clock.spend(COPY_IN if kind == "in" else COPY_OUT)

    def _cudaEventRecord(self, event: int, stream: int) -> None:  # noqa: N802
        self.stamps[event] = self.clock.now

    def _cudaEventElapsedTime(self, start: int, end: int) -> float:  # noqa: N802
        return self.stamps[end] - self.stamps[start]

    def _cudaStreamBeginCapture(self, stream: int, mode: str) -> None:  # noqa: N802
        self.clock.capturing = True

    def _cudaStreamEndCapture(self, stream: int) -> int:  # noqa: N802
        self.clock.capturing = False
        return self._handle()

    def _cudaGraphLaunch(self, executable: int, stream: int) -> None:  # noqa: N802
        self.clock.spend(REPLAY)


class Driver:
    """pycuda.driver."""

    class Error(Exception):
        pass

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self.fails = fails
        self.clock = Clock()

    def note(self, name: str, result: Any = None) -> Any:
        self.calls.append(name)
        if name == self.fails:
            raise self.Error("out of memory")
        return result

    def init(self) -> None:
        self.note("init")

    @property
    def Device(self) -> Any:  # noqa: N802
        context = SimpleNamespace(push=lambda: self.note("push"), pop=lambda: self.note("pop"))
        made = SimpleNamespace(retain_primary_context=lambda: self.note("retain", context))

        class Devices:
            @staticmethod
            def count() -> int:
                return 1

            def __new__(cls, index: int) -> Any:
                return made

        return Devices

    def mem_alloc(self, size: int) -> Any:
        class Memory(int):
            def free(memory) -> None:  # noqa: N805
                self.note("free")

        return self.note("mem_alloc", Memory(4096))

    def mem_get_info(self) -> tuple[int, int]:
        return self.note("mem_get_info", (3 * MIB, 8 * MIB))

    def pagelocked_empty(self, shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        return self.note("pagelocked_empty", np.empty(shape, dtype, order))

    def Stream(self) -> Any:  # noqa: N802
        return self.note("Stream", SimpleNamespace(handle=7, synchronize=lambda: self.note("synchronize")))

    def Event(self) -> Any:  # noqa: N802
        event = SimpleNamespace(at=0.0)

        def record(stream: Any) -> None:
            self.note("record")
            event.at = self.clock.now

        event.record, event.time_till = record, lambda end: end.at - event.at
        return self.note("Event", event)

    def memcpy_htod_async(self, buffer: Any, array: np.ndarray, stream: Any) -> None:
        self.note("htod")
        self.clock.spend(COPY_IN)

    def memcpy_dtoh_async(self, array: np.ndarray, buffer: Any, stream: Any) -> None:
        self.note("dtoh")
        self.clock.spend(COPY_OUT)


class Context:
    """TensorRT's execution context, with a profiler that reports once per inference when it is asked."""

    LAYERS = (("conv", 2.0), ("Reformatting CopyNode for y", 0.25), ("conv", 1.0))

    def __init__(
        self, bindings: Runtime | Driver, accepts: bool = True, runs: bool = True, reports: bool = True
    ) -> None:
        self.calls, self.clock = bindings.calls, bindings.clock
        self.accepts, self.runs, self.reports = accepts, runs, reports
        self.profiler: Any = None
        self.enqueue_emits_profile = True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert isinstance(memory, int)
        self.calls.append(f"address {name}")
        return self.accepts

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert isinstance(stream_handle, int)
        self.calls.append("execute" if self.profiler is None else "execute profiled")
        self.clock.spend(LAUNCH)
        return self.runs

    def report_to_profiler(self) -> bool:
        self.calls.append("report")
        assert not self.enqueue_emits_profile
        for name, milliseconds in self.LAYERS if self.reports else ():
            self.profiler.report_layer_time(name, milliseconds)
        return self.reports


class Profiler:
    """tensorrt.IProfiler, whose base must be initialised."""

    def __init__(self) -> None:
        self.ready = True

    def __init_subclass__(cls) -> None:
        assert "report_layer_time" in vars(cls)


class Engine:
    """ICudaEngine with one input x (1, 2) and one output y (1, 3)."""

    num_io_tensors = 2
    device_memory_size_v2 = 2 * MIB
    streamable_weights_size = 0

    def __init__(self, bindings: Runtime, inspection: str = '{"Layers": []}', **behaviour: bool) -> None:
        self.bindings, self.behaviour, self.inspection = bindings, behaviour, inspection

    def create_execution_context(self) -> Context:
        self.bindings.calls.append("create_execution_context")
        return Context(self.bindings, **self.behaviour)

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"x": "INPUT", "y": "OUTPUT"}[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {"x": (1, 2), "y": (1, 3)}[name]

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def get_engine_stat(self, stat: str) -> int:
        assert stat == "TOTAL_WEIGHTS_SIZE"
        return MIB

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda form: self.inspection)


TENSORRT = SimpleNamespace(
    __version__=version("tensorrt-rtx") if find_spec("tensorrt_rtx") else "1.7.0",  # engines state their builder's
    __spec__="found",
    IProfiler=Profiler,
    EngineStat=SimpleNamespace(TOTAL_WEIGHTS_SIZE="TOTAL_WEIGHTS_SIZE"),
    LayerInformationFormat=SimpleNamespace(JSON="JSON"),
    TensorIOMode=SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT"),
    nptype=np.dtype,
)


def polygraphy_with(engine: Engine) -> ModuleType:
    """polygraphy.backend.trt with a runner of this engine, whose inference takes what goes in to y = [x0, x1, 0]."""

    class TrtRunner:
        def __init__(self, loader: Any) -> None:
            self.engine = engine

        def activate(self) -> None:
            engine.bindings.calls.append("activate")

        def deactivate(self) -> None:
            engine.bindings.calls.append("deactivate")

        def infer(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            engine.bindings.calls.append("infer")
            return {"y": np.pad(feeds["x"], ((0, 0), (0, 1)))}

    module = ModuleType("polygraphy.backend.trt")
    module.TrtRunner, module.EngineFromPath = TrtRunner, lambda path: path
    return module


def install(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    """Make this process believe in a CUDA device, bindings and TensorRT-RTX that are all recorders."""
    from polygraphy import config

    from csa_deploy.engine.device import CudaDevice, CudaState
    from csa_deploy.runners import engine_runner

    state = CudaState((CudaDevice(0, "Recorder", "8.6", 8 * MIB),), "13.0")
    monkeypatch.setattr(engine_runner, "cuda_state", lambda: state)
    monkeypatch.setattr(engine_runner, "open_device", lambda: CudaPython(engine.bindings))
    monkeypatch.setattr(config, "USE_TENSORRT_RTX", True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", TENSORRT)
    monkeypatch.setitem(sys.modules, "polygraphy.backend.trt", polygraphy_with(engine))
