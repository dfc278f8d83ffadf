"""Streams samples through two graphs and keeps, per boundary tensor, a few sums: never the tensors of two samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import onnx

from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.graph.int8_arithmetic import to_integer
from csa_deploy.runners.base import Runner
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.verify.localize.boundaries import Boundary, needed, passes
from csa_deploy.verify.localize.surgery import CLEAN, expose, set_apart

Feeds = Mapping[str, np.ndarray]
Open = Callable[[onnx.ModelProto], AbstractContextManager[Runner]]


class TrueValues(Protocol):
    """Whoever knows the right values of boundary tensors."""

    def values(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Value of each boundary tensor for these network inputs."""


@dataclass
class BoundaryError:
    """Error of one tensor over the samples so far.

    Attributes:
        signal: sum of squares of the reference.
        noise: sum of squares of the error.
        broken: what is wrong beyond an error: a value that is not finite, or another shape.
    """

    signal: float = 0.0
    noise: float = 0.0
    broken: str = ""

    @property
    def relative(self) -> float:
        """Root-mean-square error relative to the reference's root mean square; infinite where broken."""
        if self.broken:
            return math.inf
        return math.sqrt(self.noise / self.signal) if self.signal > 0 else (math.inf if self.noise > 0 else 0.0)

    def add(self, want: np.ndarray, got: np.ndarray) -> None:
        """Add one batch."""
        if want.shape != got.shape:
            self.broken = f"shape {list(got.shape)} instead of {list(want.shape)}"
        elif not np.isfinite(got).all() and np.isfinite(want).all():
            self.broken = "not finite"
        else:
            exact = want.astype(np.float64).ravel()
            error = got.astype(np.float64).ravel() - exact
            self.signal += float(exact @ exact)
            self.noise += float(error @ error)


class GraphSource:
    """Boundary values from the reference graph."""

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], threads: int | None) -> None:
        self.runner = in_onnxruntime(expose(model, tensors), threads)
        self.tensors = tensors

    def values(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """See :class:`TrueValues`."""
        answers = self.runner.run(feeds)
        return {name: answers[name] for name in self.tensors}


@dataclass
class BoundaryErrors:
    """Errors at the boundaries of one candidate.

    Attributes:
        accumulated: tensor -> its error in the candidate as it is.
        added: tensor -> its error when everything before its module is right.
    """

    accumulated: dict[str, BoundaryError] = field(default_factory=dict)
    added: dict[str, BoundaryError] = field(default_factory=dict)


def compare(
    source_of: Callable[[Sequence[str]], TrueValues],
    candidate: onnx.ModelProto,
    bounds: Sequence[Boundary],
    feeds: Sequence[Feeds],
    open_: Open,
    cap: int,
) -> BoundaryErrors:
    """Compare a candidate with the right values at all boundaries.

    Args:
        source_of: who knows the right values of the tensors given.
        candidate: the graph under comparison.
        feeds: network inputs, batch by batch.
        open_: executes edited graphs.
        cap: bytes that the boundary tensors of a batch may take; if they take more, the samples run several times.
    """
    found = BoundaryErrors()
    for own in passes(bounds, cap):
        part = needed(own, bounds)
        one = _compare(source_of([b.tensor for b in part]), candidate, [b.tensor for b in part], feeds, open_)
        found.accumulated.update(one.accumulated)
        found.added.update({b.tensor: one.added[b.tensor] for b in own})
    return found


def _compare(
    source: TrueValues, candidate: onnx.ModelProto, names: list[str], feeds: Sequence[Feeds], open_: Open
) -> BoundaryErrors:
    """Tensors whose shape differs are reported and left out of the second run, which needs values that fit."""
    found = BoundaryErrors({n: BoundaryError() for n in names}, {n: BoundaryError() for n in names})
    with ExitStack() as stack:
        whole = stack.enter_context(open_(expose(candidate, names)))
        apart: Runner | None = None
        for feed in feeds:
            right, got = source.values(feed), whole.run(typed(whole, feed))
            for name in names:
                found.accumulated[name].add(right[name], got[name])
            fitting = [n for n in names if right[n].shape == got[n].shape]
            if apart is None:
                apart = stack.enter_context(open_(set_apart(candidate, fitting)))
            alone = apart.run(typed(apart, {**feed, **{f"{n}{CLEAN}": right[n] for n in fitting}}))
            for name in names:
                found.added[name].add(right[name], alone[name])
    return found


def in_onnxruntime(model: onnx.ModelProto, threads: int | None) -> OnnxRuntimeRunner:
    """The graph in ONNX Runtime, node by node and with the rounding that its types state."""
    return OnnxRuntimeRunner(
        keep_rounding(model).SerializeToString(), threads=threads, optimize=False, spin=False, name="localisation"
    )


def in_arithmetic(
    arithmetic: Literal["float", "gpu", "dla"], threads: int | None, model: onnx.ModelProto
) -> OnnxRuntimeRunner:
    """A Q/DQ graph in ONNX Runtime, as it stands or in the integer arithmetic of an engine."""
    return in_onnxruntime(model if arithmetic == "float" else to_integer(model, arithmetic).model, threads)


def typed(runner: Runner, feeds: Feeds) -> dict[str, np.ndarray]:
    """The inputs that a graph takes, in its types."""
    return {
        s.name: feeds[s.name].astype(s.dtype) if feeds[s.name].dtype.kind == "f" else feeds[s.name]
        for s in runner.input_specs
    }
