"""Whether what a sample gives depends on the batch that it lies in.

Of the first two batches of a comparison a batch that begins inside the first one is run again, so that every sample
has another place, even ones become odd ones, and most have other neighbours. Then samples are run one at a time, by a
copy of the graph of batch 1. Bitwise the same needs no bound. Otherwise the rounding of sums is measured:
:data:`DRAWS` graphs whose sums round otherwise (see :mod:`csa_deploy.graph.summation`), and a difference counts as
rounding up to the one-sided 99.99 % bound of Student's t on their root mean square, times the square root of 2, since
both sides round. Three runs and Student's t are what stochastic arithmetic takes (J. Vignes, "A stochastic arithmetic
for reliable scientific computation", 1993).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from csa_deploy.errors import CsaDeployError, UsageError
from csa_deploy.graph.rebatch import of_one_sample
from csa_deploy.graph.summation import UNIT_ROUNDOFF, with_other_sums
from csa_deploy.records.batch import BatchConsistency, BatchDifference
from csa_deploy.results import NotMeasured
from csa_deploy.runners.base import Runner, cast_to_inputs, run_batch, sampling
from csa_deploy.runners.stateful import StatefulRunner
from csa_deploy.spec import Arrays, Sampling

DRAWS = 3
STUDENT = 22.204  # one-sided 99.99 % quantile of Student's t with DRAWS degrees of freedom
_STEPS = 2
ALONE = 4  # samples that are run one at a time

Step = tuple[Sequence[str], Arrays, Arrays]
"""Identities of samples, what was fed, and what came out."""


@dataclass
class FirstSteps:
    """The first full batches that went through a network: (N, ...) fed, (N, ...) out."""

    steps: list[Step] = field(default_factory=list)

    def add(self, ids: Sequence[str], feeds: Arrays, outputs: Arrays) -> None:
        """Keep a step, as long as there are too few."""
        if len(self.steps) < _STEPS:
            self.steps.append((tuple(ids), feeds, outputs))


@dataclass(frozen=True)
class Changed:
    """A graph that can be changed and run again as it ran before.

    Attributes:
        graph: loads it.
        open: a runner of the changed graph.
        runs: whether it is what was run; else what ran, an engine, was built from it.
        unit: unit roundoff of the sums of what ran.
    """

    graph: Callable[[], onnx.ModelProto]
    open: Callable[[onnx.ModelProto], Runner]
    runs: bool = True
    unit: float = UNIT_ROUNDOFF["float32"]


def batch_consistency(runner: Runner, first: FirstSteps, changed: Changed | None) -> BatchConsistency:
    """Hold a network against itself in other batches.

    Args:
        runner: entered; what ran.
        first: what went through it.
        changed: its graph; None where there is none.
    """
    how = sampling(runner)
    ids = [identity for step in first.steps for identity in step[0]]
    if reason := _why_not(runner, how, len(ids)):
        return BatchConsistency(how.batch or 1, not_measured=(NotMeasured("other batches", reason),))
    batch = how.batch or len(first.steps[0][0])
    feeds = _joined([step[1] for step in first.steps])
    given = _joined([step[2] for step in first.steps])
    finite = [n for n, a in given.items() if np.isfinite(a).all()]
    ordered = _reordered(len(ids), batch)
    outputs = run_batch(runner, cast_to_inputs(runner, _taken(feeds, ordered)))
    found = list(_differences("another order", ids, ordered, {n: given[n] for n in finite}, outputs))
    alone, missing = "", list[NotMeasured]()
    some = ordered[:ALONE]
    try:
        alone, singles = _alone(runner, changed, feeds, some, dynamic=how.batch is None)
        found += _differences("batch 1", ids, some, {n: given[n] for n in finite}, singles)
    except CsaDeployError as error:
        missing.append(NotMeasured("batch 1", error.message))
    if any(d.difference for d in found):
        try:
            found = _with_rounding(found, changed, _taken(feeds, ordered), outputs)
        except CsaDeployError as error:
            missing.append(NotMeasured("rounding of sums", error.message))
            found = []
        unsaid = {d.output for d in found if d.difference and 0 < d.rounding >= _largest_told(given[d.output])}
        missing += [
            NotMeasured(
                "rounding of sums", f"other sums alone change '{name}' by as much as it is large, which tells nothing"
            )
            for name in sorted(unsaid)
        ]
        found = [item for item in found if item.output not in unsaid]
    return BatchConsistency(batch, len(ordered), tuple(found), alone, tuple(missing))


def _why_not(runner: Runner, how: Sampling, samples: int) -> str:
    if isinstance(runner, StatefulRunner):
        return "samples are frames of a sequence, each rests on those before it"
    if how.kind == "whole":
        return f"one sample is {how.words}"
    if how.batch == 1:
        return "an inference takes one sample, no other lies beside it"
    return "there is one sample" if samples == 1 else ""


def _reordered(samples: int, batch: int) -> list[int]:
    """One batch from inside the first on, repeated where there are too few; the shift is odd and less than a batch."""
    some = [*range(min(batch // 2 | 1, samples - 1), samples)][:batch]
    return [some[i % len(some)] for i in range(batch)]


def _alone(
    runner: Runner, changed: Changed | None, feeds: Arrays, some: Sequence[int], *, dynamic: bool
) -> tuple[str, Arrays]:
    """Outputs of some samples, each run by itself, and how."""
    if dynamic:
        answers = [run_batch(runner, cast_to_inputs(runner, _taken(feeds, [i]))) for i in some]
        return "the same graph at batch 1", _joined(answers)
    if changed is None or not changed.runs:
        raise UsageError(f"{runner.name} takes a batch of {sampling(runner).batch}, no other")
    model, extents = of_one_sample(changed.graph())
    with changed.open(model) as single:
        answers = [single.run(cast_to_inputs(single, _taken(feeds, [i]))) for i in some]
    if kept := [name for name, array in answers[0].items() if len(array) != 1]:
        raise UsageError(f"'{kept[0]}' of a copy for batch 1 still has {len(answers[0][kept[0]])} samples")
    said = f" with {extents} extents restated" if extents else ""
    return f"a copy of the graph for batch 1{said}", _joined(answers)


def _differences(
    against: str, ids: Sequence[str], taken: Sequence[int], given: Arrays, other: Arrays
) -> Iterable[BatchDifference]:
    for name, before in given.items():
        wanted, got = before[list(taken)], other[name]
        if wanted.shape != got.shape:
            yield BatchDifference(name, against, ids[taken[0]], math.inf, 0.0)  # type: ignore[arg-type]
            continue
        sizes = [_size(a, b) for a, b in zip(wanted, got, strict=True)]
        worst = int(np.argmax(sizes))
        yield BatchDifference(name, against, ids[taken[worst]], sizes[worst], 0.0)  # type: ignore[arg-type]


def _size(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.dtype.kind != "f":
        return float(np.count_nonzero(ours != theirs))
    return float(np.nan_to_num(np.abs(ours - theirs).astype(np.float64), nan=np.inf).max(initial=0.0))


def _with_rounding(
    found: Sequence[BatchDifference], changed: Changed | None, feeds: Arrays, given: Arrays
) -> list[BatchDifference]:
    """Every difference with what rounding accounts for in its output."""
    if changed is None:
        raise UsageError("there is no graph whose sums could be changed")
    squares = dict.fromkeys(given, 0.0)
    model, before = changed.graph(), given
    if not changed.runs:  # an engine's own outputs are further away than rounding of its sums
        with changed.open(model) as runner:
            before = run_batch(runner, cast_to_inputs(runner, feeds))
    for seed in range(DRAWS):
        with changed.open(with_other_sums(model, seed, changed.unit)) as runner:
            other = run_batch(runner, cast_to_inputs(runner, feeds))
        for name in squares:
            squares[name] += max(_size(a, b) for a, b in zip(before[name], other[name], strict=True)) ** 2
    bound = {name: STUDENT * math.sqrt(2 * total / DRAWS) for name, total in squares.items()}
    return [replace(item, rounding=bound[item.output]) for item in found]


def _largest_told(output: np.ndarray) -> float:
    """The rounding from which on a difference tells nothing, in the measure of :func:`_size`."""
    if output.dtype.kind != "f":
        return math.prod(output.shape[1:])
    return float(np.sqrt(np.mean(np.square(output, dtype=np.float64))))


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _taken(feeds: Arrays, places: Sequence[int]) -> Arrays:
    return {name: array[list(places)] for name, array in feeds.items()}
