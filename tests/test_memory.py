"""Peak memory is that of the process itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from csa_deploy.memory import peak_memory

SCRIPT = "from csa_deploy.memory import peak_memory; held = bytearray({}); print(peak_memory())"


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells a process its own peak")
def test_a_process_does_not_report_its_parents_peak() -> None:
    held = bytearray(300 << 20)
    assert peak_memory() > len(held)
    small, large = (
        int(subprocess.run([sys.executable, "-c", SCRIPT.format(size)], check=True, capture_output=True).stdout)
        for size in (0, 200 << 20)
    )
    assert small < 100 << 20 and small + (190 << 20) < large < len(held)
