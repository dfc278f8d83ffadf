"""One candidate whose error is to be explained: its graphs, its inputs, and how finely it can be cut."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from csa_deploy.metrics.stream import SampleTable, measure
from csa_deploy.metrics.task import Measured
from csa_deploy.runners.base import run_batch
from csa_deploy.verify.gate import judge
from csa_deploy.verify.localize.boundaries import (
    Boundary,
    boundaries,
    modules_of,
    regions,
    renamed,
    view_of,
    within,
)
from csa_deploy.verify.localize.measure import Feeds, Open, in_onnxruntime, typed

CAP = 512 * 2**20
"""Bytes that the boundary tensors of one batch may take, in all graphs together."""

TRIED = 8
_DEPTHS = (None, 6, 5, 4, 3, 2, 1)


@dataclass(frozen=True)
class Cuts:
    """How a graph is divided.

    Attributes:
        modules: module by node name.
        bounds: tensors that leave a module.
        depth: how deep modules are told apart; None for all the way down.
    """

    modules: dict[str, str]
    bounds: list[Boundary]
    depth: int | None = None


@dataclass
class Case:
    """One candidate and what it is compared with.

    Attributes:
        reference: graph of the same network whose tensors have the same names, of the precision to restore to.
        compared_with: the reference's name.
        feeds: network inputs, batch by batch, as the graphs take them.
        samples: identities of the samples in ``feeds``.
        budget: bounds by metric.
        threads: of ONNX Runtime.
        cap: bytes that the boundary tensors of one batch may take.
        survivors: tensors between the layers of an engine; None for a graph, in which every tensor exists.
        open: what executes the candidate and its edited versions; ONNX Runtime if not given.
        tried: modules that are restored one at a time.
        broken: metrics that break the budget over all samples of the comparison.
        tasks: task metrics that the budget may bound.
        targets: what the data set says of the samples, batch by batch; empty where it says nothing.
        until: when to begin nothing more, on the monotonic clock; None for however long it takes.
        not_done: what was left out, and why; grows.
    """

    label: str
    candidate: onnx.ModelProto
    reference: onnx.ModelProto
    compared_with: str
    feeds: Sequence[Feeds]
    samples: tuple[str, ...]
    budget: Mapping[str, float]
    threads: int | None = None
    cap: int = CAP
    survivors: Collection[str] | None = None
    open: Open | None = None
    tried: int = TRIED
    broken: Sequence[str] = ()
    tasks: Sequence[Measured] = ()
    targets: Sequence[Sequence[Any]] = ()
    until: float | None = None
    not_done: list[str] = field(default_factory=list)

    def executes(self) -> Open:
        """What executes the candidate and its edited versions."""
        return self.open or (lambda model: in_onnxruntime(model, self.threads))

    @property
    def late(self) -> bool:
        """Whether the time is spent."""
        return self.until is not None and time.monotonic() >= self.until

    @cached_property
    def _views(self) -> tuple[ir.Model, ir.Model]:
        return view_of(self.reference), view_of(self.candidate)

    def cuts(self) -> Cuts:
        """The finest division whose boundary tensors fit under the memory cap; modules of depth 1 in any case."""
        finest = found = self._cut(modules_of(self.reference), None)
        for depth in _DEPTHS[1:]:
            if within(found.bounds, self.cap):
                break
            found = self._cut(modules_of(self.reference, depth), depth)
        return found if found.modules != finest.modules else finest

    def finer(self, cuts: Cuts, module: str) -> tuple[Cuts, list[Boundary]] | None:
        """The division with one module taken apart all the way down.

        Returns:
            The division and those of its boundaries that are inside the module; None where it has no parts.
        """
        inside = {name for name, around in cuts.modules.items() if around == module}
        deep = modules_of(self.reference)
        mixed = {name: deep[name] if name in inside else around for name, around in cuts.modules.items()}
        parts = {mixed[name] for name in inside}
        if parts == {module}:
            return None
        found = self._cut(mixed, cuts.depth)
        return found, [b for b in found.bounds if b.module in parts]

    def _cut(self, modules: dict[str, str], depth: int | None) -> Cuts:
        reference, candidate = self._views
        bounds = boundaries(reference, modules, candidate, self.survivors)
        if self.survivors is not None:
            modules = regions(reference, modules, bounds)
            bounds = renamed(bounds, reference, modules)
        return Cuts(modules, bounds, depth)

    @cached_property
    def wanted(self) -> list[dict[str, np.ndarray]]:
        """Outputs of the reference graph."""
        with in_onnxruntime(self.reference, self.threads) as runner:
            return [run_batch(runner, feed) for feed in self.feeds]

    def outputs(self, model: onnx.ModelProto) -> dict[str, SampleTable]:
        """How far a graph's outputs are from the reference's."""
        found: dict[str, SampleTable] = {}
        with self.executes()(model) as runner:
            for number, (feed, want) in enumerate(zip(self.feeds, self.wanted, strict=True)):
                answer = run_batch(runner, typed(runner, feed))
                got = {name: answer[name].reshape(array.shape) for name, array in want.items()}
                ids = [str(i) for i in range(len(next(iter(want.values()))))]
                measure(want, got, ids, self.targets[number] if self.targets else None, found, self.tasks)
        return found

    def fails(self, outputs: Mapping[str, SampleTable]) -> bool:
        """Whether the outputs break the budget on these samples; intervals do not matter here."""
        for name, metrics in outputs.items():
            checks = judge(name, metrics.estimates(intervals=False), self.budget)
            if metrics.non_finite or any(check.state == "fail" for check in checks):
                return True
        return False
