"""How far an INT8 graph's arithmetics are apart, module by module: floating point, the GPU's, and DLA's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

import onnx

from csa_deploy.graph.int8_arithmetic import to_integer
from csa_deploy.graph.load import load_model
from csa_deploy.records.arithmetic import ArithmeticDistance, Int8Arithmetic
from csa_deploy.runners.base import Runner
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.verify.candidates import Candidate
from csa_deploy.verify.localize.boundaries import boundaries, modules_of, passes, view_of
from csa_deploy.verify.localize.case import CAP
from csa_deploy.verify.localize.explain import worst_feeds
from csa_deploy.verify.localize.measure import BoundaryError, Feeds, in_arithmetic, typed
from csa_deploy.verify.localize.surgery import expose

if TYPE_CHECKING:
    from csa_deploy.context import Context
    from csa_deploy.data.base import Dataset

Arithmetic = Literal["float", "gpu", "dla"]
_EACH: tuple[Arithmetic, ...] = ("float", "gpu", "dla")
_PAIRS: tuple[tuple[Arithmetic, Arithmetic], ...] = (("float", "gpu"), ("float", "dla"), ("gpu", "dla"))
Errors = dict[tuple[Arithmetic, Arithmetic], BoundaryError]


def compare_arithmetic(
    context: Context, reference: Runner, candidates: Sequence[Candidate], data: Dataset
) -> tuple[Int8Arithmetic, ...]:
    """Compare the arithmetics of every INT8 graph on its worst samples; nothing where floating point was asked for."""
    judged = context.config.int8_arithmetic
    if judged == "float":
        return ()
    found = []
    for candidate in candidates:
        if (
            candidate.precision != "int8"
            or candidate.file is None
            or not isinstance(candidate.runner, OnnxRuntimeRunner)
        ):
            continue
        model = load_model(candidate.file, full_check=False)
        feeds, samples, _ = worst_feeds(reference, candidate, data)
        integer = to_integer(model, judged)
        modules, outputs = distances(model, feeds, context.config.threads)
        found.append(
            Int8Arithmetic(
                candidate.label,
                judged,
                samples,
                len(integer.layers),
                len(integer.fused),
                modules,
                outputs,
                integer.not_modelled,
            )
        )
    return tuple(found)


def arithmetic_notes(found: Sequence[Int8Arithmetic]) -> list[str]:
    """What the console and the report say of it."""
    return [
        note
        for one in found
        for note in (one.statement, f"{one.candidate}: not modelled: {'; '.join(one.not_modelled)}")
    ]


def distances(
    model: onnx.ModelProto, feeds: Sequence[Feeds], threads: int | None, cap: int = CAP
) -> tuple[tuple[ArithmeticDistance, ...], tuple[ArithmeticDistance, ...]]:
    """How far the arithmetics of a Q/DQ graph are apart.

    Args:
        feeds: network inputs, batch by batch.
        threads: of ONNX Runtime.
        cap: bytes that the tensors of a batch may take; if they take more, the samples run several times.

    Returns:
        Per module, of several tensors that leave it the farthest, the farthest module first; and per output.
    """
    view = view_of(model)
    bounds = boundaries(view, modules_of(model), view)
    errors: dict[str, Errors] = {}
    for part in passes(bounds, cap):
        errors |= _errors(model, [bound.tensor for bound in part], feeds, threads)
    outputs = [str(value.name) for value in view.graph.outputs]
    modules: dict[str, list[Errors]] = {}
    for bound in bounds:
        modules.setdefault(bound.module, []).append(errors[bound.tensor])
    rows = [_distance(name, found) for name, found in modules.items()]
    farthest = sorted(rows, key=lambda row: -max(row.gpu_float, row.dla_float, row.dla_gpu))
    return tuple(farthest), tuple(_distance(name, [errors[name]]) for name in outputs if name in errors)


def _distance(name: str, found: Sequence[Errors]) -> ArithmeticDistance:
    return ArithmeticDistance(name, *(max(errors[pair].relative for errors in found) for pair in _PAIRS))


def _errors(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Sequence[Feeds], threads: int | None
) -> dict[str, Errors]:
    """By tensor and pair of arithmetics the difference over all samples."""
    exposed = expose(model, tensors)
    found: dict[str, Errors] = {name: {pair: BoundaryError() for pair in _PAIRS} for name in tensors}
    with ExitStack() as stack:
        runners = {name: stack.enter_context(in_arithmetic(name, threads, exposed)) for name in _EACH}
        for feed in feeds:
            got = {name: runner.run(typed(runner, feed)) for name, runner in runners.items()}
            for name in tensors:
                for first, second in _PAIRS:
                    found[name][first, second].add(got[first][name], got[second][name])
    return found
