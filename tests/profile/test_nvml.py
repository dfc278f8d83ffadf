"""NVML's readings, from stand-ins of the driver's libraries: which device is asked, and in which units it answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pynvml")

CUDA = """
#include <string.h>
int cuInit(unsigned f) { return 0; }
int cuDeviceGet(int *d, int i) { *d = 7; return DEVICES ? 0 : 100; }
int cuDeviceGetPCIBusId(char *s, int n, int d) { strncpy(s, d == 7 ? "0000:65:00.0" : "other", n); return 0; }
"""
NVML = """
#include <string.h>
int nvmlInitWithFlags(unsigned f) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *s, void **d) { *d = (void *)9; return strcmp(s, "0000:65:00.0"); }
int nvmlDeviceGetClockInfo(void *d, int kind, unsigned *v) { *v = kind ? 2619 : 1980; return d != (void *)9; }
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *v) { *v = 41; return 0; }
int nvmlDeviceGetPowerUsage(void *d, unsigned *v) { *v = 71500; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned *v) { return 3; }  /* not supported here */
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *v) { *v = 0x24; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *v) { *v = 5000250; return 0; }
"""
READ = """
import json
from csa_deploy.profile.nvml import read
found = read()
print(json.dumps([found.values, found.energy_j, found.reason]))
"""


def reading(folder: Path, devices: int) -> tuple[dict, dict, str]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    for name, source in (("libcuda.so.1", CUDA), ("libnvidia-ml.so.1", NVML)):
        text = folder / f"{name}.c"
        text.write_text(source)
        subprocess.run([compiler, "-shared", "-fPIC", f"-DDEVICES={devices}", "-o", folder / name, text], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=True)
    values, energy, reason = json.loads(done.stdout)
    return values, energy, reason


def test_the_device_that_cuda_takes_first_is_read(tmp_path: Path) -> None:
    values, energy, reason = reading(tmp_path, 1)
    assert values == {
        "gpu clock [MHz]": 1980,
        "gpu memory clock [MHz]": 2619,
        "gpu temperature [C]": 41,
        "gpu power [W]": 71.5,
        "gpu throttle reasons": "software power cap, software thermal slowdown",
    }
    assert energy == {"NVML whole GPU": 5000.25}
    assert reason == ""


def test_a_driver_without_a_device_says_so(tmp_path: Path) -> None:
    assert reading(tmp_path, 0) == ({}, {}, "CUDA finds no device, so there is none to ask NVML about")
