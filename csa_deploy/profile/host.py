"""What numbers were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from csa_deploy.engine.device import cuda_state
from csa_deploy.installing import versions
from csa_deploy.records.profile import HostMachine

DISTRIBUTIONS = ("onnxruntime", "numpy", "tensorrt", "tensorrt-rtx", "cuda-bindings", "pycuda")
BOARD = Path("/proc/device-tree/model")  # of Arm boards, whose /proc/cpuinfo does not name the processor


def host() -> HostMachine:
    """CPU, cores, CUDA devices, system, load and versions."""
    state = cuda_state()
    return HostMachine(
        cpu=_cpu(),
        devices=tuple(device.name for device in state.devices),
        cuda_driver=state.driver or state.reason,
        cores=os.cpu_count(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load_average=tuple(round(v, 2) for v in os.getloadavg()),
        versions={name: version for name, version in versions(DISTRIBUTIONS).items() if version is not None},
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    if names or not BOARD.is_file():
        return names[0] if names else platform.processor() or platform.machine()
    return BOARD.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
