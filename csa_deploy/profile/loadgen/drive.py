"""A network under MLPerf's load generator: it sends queries and takes the times, the network answers.

``mlperf_loadgen`` comes in two kinds of the same name. That of MLPerf Automotive (github.com/mlcommons/
mlperf_automotive, ``loadgen/``) has the scenario ``ConstantStream`` and sends the frames itself. That of MLPerf
Inference, the one on PyPI, has none (6.0.17): there the frames go through its ``SingleStream``, and the network's side
holds the next query back until its frame is due. A late frame does not shift those after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from csa_deploy.profile.loadgen.logs import pack_trace
from csa_deploy.profile.loadgen.samples import SampleLibrary, SentSamples
from csa_deploy.profile.loadgen.settings import MODEL_NAME, SCENARIO_NAMES, LoadgenSettings
from csa_deploy.spec import Arrays, TensorSpec

_USER_CONF, _AUDIT_CONFIG = "user.conf", "audit.config"
_LEAST_WARMUP, _LEAST_WARMUP_NS = 5, 200_000_000


class Answering(Protocol):
    """What a query needs of a :class:`csa_deploy.runners.base.Runner`."""

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Inputs."""

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """Outputs."""

    def run(self, feeds: Arrays) -> Arrays:
        """Execute once."""


class SystemUnderTest:
    """Answers queries one after another; the same in accuracy mode and in the timed run.

    Args:
        runner: entered.
        library: of the samples.
        frame_ns: hold the answer to the next query back until its frame is due; None where the load generator does.
        complete: takes the query and the bytes of all outputs.
    """

    def __init__(
        self,
        runner: Answering,
        library: SampleLibrary,
        frame_ns: int | None,
        complete: Callable[[int, np.ndarray], None],
    ) -> None:
        self._runner, self._library, self._frame_ns, self._complete = runner, library, frame_ns, complete
        self._first: int | None = None
        self._frames = 0

    def issue(self, queries: Sequence[Any]) -> None:
        """Run each query of a load generator's vector."""
        if self._first is None:
            self._first = time.perf_counter_ns()
        for query in queries:
            self._complete(query.id, _joined(self._runner.run(self._library[query.index])))
        if self._frame_ns is not None:
            self._frames += len(queries)
            time.sleep(max(0, self._first + self._frames * self._frame_ns - time.perf_counter_ns()) / 1e9)


def _joined(outputs: Arrays) -> np.ndarray:
    """All outputs as bytes in one piece; of a single output its own memory."""
    flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in outputs.values()]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def sends_frames() -> bool:
    """Whether the installed load generator has a constant stream of its own."""
    import mlperf_loadgen

    return hasattr(mlperf_loadgen.TestScenario, SCENARIO_NAMES["constant-stream"])


def drive(runner: Answering, settings: LoadgenSettings, folder: Path, samples: SentSamples, *, warmup: int) -> None:
    """Run the accuracy mode, then the timed run; the load generator's logs lie in ``accuracy`` and ``performance``.

    Not to be interrupted: the load generator's threads cannot be.

    Args:
        runner: entered; it answers every query.
        settings: of the scenario.
        folder: for the files.
        samples: that queries are about.
        warmup: inferences before anything is timed, at least 5, and for 0.2 s.

    Raises:
        UsageError: a sample cannot be read or does not fit, or there are fewer than the settings ask for.
    """
    wanted = settings.number("performance_sample_count_override")
    library = SampleLibrary(runner.input_specs, runner.output_specs, samples, int(wanted) if wanted else None)
    library.load([0])
    fastest_ns = _warmed(runner, library[0], warmup)
    library.unload([0])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _USER_CONF).write_text(settings.text(), encoding="utf-8")
    asked = _test_settings(settings, folder / _USER_CONF, fastest_ns)
    for mode in ("accuracy", "performance"):
        (folder / mode).mkdir()
        if mode == "performance":
            (folder / mode / _AUDIT_CONFIG).write_text(settings.text(audit=True), encoding="utf-8")
        _run(runner, library, settings, asked, folder / mode)


def _warmed(runner: Answering, feeds: Arrays, warmup: int) -> int:
    """Run untimed; returns the fastest inference in nanoseconds, of which the load generator makes its plan."""
    taken: list[int] = []
    while len(taken) < max(warmup, _LEAST_WARMUP) or sum(taken) < _LEAST_WARMUP_NS:
        start = time.perf_counter_ns()
        runner.run(feeds)
        taken.append(time.perf_counter_ns() - start)
    return min(taken)


def _test_settings(settings: LoadgenSettings, file: Path, fastest_ns: int) -> Any:
    """The load generator's own, read from the file; it needs to know about how fast the network is."""
    import mlperf_loadgen

    asked = mlperf_loadgen.TestSettings()
    asked.FromConfig(str(file), MODEL_NAME, SCENARIO_NAMES[settings.scenario])
    if settings.scenario == "offline":
        asked.scenario = mlperf_loadgen.TestScenario.Offline
        asked.offline_expected_qps = settings.number("target_qps") or 1e9 / fastest_ns
    elif settings.scenario == "single-stream" or not sends_frames():
        asked.scenario = mlperf_loadgen.TestScenario.SingleStream
        asked.single_stream_expected_latency_ns = _expected_ns(settings, fastest_ns)
        asked.single_stream_target_latency_percentile = float(settings.values["target_latency_percentile"]) / 100
    else:
        asked.scenario = mlperf_loadgen.TestScenario.ConstantStream
        asked.server_target_latency_ns = settings.frame_ns  # its frame time as well
        asked.server_target_latency_percentile = float(settings.values["target_latency_percentile"]) / 100
        asked.server_constant_gen = True
    return asked


def _expected_ns(settings: LoadgenSettings, fastest_ns: int) -> float:
    if settings.scenario == "constant-stream":
        return settings.frame_ns
    return 1e6 * (settings.number("target_latency") or 0.0) or fastest_ns


def _run(runner: Answering, library: SampleLibrary, settings: LoadgenSettings, asked: Any, folder: Path) -> None:
    import mlperf_loadgen

    stream = settings.scenario == "constant-stream"

    def complete(query: int, data: np.ndarray) -> None:  # the load generator copies what it keeps
        answer = mlperf_loadgen.QuerySampleResponse(query, data.ctypes.data, data.nbytes)
        mlperf_loadgen.QuerySamplesComplete([answer])

    system = SystemUnderTest(runner, library, settings.frame_ns if stream and not sends_frames() else None, complete)
    modes = mlperf_loadgen.TestMode
    asked.mode = modes.AccuracyOnly if folder.name == "accuracy" else modes.PerformanceOnly
    logs = mlperf_loadgen.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = traced = stream and folder.name == "performance"  # what missed frames are counted from
    under_test = mlperf_loadgen.ConstructSUT(system.issue, lambda: None)
    samples = mlperf_loadgen.ConstructQSL(library.total, library.performance, library.load, library.unload)
    mlperf_loadgen.StartTestWithLogSettings(under_test, samples, asked, logs, str(folder / _AUDIT_CONFIG))
    mlperf_loadgen.DestroyQSL(samples)
    mlperf_loadgen.DestroySUT(under_test)
    if traced:
        pack_trace(folder)
