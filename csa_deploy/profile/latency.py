"""Times runners: interleaved blocks, every sample kept, telemetry read outside the timed region."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from csa_deploy.profile.statistics import summarise
from csa_deploy.records.profile import LatencySummary
from csa_deploy.runners.base import Runner, sampling

BLOCKS = 10  # rounds over all that is timed


class Timed(Protocol):
    """What :func:`measure_all` times."""

    @property
    def name(self) -> str:
        """For whoever takes readings around its blocks."""

    @property
    def burst(self) -> int:
        """Inferences that are timed at a time where seconds are asked for instead of iterations."""

    @property
    def samples_ms(self) -> list[float]:
        """Of every timed inference, in order."""

    def warm(self) -> None:
        """Run untimed, at least once."""

    def time(self, iterations: int) -> float:
        """Time inferences; returns the sum in seconds."""


@dataclass
class TimedSubject:
    """A runner to time on the host, with what to feed it.

    Attributes:
        runner: an entered runner.
        feeds: per input an array of the network's shape.
        samples_ms: filled by :func:`measure_all`, in order.
        warm_ms: a warm-up takes at least so long.
    """

    runner: Runner
    feeds: Mapping[str, np.ndarray]
    samples_ms: list[float] = field(default_factory=list)
    burst: int = 1
    warm_ms: float = 0.0

    def __post_init__(self) -> None:
        self._batch = sampling(self.runner).batch or 1  # asked now: an engine tells nothing when it is closed

    @property
    def name(self) -> str:
        """The runner's."""
        return self.runner.name

    def warm(self) -> None:
        """Run untimed, at least once."""
        end = time.perf_counter() + self.warm_ms / 1e3
        self.runner.run(self.feeds)
        while time.perf_counter() < end:
            self.runner.run(self.feeds)

    def time(self, iterations: int) -> float:
        """Time inferences one after another, around the whole call on the host; returns the sum in seconds."""
        for _ in range(iterations):
            start = time.perf_counter_ns()
            self.runner.run(self.feeds)
            self.samples_ms.append((time.perf_counter_ns() - start) / 1e6)
        return sum(self.samples_ms[-iterations:]) / 1e3

    def summary(self) -> LatencySummary:
        """See :func:`csa_deploy.profile.statistics.summarise`."""
        return summarise(self.samples_ms, batch=self._batch)


def measure_all(
    subjects: Sequence[Timed],
    *,
    iterations: int,
    warmup: int,
    seconds: float | None = None,
    around: Callable[[Timed], AbstractContextManager[Any]] = lambda subject: nullcontext(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Time several runners in up to ten rounds, every other round in reverse order, so that drift meets all alike.

    Args:
        subjects: what to time; their samples are filled.
        iterations: timed inferences of each.
        warmup: warm-ups of each before the first round; each block starts with one more.
        seconds: time each for so long instead of for ``iterations``, in bursts of the subject.
        around: a context for each block; it begins and ends outside the timed region.
        progress: called with blocks done and in total.
    """
    for subject in subjects:
        for _ in range(warmup):
            subject.warm()
    sizes = [len(part) for part in np.array_split(np.arange(iterations), min(BLOCKS, iterations))]
    for block, size in enumerate(sizes):
        for place, subject in enumerate(subjects if block % 2 == 0 else subjects[::-1]):
            if warmup:
                subject.warm()  # the other network left its data in the caches; outside, as it is no timed inference
            with around(subject):
                if seconds is None:
                    subject.time(size)
                else:
                    _time_for(subject, seconds / len(sizes))
            progress(block * len(subjects) + place + 1, len(sizes) * len(subjects))


def _time_for(subject: Timed, seconds: float) -> None:
    spent = 0.0
    while spent < seconds:
        spent += subject.time(subject.burst)


def measure(
    runner: Runner,
    feeds: Mapping[str, np.ndarray],
    *,
    iterations: int,
    warmup: int,
) -> LatencySummary:
    """Time one runner alone; see :func:`measure_all` and :func:`csa_deploy.profile.statistics.summarise`."""
    subject = TimedSubject(runner, feeds)
    measure_all([subject], iterations=iterations, warmup=warmup)
    return subject.summary()
