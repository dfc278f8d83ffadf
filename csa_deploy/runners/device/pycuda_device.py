"""Device code through PyCUDA, which DRIVE and Jetson images often carry. It has no CUDA graphs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.installing import install_command


class PyCuda:
    """See :class:`csa_deploy.runners.device.base.Device`.

    Args:
        driver: ``pycuda.driver``; imported when None.

    Raises:
        EnvironmentLacksError: the driver or a device is missing.
    """

    name = "PyCUDA"
    has_graphs = False

    def __init__(self, driver: Any = None) -> None:
        self._cuda = driver or importlib.import_module("pycuda.driver")
        self._context = self._do(self._primary)

    def _primary(self) -> Any:
        """The device's primary context, which TensorRT uses as well."""
        self._cuda.init()
        if self._cuda.Device.count() == 0:
            raise EnvironmentLacksError("no CUDA device", fix="run on a machine with an NVIDIA GPU")
        context = self._cuda.Device(0).retain_primary_context()
        context.push()
        return context

    def allocate(self, size: int) -> Any:
        """Device memory."""
        return self._do(self._cuda.mem_alloc, size)

    def address(self, buffer: Any) -> int:
        """Its address."""
        return int(buffer)

    def free(self, buffer: Any) -> None:
        """Give it back."""
        self._do(buffer.free)

    def free_bytes(self) -> int:
        """Unused memory."""
        return int(self._do(self._cuda.mem_get_info)[0])

    def pinned(self, array: np.ndarray) -> np.ndarray:
        """A page-locked copy; it goes with the array."""
        copy: np.ndarray = self._do(self._cuda.pagelocked_empty, array.shape, array.dtype)
        copy[...] = array
        return copy

    def stream(self) -> Any:
        """A new stream."""
        return self._do(self._cuda.Stream)

    def handle(self, stream: Any) -> int:
        """As TensorRT takes it."""
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        """Wait."""
        self._do(stream.synchronize)

    def to_device(self, buffer: Any, array: np.ndarray, stream: Any) -> None:
        """Copy in."""
        self._do(self._cuda.memcpy_htod_async, buffer, array, stream)

    def to_host(self, array: np.ndarray, buffer: Any, stream: Any) -> None:
        """Copy out."""
        self._do(self._cuda.memcpy_dtoh_async, array, buffer, stream)

    def event(self) -> Any:
        """A new event."""
        return self._do(self._cuda.Event)

    def record(self, event: Any, stream: Any) -> None:
        """Put it into a stream."""
        self._do(event.record, stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Between two events."""
        return float(self._do(start.time_till, end))

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None]:
        """Not there."""
        raise EnvironmentLacksError("PyCUDA has no CUDA graphs", fix=install_command("cuda"))

    def close(self) -> None:
        """Leave the context; streams and events go with their Python objects."""
        self._do(self._context.pop)

    def _do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except self._cuda.Error as error:
            raise EnvironmentLacksError(
                f"CUDA fails: {error}", fix="check the driver, the GPU and its free memory"
            ) from None
