"""Reads the GPU that CUDA takes first through NVML, the library that comes with NVIDIA's driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

LIBRARY = "libnvidia-ml.so.1"
CUDA_LIBRARY = "libcuda.so.1"
GRAPHICS, MEMORY = 0, 2
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
def _open() -> tuple[ctypes.CDLL | None, ctypes.c_void_p, str]:
    device = ctypes.c_void_p()
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None, device, f"{LIBRARY} is not on this machine"
    if library.nvmlInit_v2() != 0:
        return None, device, "NVML does not start: no driver"
    bus = _bus_of_first()
    if bus is None:
        return None, device, "CUDA finds no device, so there is none to ask NVML about"
    if library.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(device)) != 0:
        return None, device, f"NVML does not know CUDA's first device, {bus.decode()}"
    return library, device, ""


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
    library, device, reason = _open()
    if library is None:
        return Reading(reason=reason)

    def get(function: str, kind: type, *arguments: int) -> float | None:
        value = kind()
        call: Callable[..., int] = getattr(library, function)
        return float(value.value) if call(device, *arguments, ctypes.byref(value)) == 0 else None

    uint, wide = ctypes.c_uint, ctypes.c_ulonglong
    asked = {
        "gpu clock [MHz]": get("nvmlDeviceGetClockInfo", uint, GRAPHICS),
        "gpu memory clock [MHz]": get("nvmlDeviceGetClockInfo", uint, MEMORY),
        "gpu temperature [C]": get("nvmlDeviceGetTemperature", uint, 0),
        "gpu power [W]": _scaled(get("nvmlDeviceGetPowerUsage", uint)),
        "gpu power limit [W]": _scaled(get("nvmlDeviceGetEnforcedPowerLimit", uint)),
    }
    values: dict[str, float | str] = {name: value for name, value in asked.items() if value is not None}
    mask = get("nvmlDeviceGetCurrentClocksThrottleReasons", wide)
    if mask is not None:
        values["gpu throttle reasons"] = ", ".join(n for bit, n in THROTTLE.items() if int(mask) & bit) or "none"
    energy = _scaled(get("nvmlDeviceGetTotalEnergyConsumption", wide))
    return Reading(values, {"NVML whole GPU": energy} if energy is not None else {})


def _scaled(milli: float | None) -> float | None:
    return None if milli is None else milli / 1e3
