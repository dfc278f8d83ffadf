"""Device code through cuda-python (``cuda.bindings.runtime``), NVIDIA's own bindings, from wheels."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from csa_deploy.errors import EnvironmentLacksError


class CudaPython:
    """See :class:`csa_deploy.runners.device.base.Device`.

    Every call of the runtime returns a tuple with its error first; :meth:`_do` checks it and gives the rest.

    Args:
        runtime: ``cuda.bindings.runtime``; imported when None.

    Raises:
        EnvironmentLacksError: the driver or a device is missing.
    """

    name = "cuda-python"
    has_graphs = True

    def __init__(self, runtime: Any = None) -> None:
        self._cuda = runtime or importlib.import_module("cuda.bindings.runtime")
        self._made: list[tuple[str, Any]] = []
        if self._do("cudaGetDeviceCount") == 0:
            raise EnvironmentLacksError("no CUDA device", fix="run on a machine with an NVIDIA GPU")

    def allocate(self, size: int) -> Any:
        """Device memory."""
        return self._do("cudaMalloc", size)

    def address(self, buffer: Any) -> int:
        """Its address."""
        return int(buffer)

    def free(self, buffer: Any) -> None:
        """Give it back."""
        self._do("cudaFree", buffer)

    def free_bytes(self) -> int:
        """Unused memory."""
        return int(self._do("cudaMemGetInfo"))

    def pinned(self, array: np.ndarray) -> np.ndarray:
        """A page-locked copy."""
        address = self._keep("cudaFreeHost", self._do("cudaMallocHost", array.nbytes))
        memory = (ctypes.c_byte * array.nbytes).from_address(int(address))
        copy: np.ndarray = np.ndarray(array.shape, array.dtype, buffer=memoryview(memory))
        copy[...] = array
        return copy

    def stream(self) -> Any:
        """A new stream, which does not wait for the default one."""
        return self._keep("cudaStreamDestroy", self._do("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def handle(self, stream: Any) -> int:
        """As TensorRT takes it."""
        return int(stream)

    def synchronize(self, stream: Any) -> None:
        """Wait."""
        self._do("cudaStreamSynchronize", stream)

    def to_device(self, buffer: Any, array: np.ndarray, stream: Any) -> None:
        """Copy in."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._do("cudaMemcpyAsync", buffer, array.ctypes.data, array.nbytes, kind, stream)

    def to_host(self, array: np.ndarray, buffer: Any, stream: Any) -> None:
        """Copy out."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._do("cudaMemcpyAsync", array.ctypes.data, buffer, array.nbytes, kind, stream)

    def event(self) -> Any:
        """A new event."""
        return self._keep("cudaEventDestroy", self._do("cudaEventCreate"))

    def record(self, event: Any, stream: Any) -> None:
        """Put it into a stream."""
        self._do("cudaEventRecord", event, stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Between two events."""
        return float(self._do("cudaEventElapsedTime", start, end))

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None]:
        """Record a graph. Thread-local mode, so that other threads may allocate meanwhile."""
        self._do("cudaStreamBeginCapture", stream, self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            work()
        except BaseException:
            error, graph = self._cuda.cudaStreamEndCapture(stream)  # else the stream stays in capture
            if int(error) == 0:
                self._do("cudaGraphDestroy", graph)
            self._cuda.cudaGetLastError()
            raise
        graph = self._do("cudaStreamEndCapture", stream)
        try:
            executable = self._keep("cudaGraphExecDestroy", self._do("cudaGraphInstantiate", graph, 0))
        finally:
            self._do("cudaGraphDestroy", graph)
        return lambda: self._do("cudaGraphLaunch", executable, stream)

    def close(self) -> None:
        """Free what was made, the latest first."""
        while self._made:
            destroy, item = self._made.pop()
            self._do(destroy, item)

    def _keep(self, destroy: str, item: Any) -> Any:
        self._made.append((destroy, item))
        return item

    def _do(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cuda, name)(*arguments)
        if int(error) != 0:
            self._cuda.cudaGetLastError()  # clears it: whoever asks next, such as TensorRT, would take it for its own
            raise EnvironmentLacksError(
                f"{name} fails: {getattr(error, 'name', error)}", fix="check the driver, the GPU and its free memory"
            )
        return values[0] if values else None
