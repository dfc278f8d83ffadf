"""Graphs and stand-ins that the engine tests share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for engine_graphs, whatever pytest's import mode
from engine_graphs import conv_graph

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


@pytest.fixture
def make_driver(tmp_path: Path) -> Callable[..., Path]:
    """Compiles a library with the CUDA driver's functions, so that real calls with real argument types are made."""

    def make(*, init: int = 0, count: int = 1) -> Path:
        compiler = shutil.which("cc") or pytest.skip("no C compiler")
        folder = tmp_path / "driver"
        folder.mkdir()
        (folder / "driver.c").write_text(DRIVER_SOURCE)
        library = folder / "libcuda.so.1"
        options = [f"-DINIT={init}", f"-DCOUNT={count}"]
        subprocess.run([compiler, "-shared", "-fPIC", *options, "-o", library, folder / "driver.c"], check=True)
        return library

    return make


@pytest.fixture(scope="session")
def conv_fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conv_graph(tmp_path_factory.mktemp("fp32") / "conv.onnx")


@pytest.fixture(scope="session")
def conv_fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conv_graph(tmp_path_factory.mktemp("fp16") / "conv16.onnx", np.float16)
