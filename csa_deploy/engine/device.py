"""Which CUDA devices this machine has, asked from the driver library itself.

No CUDA toolkit, PyTorch or TensorRT is needed: ``libcuda.so.1`` comes with the driver, so its absence means that
there is no driver. The calls are those of the CUDA driver API (``cuInit``, ``cuDeviceGetCount``, ...).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

from csa_deploy.results import Stored

_DRIVER_LIBRARY = "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR} of cuda.h


@dataclass(frozen=True)
class CudaDevice:
    """One device: ordinal, marketing name, compute capability (``"8.6"``) and memory in bytes."""

    index: int
    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True)
class CudaState(Stored):
    """What the driver answered.

    Attributes:
        devices: the devices, in the driver's order.
        driver: newest CUDA version that the driver supports (``"13.0"``); None without a driver.
        reason: why ``devices`` is empty; empty when there is at least one.
    """

    devices: tuple[CudaDevice, ...] = ()
    driver: str | None = None
    reason: str = ""


@lru_cache(maxsize=1)
def cuda_state() -> CudaState:
    """Ask the driver once per process; never raises."""
    try:
        driver = ctypes.CDLL(_DRIVER_LIBRARY)
    except OSError:
        return CudaState(reason=f"no CUDA device: the driver library {_DRIVER_LIBRARY} is not on this machine")
    try:
        return _ask(driver)
    except (AttributeError, OSError, ValueError) as error:
        return CudaState(reason=f"no CUDA device: the driver does not answer ({error})")


def _ask(driver: ctypes.CDLL) -> CudaState:
    """Read version and devices; raises ValueError on a driver error code, AttributeError on a foreign library."""
    version = ctypes.c_int()
    _check(driver, driver.cuInit(0), "cuInit")
    _check(driver, driver.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    count = ctypes.c_int()
    _check(driver, driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    return CudaState(
        devices=tuple(_device(driver, index) for index in range(count.value)),
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
        reason="" if count.value else "no CUDA device: the driver is there and lists none",
    )


def _device(driver: ctypes.CDLL, index: int) -> CudaDevice:
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    _check(driver, driver.cuDeviceGet(ctypes.byref(handle), index), "cuDeviceGet")
    _check(driver, driver.cuDeviceGetName(name, len(name), handle), "cuDeviceGetName")
    _check(driver, driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, handle), "cuDeviceGetAttribute")
    _check(driver, driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, handle), "cuDeviceGetAttribute")
    _check(driver, driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle), "cuDeviceTotalMem")
    return CudaDevice(index, name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value)


def _check(driver: ctypes.CDLL, code: int, call: str) -> None:
    if code == 0:
        return
    text = ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(text))
    raise ValueError(f"{call}: {text.value.decode() if text.value else f'error {code}'}")
