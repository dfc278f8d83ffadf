"""Device code by its recorded calls; with the real bindings where they are installed, and on a GPU where one is."""

from __future__ import annotations

import importlib.util
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from csa_deploy.engine.device import cuda_state
from csa_deploy.errors import BuildFailedError, EnvironmentLacksError
from csa_deploy.runners.device import base
from csa_deploy.runners.device.base import Device, open_device
from csa_deploy.runners.device.cuda_python import CudaPython
from csa_deploy.runners.device.pycuda_device import PyCuda
from csa_deploy.runners.device.timing import device_times


class Code(IntEnum):
    OK = 0
    OUT_OF_MEMORY = 2


class Runtime:
    """A recorder in the shape of cuda.bindings.runtime: every call returns its error first."""

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="local")  # noqa: N815

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self.fails = fails
        self.handles = 100

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name == self.fails:
                return Code.OUT_OF_MEMORY, None
            if name == "cudaGetDeviceCount":
                return Code.OK, 1
            if name == "cudaEventElapsedTime":
                return Code.OK, float(arguments[1] - arguments[0])
            self.handles += 1
            return Code.OK, self.handles

        return call


class Driver:
    """A recorder in the shape of pycuda.driver."""

    class Error(Exception):
        pass

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self.fails = fails

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

    def Stream(self) -> Any:  # noqa: N802
        return self.note("Stream", SimpleNamespace(handle=7, synchronize=lambda: self.note("synchronize")))

    def Event(self) -> Any:  # noqa: N802
        return self.note("Event", SimpleNamespace(record=lambda stream: self.note("record"), time_till=lambda end: 0.5))

    def memcpy_htod_async(self, buffer: Any, array: np.ndarray, stream: Any) -> None:
        self.note("htod")

    def memcpy_dtoh_async(self, array: np.ndarray, buffer: Any, stream: Any) -> None:
        self.note("dtoh")


class Context:
    def __init__(self, calls: list[str], accepts: bool = True, runs: bool = True) -> None:
        self.calls, self.accepts, self.runs = calls, accepts, runs

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert isinstance(address, int)
        self.calls.append(f"address {name}")
        return self.accepts

    def execute_async_v3(self, stream: int) -> bool:
        assert isinstance(stream, int)
        self.calls.append("execute")
        return self.runs


def timed(device: Device, context: Context, *, graph: bool) -> list[float]:
    arrays = {"x": np.zeros((1, 2), np.float32)}, {"y": np.zeros((1, 3), np.float32)}
    return device_times(device, context, *arrays, iterations=2, warmup=1, graph=graph)


def test_cuda_python_in_order_with_a_graph() -> None:
    runtime = Runtime()
    device = CudaPython(runtime)
    assert timed(device, Context(runtime.calls), graph=True) == [1.0, 1.0]
    device.close()
    step = ["cudaEventCreate", "cudaEventCreate", "cudaEventRecord", "cudaGraphLaunch", "cudaEventRecord"]
    assert runtime.calls == [
        "cudaGetDeviceCount",
        *("cudaMalloc", "address x", "cudaMalloc", "address y"),
        *("cudaStreamCreateWithFlags", "cudaMemcpyAsync", "execute"),
        *("cudaStreamBeginCapture", "execute", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy"),
        "cudaGraphLaunch",
        *step,
        *step,
        *("cudaMemcpyAsync", "cudaStreamSynchronize", "cudaEventElapsedTime", "cudaEventElapsedTime"),
        *("cudaFree", "cudaFree"),
        *["cudaEventDestroy"] * 4,
        *("cudaGraphExecDestroy", "cudaStreamDestroy"),
    ]


def test_pycuda_in_order() -> None:
    driver = Driver()
    device = PyCuda(driver)
    assert timed(device, Context(driver.calls), graph=False) == [0.5, 0.5]
    device.close()
    step = ["Event", "Event", "record", "execute", "record"]
    assert driver.calls == [
        *("init", "retain", "push"),
        *("mem_alloc", "address x", "mem_alloc", "address y", "Stream", "htod", "execute", "execute"),
        *step,
        *step,
        *("dtoh", "synchronize", "free", "free", "pop"),
    ]


def test_pycuda_says_that_it_has_no_graphs() -> None:
    driver = Driver()
    device = PyCuda(driver)
    assert not device.has_graphs
    with pytest.raises(EnvironmentLacksError, match="no CUDA graphs"):
        timed(device, Context(driver.calls), graph=True)
    assert driver.calls.count("free") == 2


@pytest.mark.parametrize("fails", ["cudaMalloc", "cudaMemcpyAsync", "cudaGraphInstantiate", "cudaStreamSynchronize"])
def test_a_failing_call_is_named_and_memory_given_back(fails: str) -> None:
    runtime = Runtime(fails)
    with pytest.raises(EnvironmentLacksError, match=f"{fails} fails: OUT_OF_MEMORY"):
        timed(CudaPython(runtime), Context(runtime.calls), graph=True)
    made = 0 if fails == "cudaMalloc" else 2
    assert runtime.calls.count("cudaFree") == made


def test_a_failing_pycuda_call() -> None:
    driver = Driver("htod")
    with pytest.raises(EnvironmentLacksError, match="out of memory"):
        timed(PyCuda(driver), Context(driver.calls), graph=False)
    assert driver.calls.count("free") == 2


def test_a_capture_ends_when_its_work_fails() -> None:
    runtime = Runtime()
    context = Context(runtime.calls)
    device = CudaPython(runtime)

    def work() -> None:
        raise BuildFailedError("no")

    with pytest.raises(BuildFailedError):
        device.capture(1, work)
    assert runtime.calls[-1] == "cudaStreamEndCapture"
    context.runs = False
    with pytest.raises(BuildFailedError, match="does not run"):
        timed(device, context, graph=False)
    context.accepts = False
    with pytest.raises(BuildFailedError, match="no tensor 'x'"):
        timed(device, context, graph=False)


def test_without_bindings_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_installed", lambda module: False)
    with pytest.raises(EnvironmentLacksError) as caught:
        open_device()
    assert "csa-deploy[cuda]" in (caught.value.fix or "")


@pytest.mark.skipif(not base._installed("cuda.bindings.runtime"), reason="cuda-python is not installed")
def test_the_real_bindings_have_every_call() -> None:
    from cuda.bindings import runtime

    recorder = Runtime()
    device = CudaPython(recorder)
    timed(device, Context([]), graph=True)
    device.close()
    assert [name for name in set(recorder.calls) if not hasattr(runtime, name)] == []
    assert runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal is not None
    assert runtime.cudaStreamNonBlocking == 1
    if not cuda_state().devices:
        with pytest.raises(EnvironmentLacksError, match="cudaGetDeviceCount fails"):
            CudaPython()


@pytest.mark.skipif(not cuda_state().devices, reason="no CUDA device")
@pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="cuda-python is not installed")
def test_on_a_gpu_what_goes_in_comes_out() -> None:
    device = open_device()
    array = np.arange(1000, dtype=np.float32)
    back = np.zeros_like(array)
    buffer, stream = device.allocate(array.nbytes), device.stream()
    start, end = device.event(), device.event()
    device.record(start, stream)
    device.to_device(buffer, array, stream)
    device.to_host(back, buffer, stream)
    device.record(end, stream)
    device.synchronize(stream)
    assert np.array_equal(array, back)
    assert device.elapsed_ms(start, end) > 0
    device.free(buffer)
    device.close()
