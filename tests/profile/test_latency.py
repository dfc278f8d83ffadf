"""The order of timing: rounds, warm-ups, and what telemetry reads around."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from csa_deploy.profile.latency import TimedSubject, measure_all
from csa_deploy.spec import TensorSpec


@dataclass
class Recorded:
    """Something to time, on a clock of its own: each inference takes 1 ms."""

    name: str
    calls: list[str]
    burst: int = 1
    samples_ms: list[float] = field(default_factory=list)

    def warm(self) -> None:
        self.calls.append(f"warm {self.name}")

    def time(self, iterations: int) -> float:
        self.calls.append(f"{self.name} {iterations}")
        self.samples_ms += [1.0] * iterations
        return iterations / 1e3


def timed(seconds: float | None = None, burst: int = 1) -> tuple[list[str], list[tuple[int, int]]]:
    calls: list[str] = []
    steps: list[tuple[int, int]] = []

    @contextmanager
    def around(subject: Recorded) -> Iterator[None]:
        calls.append(f"read {subject.name}")
        yield
        calls.append(f"read {subject.name}")

    subjects = [Recorded("a", calls, burst), Recorded("b", calls, burst)]
    progress = lambda done, total: steps.append((done, total))  # noqa: E731
    measure_all(subjects, iterations=3, warmup=2, seconds=seconds, around=around, progress=progress)
    return calls, steps


def test_rounds_alternate_and_warm_ups_stay_outside_what_is_read() -> None:
    calls, steps = timed()
    block = {name: [f"warm {name}", f"read {name}", f"{name} 1", f"read {name}"] for name in "ab"}
    assert calls == [
        *("warm a", "warm a", "warm b", "warm b"),
        *(*block["a"], *block["b"], *block["b"], *block["a"], *block["a"], *block["b"]),
    ]
    assert steps[-1] == (6, 6)


def test_seconds_are_spent_in_bursts() -> None:
    calls, _ = timed(seconds=0.03, burst=4)  # 10 ms a block: three bursts of 4 ms
    assert [call for call in calls if call.startswith("a ")] == ["a 4"] * 9


def test_a_host_warm_up_takes_its_time() -> None:
    class Counting:
        name, runs, sample = "counting", 0, None
        input_specs = output_specs = (TensorSpec("x", (1,), "float64"),)

        def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            self.runs += 1
            return {}

    runner = Counting()
    TimedSubject(runner, {"x": np.zeros(1)}).warm()
    assert runner.runs == 1
    start = time.perf_counter()
    TimedSubject(runner, {"x": np.zeros(1)}, warm_ms=20).warm()
    assert time.perf_counter() - start >= 0.02 and runner.runs > 2
