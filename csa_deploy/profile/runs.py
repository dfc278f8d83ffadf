"""Two runs side by side: their stored latencies, or both graphs timed anew, interleaved, on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from csa_deploy.profile.comparison import MINIMUM_EFFECT, Ratio, compare_samples
from csa_deploy.profile.gates import why_not_compared
from csa_deploy.profile.stored import StoredRun, differences
from csa_deploy.results import IF_KNOWN, NotMeasured, Stored, shallow
from csa_deploy.verify.run_comparison import AccuracyComparison

_PERCENTILES = (50.0, 90.0, 95.0, 99.0)
_STORED = "stored samples of two runs, measured at different times"
NOT_IN_BOTH = "not measured in both runs"
ENGINES_STAY = "only graphs are timed anew; compare the stored samples of engines without --measure"
INTERLEAVED = "both graphs timed anew on this machine, interleaved"


@dataclass(frozen=True, kw_only=True)
class LatencyChange(Ratio):
    """The ratio of one graph or engine."""

    label: str


@dataclass(frozen=True, kw_only=True)
class RunComparison(Stored):
    """Two runs.

    Attributes:
        a: folder of the first.
        b: folder of the second.
        method: how their latencies were compared.
        caveats: why these are not alike; None where they were not compared.
        rows: by graph or engine and percentile; likewise.
        accuracy: of both; None where it was not compared.
    """

    derived: ClassVar[tuple[str, ...]] = ("schema_version",)
    schema_version: ClassVar[int] = 1
    a: str
    b: str
    method: str = field(default="", metadata=IF_KNOWN)
    caveats: tuple[str, ...] | None = field(default=None, metadata=IF_KNOWN)
    rows: tuple[LatencyChange, ...] | None = field(default=None, metadata=IF_KNOWN)
    not_compared: tuple[NotMeasured, ...] = ()
    accuracy: AccuracyComparison | None = field(default=None, metadata=IF_KNOWN)


def compare_runs(a: StoredRun, b: StoredRun, *, minimum_effect: float = MINIMUM_EFFECT) -> RunComparison:
    """Compare stored latencies, graph by graph."""
    samples: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        label: (a.latency[label].samples_ms, b.latency[label].samples_ms) for label in a.latency if label in b.latency
    }
    lacking = dict.fromkeys(sorted(set(a.latency) ^ set(b.latency)), NOT_IN_BOTH)
    unlike = differences(a, b)
    if a.network != b.network:
        unlike.insert(0, f"another network: {a.network} and {b.network}")
    return _result(a, b, _STORED, unlike, samples, lacking, minimum_effect)


def compare_interleaved(
    a: StoredRun,
    b: StoredRun,
    *,
    iterations: int,
    threads: int | None,
    minimum_effect: float = MINIMUM_EFFECT,
) -> RunComparison:
    """Time the graphs of both runs anew in turns; engines of stored runs are left out."""
    graphs_a, graphs_b = _graphs(a), _graphs(b)
    labels = [label for label in graphs_a if label in graphs_b]
    samples = {label: _time_both(graphs_a[label], graphs_b[label], iterations, threads) for label in labels}
    others = sorted((set(a.latency) | set(b.latency)) - set(labels))
    lacking = {label: ENGINES_STAY if label.startswith("engine") else NOT_IN_BOTH for label in others}
    return _result(a, b, INTERLEAVED, [], samples, lacking, minimum_effect)


def _graphs(run: StoredRun) -> dict[str, Path]:
    """Graphs that a stored run measured, by label."""
    return {entry.label: run.root / entry.path for entry in run.measured if entry.path.endswith(".onnx")}


def _time_both(a: Path, b: Path, iterations: int, threads: int | None) -> tuple[Sequence[float], Sequence[float]]:
    from csa_deploy.profile.latency import TimedSubject, measure_all
    from csa_deploy.runners.feeds import random_feeds
    from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

    with contextlib.ExitStack() as stack:
        subjects = []
        for path in (a, b):
            runner = stack.enter_context(OnnxRuntimeRunner(path, threads=threads, spin=False, name=path.name))
            feeds = random_feeds(runner.input_specs, 0)
            subjects.append(TimedSubject(runner, feeds))
        measure_all(subjects, iterations=iterations, warmup=5)
    return subjects[0].samples_ms, subjects[1].samples_ms


def _result(
    a: StoredRun,
    b: StoredRun,
    method: str,
    caveats: list[str],
    samples: dict[str, tuple[Sequence[float], Sequence[float]]],
    lacking: dict[str, str],
    minimum_effect: float,
) -> RunComparison:
    rows, not_compared = [], [NotMeasured(label, reason) for label, reason in lacking.items()]
    for label, (a_ms, b_ms) in samples.items():
        for percentile in _PERCENTILES:
            ratio = compare_samples(a_ms, b_ms, percentile=percentile, minimum_effect=minimum_effect)
            if ratio is None:
                reason = why_not_compared(a_ms, b_ms, percentile, ("A", "B"))
                not_compared.append(NotMeasured(f"{label} p{percentile:g}", reason))
                continue
            rows.append(LatencyChange(**shallow(ratio), label=label))
    return RunComparison(
        a=str(a.root),
        b=str(b.root),
        method=method,
        caveats=tuple(caveats),
        rows=tuple(rows),
        not_compared=tuple(not_compared),
    )
