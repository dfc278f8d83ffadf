from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from csa_deploy.engine import device

DRIVER_SOURCE = """
#include <string.h>
int cuInit(unsigned f) { return INIT; }
int cuDriverGetVersion(int *v) { *v = 13020; return 0; }
int cuDeviceGetCount(int *c) { *c = COUNT; return 0; }
int cuDeviceGet(int *d, int i) { *d = i + 10; return 0; }
int cuDeviceGetName(char *n, int len, int d) { strncpy(n, "Orin", len); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : 7; return 0; }
int cuDeviceTotalMem_v2(unsigned long *m, int d) { *m = 1ul << 35; return 0; }
int cuGetErrorName(int e, const char **s) { *s = "CUDA_ERROR_NO_DEVICE"; return 0; }
"""


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    device.cuda_state.cache_clear()
    yield
    device.cuda_state.cache_clear()


def stand_in(folder: Path, *, init: int, count: int) -> str:
    """A library with the driver's functions, so that the calls and their argument types are exercised."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    source = folder / "driver.c"
    source.write_text(DRIVER_SOURCE)
    library = folder / "libdriver.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-DINIT={init}", f"-DCOUNT={count}", "-o", library, source], check=True
    )
    return str(library)


def test_devices_are_read_from_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_DRIVER_LIBRARY", stand_in(tmp_path, init=0, count=2))
    state = device.cuda_state()
    assert state.driver == "13.2"
    assert [(d.index, d.name, d.compute_capability, d.memory_bytes) for d in state.devices] == [
        (0, "Orin", "8.7", 2**35),
        (1, "Orin", "8.7", 2**35),
    ]
    assert state.reason == ""
    assert json.loads(json.dumps(state.to_json()))["devices"][0]["name"] == "Orin"


def test_a_driver_without_device_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_DRIVER_LIBRARY", stand_in(tmp_path, init=100, count=0))
    assert device.cuda_state().reason == "no CUDA device: the driver does not answer (cuInit: CUDA_ERROR_NO_DEVICE)"
    assert device.cuda_state().devices == ()


def test_no_driver_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_DRIVER_LIBRARY", "libnot-there.so.1")
    assert "libnot-there.so.1 is not on this machine" in device.cuda_state().reason


def test_a_library_that_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_DRIVER_LIBRARY", "libc.so.6")
    assert "does not answer" in device.cuda_state().reason
