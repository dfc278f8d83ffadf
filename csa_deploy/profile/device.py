"""Engines on this machine's CUDA device: the device's own clock, layers and memory beside the time on the host.

A quantity that could not be measured has its own line with the reason, under the name that it would have had.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from csa_deploy.errors import CsaDeployError
from csa_deploy.profile.engine_layers import map_layers
from csa_deploy.profile.statistics import summarise
from csa_deploy.records.device import EngineLayer, EngineProfile
from csa_deploy.records.profile import LatencySummary
from csa_deploy.results import NotMeasured
from csa_deploy.runners.base import sampling
from csa_deploy.runners.device.timing import DeviceTimer, Spans
from csa_deploy.runners.engine_runner import EngineRunner

T = TypeVar("T")
DEVICE, TRANSFERS, GRAPH = "device", "transfers", "cuda graph"
LAYERS, MEMORY = "layers", "memory on the device"
# What stands in the records of each series besides the host's, which is the engine's own label.
TIMED = {
    DEVICE: "the computation alone, by CUDA events around TensorRT's launches, gaps between them included",
    TRANSFERS: "the same inferences with the copies of inputs and outputs, page-locked memory",
    GRAPH: "the computation alone, by CUDA events around the launch of a CUDA graph",
}
BURST = 10
# An idle GPU lowers its clocks within milliseconds, and takes some tens of them to raise them again.
WARM_MS = 100.0
_LAYERS_METHOD = (
    "TensorRT's profiler in a pass of its own after the timing, as it slows the inference; median over the inferences"
)


@dataclass
class DeviceSubject:
    """An engine's computation by the device's clock; see :class:`csa_deploy.profile.latency.Timed`.

    Attributes:
        timer: an entered one.
        graph: through the CUDA graph.
        spans: of every timed inference.
    """

    name: str
    timer: DeviceTimer
    graph: bool = False
    spans: list[Spans] = field(default_factory=list)
    burst: int = BURST

    @property
    def samples_ms(self) -> list[float]:
        """The computation alone."""
        return [span.compute for span in self.spans]

    def warm(self) -> None:
        """Run untimed, in the way that is timed, until the device has worked long enough for its clocks to rise."""
        worked = 0.0
        while worked < WARM_MS:
            worked += sum(span.total for span in self.timer.time(BURST, graph=self.graph))

    def time(self, iterations: int) -> float:
        """Time a burst of inferences; returns the device's seconds, copies included."""
        self.spans += (found := self.timer.time(iterations, graph=self.graph))
        return sum(span.total for span in found) / 1e3


@dataclass
class OnDevice:
    """One engine that runs here.

    Attributes:
        runner: entered.
        graph: the ONNX file that it was built of.
        prefix: before the label in names of what is timed.
        subjects: what is timed by the device's clock.
    """

    label: str
    runner: EngineRunner
    feeds: Mapping[str, np.ndarray]
    graph: Path
    prefix: str = ""
    subjects: list[DeviceSubject] = field(default_factory=list)
    not_measured: list[NotMeasured] = field(default_factory=list)

    def open(self, held: contextlib.ExitStack) -> None:
        """Make the timer; an engine that cannot be timed so is timed on the host all the same."""
        self._batch = sampling(self.runner).batch or 1  # asked now: an engine tells nothing when it is closed
        try:
            self.runner.run(self.feeds)  # its memory is read here, before the timer takes its own
            timer = held.enter_context(self.runner.timer(self.feeds))
        except CsaDeployError as error:
            self.not_measured += [lacking(self.label, quantity, error.message) for quantity in TIMED]
            return
        self.subjects.append(DeviceSubject(f"{self.prefix}{self.label} {DEVICE}", timer))
        if timer.no_graph:
            self.not_measured.append(lacking(self.label, GRAPH, timer.no_graph))
        else:
            self.subjects.append(DeviceSubject(f"{self.prefix}{self.label} {GRAPH}", timer, graph=True))

    def latency(self) -> dict[str, LatencySummary]:
        """Label of each series -> its statistics."""
        batch, found = self._batch, {}
        for subject in self.subjects:
            found[subject.name.removeprefix(self.prefix)] = summarise(subject.samples_ms, batch=batch)
            if not subject.graph:
                totals = [span.total for span in subject.spans]
                found[f"{self.label} {TRANSFERS}"] = summarise(totals, batch=batch)
        return found

    def inspect(self, *, iterations: int) -> EngineProfile:
        """Layers, in a pass of so many inferences, and memory; each None where it could not be measured."""
        memory = self._try(MEMORY, self.runner.memory)
        if memory is not None and memory.device:
            self.not_measured.append(lacking(self.label, MEMORY, memory.device))
        layers = self._try(LAYERS, lambda: self._layers(iterations))
        return EngineProfile(memory=memory, layers=layers, layers_method=_LAYERS_METHOD, layers_iterations=iterations)

    def _layers(self, iterations: int) -> tuple[EngineLayer, ...]:
        times = self.runner.layer_times(self.feeds, iterations=iterations)
        medians = {name: float(np.median(values)) for name, values in times.items()}
        return tuple(map_layers(medians, json.loads(self.runner.inspection()), self.graph))

    def _try(self, quantity: str, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except CsaDeployError as error:
            self.not_measured.append(lacking(self.label, quantity, error.message))
        except ValueError as error:
            self.not_measured.append(lacking(self.label, quantity, f"TensorRT's inspector gives no JSON: {error}"))
        return None


def lacking(label: str, quantity: str, reason: str) -> NotMeasured:
    """A line about a quantity of an engine that was not measured."""
    return NotMeasured(f"{label} {quantity}", reason)


def nothing_of(label: str, message: str) -> list[NotMeasured]:
    """The lines about an engine that does not run here: one for the engine's latency, one for each other quantity."""
    reason = message.partition(" cannot run: ")[2] or message
    return [
        NotMeasured(label, reason),
        *(lacking(label, quantity, reason) for quantity in (*TIMED, LAYERS, MEMORY)),
    ]
