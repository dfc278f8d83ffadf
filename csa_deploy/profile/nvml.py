"""Reads the GPU that CUDA takes first through NVML, the library that comes with NVIDIA's driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from csa_deploy.installing import install_command

CUDA_LIBRARY = "libcuda.so.1"
# NVML's API reference, nvmlClocksEventReasons
THROTTLE = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}


@dataclass(frozen=True)
class Reading:
    """What NVML said: values by quantity with unit, energy counters by rail, or the reason for nothing."""

    values: dict[str, float | str] = field(default_factory=dict)
    energy_j: dict[str, float] = field(default_factory=dict)
    reason: str = ""


@lru_cache(maxsize=1)
def _open() -> tuple[Any, str]:
    """The handle of CUDA's first device, or why there is none."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None, f"nvidia-ml-py is not installed ({install_command('cuda')})"
    try:
        pynvml.nvmlInit()
        bus = _bus_of_first()
        if bus is None:
            return None, "CUDA finds no device, so there is none to ask NVML about"
        return pynvml.nvmlDeviceGetHandleByPciBusId(bus), ""
    except pynvml.NVMLError as error:
        return None, f"NVML does not start: {error}"


def _bus_of_first() -> bytes | None:
    """PCI address of CUDA's first device: NVML counts in another order and sees devices that CUDA was told to hide."""
    device, address = ctypes.c_int(), ctypes.create_string_buffer(32)
    try:
        cuda = ctypes.CDLL(CUDA_LIBRARY)
    except OSError:
        return None
    found = cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
    return address.value if found and cuda.cuDeviceGetPCIBusId(address, len(address), device) == 0 else None


def read() -> Reading:
    """Read the device: clocks, temperature, power, power limit, throttle reasons and the energy counter."""
    device, reason = _open()
    if reason:
        return Reading(reason=reason)
    import pynvml as nvml

    def get(function: Callable[..., int], *arguments: int, scale: float = 1.0) -> float | None:
        try:
            return function(device, *arguments) * scale
        except nvml.NVMLError:  # not supported by this device
            return None

    asked = {
        "gpu clock [MHz]": get(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_GRAPHICS),
        "gpu memory clock [MHz]": get(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
        "gpu temperature [C]": get(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        "gpu power [W]": get(nvml.nvmlDeviceGetPowerUsage, scale=1e-3),
        "gpu power limit [W]": get(nvml.nvmlDeviceGetEnforcedPowerLimit, scale=1e-3),
    }
    values: dict[str, float | str] = {name: value for name, value in asked.items() if value is not None}
    mask = get(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    if mask is not None:
        values["gpu throttle reasons"] = ", ".join(n for bit, n in THROTTLE.items() if int(mask) & bit) or "none"
    energy = get(nvml.nvmlDeviceGetTotalEnergyConsumption, scale=1e-3)
    return Reading(values, {"NVML whole GPU": energy} if energy is not None else {})
