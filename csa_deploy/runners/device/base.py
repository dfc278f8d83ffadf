"""The interface of device code, and the choice between its implementations."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.installing import install_command

INSTALL = f"{install_command('cuda')} (or PyCUDA, which compiles)"


class Device(Protocol):
    """One CUDA device. Everything asynchronous is ordered by its stream; handles are the binding's own objects.

    Attributes:
        has_graphs: whether :meth:`capture` works.
    """

    name: str
    has_graphs: bool

    def allocate(self, size: int) -> Any:
        """Device memory of ``size`` bytes."""

    def address(self, buffer: Any) -> int:
        """Address of device memory."""

    def free(self, buffer: Any) -> None:
        """Give device memory back."""

    def free_bytes(self) -> int:
        """Device memory that nothing holds, of any process."""

    def pinned(self, array: np.ndarray) -> np.ndarray:
        """A copy in page-locked host memory, which :meth:`close` frees; copies to and from it are asynchronous."""

    def stream(self) -> Any:
        """A new stream."""

    def handle(self, stream: Any) -> int:
        """The stream as TensorRT takes it."""

    def synchronize(self, stream: Any) -> None:
        """Wait for everything in a stream."""

    def to_device(self, buffer: Any, array: np.ndarray, stream: Any) -> None:
        """Copy a contiguous array to device memory, asynchronously."""

    def to_host(self, array: np.ndarray, buffer: Any, stream: Any) -> None:
        """Copy device memory to a contiguous array, asynchronously."""

    def event(self) -> Any:
        """A new event that takes times."""

    def record(self, event: Any, stream: Any) -> None:
        """Put an event into a stream."""

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that have passed."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None]:
        """Record what ``work`` puts into a stream as a graph; returns what launches it.

        Raises:
            EnvironmentLacksError: the binding has no graphs, or the capture fails; the stream can be used further.
        """

    def close(self) -> None:
        """Free streams, events, graphs and page-locked memory that were made."""


def open_device() -> Device:
    """cuda-python where it is, else PyCUDA.

    Raises:
        EnvironmentLacksError: neither is there, or there is no device.
    """
    if _installed("cuda.bindings.runtime"):
        from csa_deploy.runners.device.cuda_python import CudaPython

        return CudaPython()
    if _installed("pycuda.driver"):
        from csa_deploy.runners.device.pycuda_device import PyCuda

        return PyCuda()
    raise EnvironmentLacksError("no CUDA bindings: neither cuda-python nor PyCUDA", fix=INSTALL)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
