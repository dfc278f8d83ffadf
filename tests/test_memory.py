"""Peak memory is that of the process itself; what is free goes back."""

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


FREED = """
from pathlib import Path
from csa_deploy.memory import give_back

def resident():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS"))

pieces = [b"x" * 100_000 for _ in range(1000)]
full, last = resident(), pieces[-1]
del pieces
give_back()
print(full, resident())
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads what a process holds")
def test_what_was_freed_in_pieces_goes_back_to_the_system() -> None:
    answer = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout
    full, after = map(int, answer.split())
    assert after < full - 80_000
