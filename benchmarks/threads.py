"""How PyTorch's idle threads wait: the command line's setting against sleeping at once and against OpenMP's default.

An epoch of csa_digits' training has thousands of short parallel regions, so it shows what waiting costs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.pairs import Ratio, measure
from benchmarks.workspaces import CLI

PAIRS = 3
OTHERS = (("threads that sleep at once", "0"), ("OpenMP's default, 300,000 rounds", "300000"))


def run() -> list[Ratio]:
    """One epoch's seconds, alone on the machine and beside another program on each core."""
    return [*_rows("alone", PAIRS), *_beside_others()]


def _rows(where: str, pairs: int) -> Iterator[Ratio]:
    for name, rounds in OTHERS:
        what = f"an epoch of csa_digits on 2 threads, {where}, wall seconds"
        a, b = ("as the command line sets it", partial(_epoch, None)), (name, partial(_epoch, rounds))
        yield measure(what, a, b, pairs)


def _beside_others() -> list[Ratio]:
    with _busy(os.cpu_count() or 1):
        return list(_rows("beside a busy program per core", 1))


def _epoch(rounds: str | None) -> float:
    given = {} if rounds is None else {"GOMP_SPINCOUNT": rounds}
    inherited = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    with tempfile.TemporaryDirectory(prefix="csa-deploy-bench-") as folder:
        options = ["--epochs", "1", "--warmup-epochs", "0", "--threads", "2", "--output", folder, "--log-json"]
        command: list[str | Path] = [CLI, "train", "csa_digits", "--data", "digits", *options]
        done = subprocess.run(command, check=True, env=inherited | given, capture_output=True, text=True)
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return float(next(event for event in events if event["event"] == "trained")["measured"]["seconds"])


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """As many processes that do nothing but compute."""
    others = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()


def _spin() -> None:
    while True:
        pass
