"""Device code by its recorded calls; with the real bindings where they are installed, and on a GPU where one is."""

from __future__ import annotations

import importlib.util
import inspect
import re
from typing import Any

import numpy as np
import pytest
from cuda_recorders import COPY_IN, COPY_OUT, LAUNCH, REPLAY, Code, Context, Driver, Runtime

from csa_deploy.engine.device import cuda_state
from csa_deploy.errors import BuildFailedError, EnvironmentLacksError, UsageError
from csa_deploy.runners.device import base
from csa_deploy.runners.device.base import Device, open_device
from csa_deploy.runners.device.cuda_python import CudaPython
from csa_deploy.runners.device.pycuda_device import PyCuda
from csa_deploy.runners.device.timing import DeviceTimer, Spans

BINDINGS = base._installed("cuda.bindings.runtime")


def timer(device: Device, context: Context, **options: bool) -> DeviceTimer:
    arrays = {"x": np.zeros((1, 2), np.float32)}, {"y": np.zeros((1, 3), np.float32)}
    return DeviceTimer(device, context, *arrays, **options)


def test_cuda_python_in_order_launched_and_through_a_graph() -> None:
    runtime = Runtime()
    device = CudaPython(runtime)
    with timer(device, Context(runtime)) as timing:
        assert timing.no_graph == ""
        timing.time(1, graph=True)  # a warm-up
        assert timing.time(2) == [Spans(COPY_IN, LAUNCH, COPY_OUT)] * 2
        assert timing.time(2, graph=True) == [Spans(COPY_IN, REPLAY, COPY_OUT)] * 2
        assert timing.time(1)[0].total == COPY_IN + LAUNCH + COPY_OUT
    device.close()
    create, mark, copy, read = (
        ["cudaEventCreate"] * 4,
        "cudaEventRecord",
        "cudaMemcpyAsync",
        ["cudaEventElapsedTime"] * 3,
    )
    assert runtime.calls == [
        "cudaGetDeviceCount",
        *("cudaMalloc", "address x", "cudaMalloc", "address y", "cudaMallocHost", "cudaMallocHost"),
        *("cudaStreamCreateWithFlags", copy, "execute", copy, "cudaStreamSynchronize"),
        *("cudaStreamBeginCapture", "execute", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy"),
        *(*create, mark, copy, mark, "cudaGraphLaunch", mark, copy, mark, "cudaStreamSynchronize", *read),
        *(*create, *[mark, copy, mark, "execute", mark, copy, mark] * 2, "cudaStreamSynchronize", *read, *read),
        *(*[mark, copy, mark, "cudaGraphLaunch", mark, copy, mark] * 2, "cudaStreamSynchronize", *read, *read),
        *(mark, copy, mark, "execute", mark, copy, mark, "cudaStreamSynchronize", *read),
        *("cudaFree", "cudaFree"),
        *["cudaEventDestroy"] * 8,
        *("cudaGraphExecDestroy", "cudaStreamDestroy", "cudaFreeHost", "cudaFreeHost"),
    ]


def test_pycuda_in_order() -> None:
    driver = Driver()
    device = PyCuda(driver)
    with timer(device, Context(driver)) as timing:
        assert timing.time(2) == [Spans(COPY_IN, LAUNCH, COPY_OUT)] * 2
        assert device.free_bytes() == 3 * 2**20
    device.close()
    assert driver.calls == [
        *("init", "retain", "push"),
        *("mem_alloc", "address x", "mem_alloc", "address y", "pagelocked_empty", "pagelocked_empty", "Stream"),
        *("htod", "execute", "dtoh", "synchronize"),
        *["Event"] * 8,
        *["record", "htod", "record", "execute", "record", "dtoh", "record"] * 2,
        *("synchronize", "mem_get_info", "free", "free", "pop"),
    ]


def test_pycuda_says_that_it_has_no_graphs() -> None:
    driver = Driver()
    with timer(PyCuda(driver), Context(driver)) as timing:
        assert timing.no_graph == "PyCUDA has no CUDA graphs"
        with pytest.raises(UsageError, match="no CUDA graph: PyCUDA"):
            timing.time(1, graph=True)
        assert len(timing.time(1)) == 1


@pytest.mark.parametrize("fails", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_launches_are_timed_when_the_capture_fails(fails: str) -> None:
    runtime = Runtime(fails, Code.INVALIDATED)
    with timer(CudaPython(runtime), Context(runtime)) as timing:
        assert timing.no_graph == f"{fails} fails: INVALIDATED"
        assert timing.time(1) == [Spans(COPY_IN, LAUNCH, COPY_OUT)]
    assert "cudaGetLastError" in runtime.calls  # no stale error for TensorRT to find
    assert runtime.calls.count("cudaGraphDestroy") == (fails == "cudaGraphInstantiate")


def test_tensorrt_that_refuses_in_a_capture_ends_it_and_launches_are_timed() -> None:
    runtime = Runtime()
    context = Context(runtime)
    launch = context.execute_async_v3
    context.execute_async_v3 = lambda stream: launch(stream) and not runtime.clock.capturing
    with timer(CudaPython(runtime), context) as timing:
        assert timing.no_graph == "the capture failed: TensorRT does not run the engine"
        assert timing.time(1) == [Spans(COPY_IN, LAUNCH, COPY_OUT)]
    after = runtime.calls[runtime.calls.index("cudaStreamBeginCapture") :]
    assert after[:5] == [
        "cudaStreamBeginCapture",
        "execute",
        "cudaStreamEndCapture",
        "cudaGraphDestroy",
        "cudaGetLastError",
    ]


def test_tensorrt_rtx_is_asked_before_a_capture() -> None:
    runtime = Runtime()
    context = Context(runtime)
    context.is_stream_capturable = lambda stream: False
    with timer(CudaPython(runtime), context) as timing:
        assert "cannot be captured" in timing.no_graph
    assert "cudaStreamBeginCapture" not in runtime.calls


def test_no_graph_is_captured_unless_it_is_wanted() -> None:
    runtime = Runtime()
    with timer(CudaPython(runtime), Context(runtime), capture=False) as timing:
        assert timing.no_graph == "no CUDA graph was asked for"
    assert "cudaStreamBeginCapture" not in runtime.calls


def test_page_locked_copies_go_in_and_come_out() -> None:
    runtime = Runtime()
    device = CudaPython(runtime)
    array = np.arange(6, dtype=np.float16).reshape(1, 2, 3).transpose(0, 2, 1)
    copy = device.pinned(array)
    assert np.array_equal(copy, array) and copy.dtype == array.dtype and copy.flags.c_contiguous
    with timer(device, Context(runtime)) as timing:
        runtime.host[-1][:4] = np.float32(2.0).tobytes()  # the device writes y
        assert timing.outputs["y"][0].tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize("fails", ["cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_a_failing_call_is_named_and_memory_given_back(fails: str) -> None:
    runtime = Runtime(fails)
    with (
        pytest.raises(EnvironmentLacksError, match=f"{fails} fails: OUT_OF_MEMORY"),
        timer(CudaPython(runtime), Context(runtime)),
    ):
        pass
    assert runtime.calls.count("cudaFree") == (0 if fails == "cudaMalloc" else 2)


def test_a_failing_pycuda_call() -> None:
    driver = Driver("htod")
    with pytest.raises(EnvironmentLacksError, match="out of memory"), timer(PyCuda(driver), Context(driver)):
        pass
    assert driver.calls.count("free") == 2


def test_what_tensorrt_refuses_is_said() -> None:
    runtime = Runtime()
    for behaviour, message in (({"runs": False}, "does not run"), ({"accepts": False}, "no tensor 'x'")):
        with pytest.raises(BuildFailedError, match=message), timer(CudaPython(runtime), Context(runtime, **behaviour)):
            pass


def test_without_bindings_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_installed", lambda module: False)
    with pytest.raises(EnvironmentLacksError) as caught:
        open_device()
    assert "csa-deploy[cuda]" in (caught.value.fix or "")


class Signatures(Runtime):
    """Notes how many arguments each call takes."""

    def __init__(self) -> None:
        super().__init__(free=[1])
        self.given: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        call = super().__getattr__(name)

        def noted(*arguments: Any) -> Any:
            self.given[name] = len(arguments)
            return call(*arguments)

        return noted


@pytest.mark.skipif(not BINDINGS, reason="cuda-python is not installed")
def test_the_real_bindings_have_every_call_with_as_many_arguments() -> None:
    from cuda.bindings import runtime

    recorder = Signatures()
    device = CudaPython(recorder)
    device.free_bytes()
    with timer(device, Context(recorder)) as timing:
        timing.time(1, graph=True)
    device.close()
    with pytest.raises(BuildFailedError):
        device.capture(1, lambda: (_ for _ in ()).throw(BuildFailedError("no")))
    assert {"cudaGraphLaunch", "cudaMallocHost", "cudaFreeHost", "cudaMemGetInfo", "cudaGetLastError"} <= set(
        recorder.given
    )
    for name, arguments in recorder.given.items():
        stated = re.match(rf"{name}\((.*)\)", inspect.getdoc(getattr(runtime, name)) or "")
        assert stated, name
        assert len([part for part in stated[1].split(",") if part.strip()]) == arguments, (name, stated[0])
    assert runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal is not None
    assert runtime.cudaMemcpyKind.cudaMemcpyHostToDevice is not None
    assert runtime.cudaStreamNonBlocking == 1
    if not cuda_state().devices:
        with pytest.raises(EnvironmentLacksError, match="cudaGetDeviceCount fails"):
            CudaPython()


@pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="TensorRT-RTX is not installed")
def test_tensorrt_rtx_has_every_name_that_is_used() -> None:
    import tensorrt_rtx as trt

    used = {
        trt.IExecutionContext: (
            *("set_tensor_address", "execute_async_v3", "is_stream_capturable"),
            *("profiler", "enqueue_emits_profile", "report_to_profiler"),
        ),
        trt.IProfiler: ("report_layer_time",),
        trt.ICudaEngine: (
            *("create_execution_context", "create_engine_inspector", "device_memory_size_v2", "get_engine_stat"),
            *("streamable_weights_size", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape", "num_io_tensors"),
        ),
        trt.EngineInspector: ("get_engine_information",),
        trt.EngineStat: ("TOTAL_WEIGHTS_SIZE",),
        trt.LayerInformationFormat: ("JSON",),
    }
    assert [
        f"{kind.__name__}.{name}" for kind, names in used.items() for name in names if not hasattr(kind, name)
    ] == []
    for method, argument in ((trt.IExecutionContext.set_tensor_address, "memory"),):
        assert f"{argument}: " in (method.__doc__ or "")
