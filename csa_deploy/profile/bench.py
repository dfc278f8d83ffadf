"""What is timed side by side: the graphs and engines of a run, and those of the baseline that it is held against."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csa_deploy.config import Config
from csa_deploy.errors import CsaDeployError, EnvironmentLacksError
from csa_deploy.graph.interface import graph_sampling
from csa_deploy.graph.load import load_model
from csa_deploy.profile.device import WARM_MS, OnDevice, nothing_of
from csa_deploy.profile.latency import Timed, TimedSubject
from csa_deploy.profile.stored import StoredRun
from csa_deploy.records.profile import LatencySummary, TimedEntry
from csa_deploy.records.split import SplitRecord
from csa_deploy.results import NotMeasured
from csa_deploy.runners.base import Runner
from csa_deploy.runners.chained_runner import CHAINED, SPLIT_FILE, open_chain
from csa_deploy.runners.engine_runner import EngineRunner
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.workspace import Workspace

NOT_THE_TARGET = "ONNX Runtime on this machine's CPU: not the target's latency"
FAKE_QUANTIZED = (
    "fake-quantized (floating point, rounded in between) in ONNX Runtime on this machine's CPU: not the target's "
    "latency, and nothing about INT8 there"
)
OTHER_INPUTS = "the baseline takes inputs of another size"
ON_DEVICE = "this machine's CUDA device, host to host with transfers"


@dataclass
class Bench:
    """Open runners of one workspace.

    Attributes:
        config: threads and seed count.
        held: closes the runners.
        prefix: before a label, wherever what is timed needs a name of its own.
        subjects: label -> what is timed on the host.
        engines: those that run on this machine's device.
        contract: what runs, one entry per label.
        not_measured: what does not, and why.
    """

    root: Path
    config: Config
    held: contextlib.ExitStack
    prefix: str = ""
    subjects: dict[str, TimedSubject] = field(default_factory=dict)
    engines: list[OnDevice] = field(default_factory=list)
    contract: list[TimedEntry] = field(default_factory=list)
    not_measured: list[NotMeasured] = field(default_factory=list)

    def open(self, label: str, path: str, backend: str, graph: Path | None) -> None:
        """Add what lies at a path: a graph, the chained parts, or an engine, of which backend and graph are needed.

        Raises:
            UsageError: see :meth:`graph` and :meth:`engine`.
        """
        if path.endswith(".onnx"):
            self.graph(label, path)
        elif label == CHAINED:
            self.chain()
        else:
            assert graph is not None
            self.engine(label, path, backend, graph)

    def graph(self, label: str, path: str) -> None:
        """Add a graph of the workspace.

        Raises:
            UsageError: it does not load.
        """
        runner = OnnxRuntimeRunner(
            self.root / path, threads=self.config.threads, spin=False, name=f"{self.prefix}{label}"
        )
        evidence = FAKE_QUANTIZED if label == "int8" else NOT_THE_TARGET
        self._add(label, path, self.held.enter_context(runner), evidence)

    def chain(self) -> None:
        """Add the parts of the workspace's split network, one after another."""

        def opened(path: Path, name: str) -> Runner:
            return OnnxRuntimeRunner(path, threads=self.config.threads, spin=False, name=name)

        split = Workspace(self.root).read(SplitRecord)
        chain = open_chain(split, self.root, opened)
        chain.name = f"{self.prefix}{CHAINED}"
        evidence = FAKE_QUANTIZED if split.precision == "int8" else NOT_THE_TARGET
        self._add(CHAINED, SPLIT_FILE, self.held.enter_context(chain), evidence)

    def engine(self, label: str, path: str, backend: str, graph: Path) -> None:
        """Add an engine of the workspace, or say why it does not run here.

        Args:
            path: inside the workspace.
            backend: that built it, here.
            graph: what it was built of.

        Raises:
            UsageError: it is not the engine that its passport describes.
        """
        try:
            opened = EngineRunner(self.root / path, backend=backend, name=f"{self.prefix}{label}")
            opened.sample = graph_sampling(load_model(graph, full_check=False)).kind
            runner = self.held.enter_context(opened)
        except EnvironmentLacksError as error:
            self.not_measured += nothing_of(label, error.message)
            return
        feeds = self._add(label, path, runner, ON_DEVICE, WARM_MS)
        self.engines.append(OnDevice(label, runner, feeds, graph, self.prefix))
        self.engines[-1].open(self.held)

    def _add(self, label: str, path: str, runner: Runner, evidence: str, warm_ms: float = 0.0) -> Mapping[str, Any]:
        feeds = random_feeds(runner.input_specs, self.config.seed)
        self.subjects[label] = TimedSubject(runner, feeds, warm_ms=warm_ms)
        self.contract.append(TimedEntry(label=label, path=path, runner=runner.describe(), evidence=evidence))
        return feeds

    def built_of(self, label: str) -> Path | None:
        """The graph that an engine was built of; None of a graph."""
        return next((engine.graph for engine in self.engines if engine.label == label), None)

    @property
    def timed(self) -> list[Timed]:
        """Everything that is timed in turns."""
        return [*self.subjects.values(), *(subject for engine in self.engines for subject in engine.subjects)]

    def latency(self) -> dict[str, LatencySummary]:
        """Label -> statistics, an engine's series side by side."""
        found = {label: subject.summary() for label, subject in self.subjects.items()}
        for engine in self.engines:
            found |= engine.latency()
        return found


def open_baseline(stored: StoredRun, bench: Bench, held: contextlib.ExitStack) -> Bench:
    """Open what a baseline measured, to time it anew beside this run: then both meet the same machine at the same time.

    Left out is what its workspace no longer holds, what does not run here, and what takes other inputs than this run.

    Args:
        bench: of this run.
        held: closes the baseline's runners.
    """
    anew = Bench(stored.root, bench.config, held, prefix="baseline ")
    for entry in stored.measured:
        label, path = entry.label, entry.path
        if label not in bench.subjects or not (stored.root / path).is_file():
            continue
        with contextlib.suppress(CsaDeployError):
            anew.open(label, path, entry.runner["backend"], bench.built_of(label))
    for label, subject in list(anew.subjects.items()):
        if _shapes(subject) != _shapes(bench.subjects[label]):
            del anew.subjects[label]
            anew.engines = [engine for engine in anew.engines if engine.label != label]
            anew.not_measured.append(NotMeasured(label, OTHER_INPUTS))
    return anew


def _shapes(subject: TimedSubject) -> dict[str, Any]:
    return {name: array.shape for name, array in subject.feeds.items()}
