"""From a comparison to explanations: which graph each candidate is compared with, module by module, and on what."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from csa_deploy.graph.load import load_model
from csa_deploy.graph.names import named
from csa_deploy.metrics.stream import WHOLE
from csa_deploy.records.localization import Localization
from csa_deploy.results import NotMeasured
from csa_deploy.runners.base import Runner, filled, sampling
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.trtexec.settings import parse_options
from csa_deploy.trtexec.versions import parse_version
from csa_deploy.verify.candidates import Candidate
from csa_deploy.verify.localize.blame import NEGLIGIBLE, STEPS, UNLIMITED, localize, rows_of, these
from csa_deploy.verify.localize.boundaries import values_of, view_of
from csa_deploy.verify.localize.case import CAP, Case
from csa_deploy.verify.localize.engines import FEW, NO_LAYERS, STRONGLY_TYPED, as_engine, shared, surviving
from csa_deploy.verify.localize.measure import Feeds, compare, in_arithmetic, in_onnxruntime
from csa_deploy.verify.localize.torch_source import TorchSource, module_boundaries

if TYPE_CHECKING:
    from csa_deploy.context import Context
    from csa_deploy.data.base import Dataset

_SAMPLES = 4
UNASKED_SECONDS = 60  # to explain failures where --localize was not given
_ENGINE = "engine "
_WEAK = "TensorRT built this weakly typed: a module restored in the graph may still run in another precision"


def explain(
    context: Context,
    reference: Runner,
    candidates: Sequence[Candidate],
    data: Dataset,
    broken: Mapping[str, Sequence[str]],
) -> tuple[list[Localization], list[NotMeasured]]:
    """Explain the errors of candidates on their worst samples; progress goes on where that of the comparison ended.

    Args:
        candidates: to be explained, with their metrics.
        data: that they were compared on.
        broken: by candidate, metrics that break the budget over all samples.

    Returns:
        The explanations, and what was not explained with the reason.
    """
    found, not_done = [], []
    until = None if context.config.localize else time.monotonic() + UNASKED_SECONDS
    total = len(data) + STEPS * len(candidates)
    for number, candidate in enumerate(candidates):

        def advance(done: int, of: int, before: int = len(data) + STEPS * number) -> None:
            context.progress(before + done, total)

        if until is not None and time.monotonic() >= until:
            reason = f"the {UNASKED_SECONDS} s for what was not asked for are spent; {UNLIMITED}"
            not_done.append(NotMeasured(f"layers of {candidate.label}", reason))
            continue
        feeds, samples, targets = worst_feeds(reference, candidate, data)
        assert candidate.file is not None
        model = named(load_model(candidate.file, full_check=False))
        pair = _counterpart(context, candidate, model)
        engine = _engine_settings(context, candidate) if candidate.label.startswith(_ENGINE) else {}
        if isinstance(engine, str):
            not_done.append(NotMeasured(f"layers of {candidate.label}", engine))
        elif pair is not None:
            if candidate.precision == "int8" and not engine:
                engine = {"open": partial(in_arithmetic, context.config.int8_arithmetic, context.config.threads)}
            case = Case(
                candidate.label,
                model,
                pair[1],
                pair[0],
                feeds,
                samples,
                context.config.bounds(candidate.precision),
                context.config.threads,
                tasks=candidate.tasks,
                targets=targets if candidate.tasks else (),
                until=until,
                broken=tuple(dict.fromkeys(broken.get(candidate.label, ()))),
                **engine,
            )
            found.append(localize(case, advance))
        elif isinstance(reference, TorchRunner):
            found.append(_against_torch(candidate.label, model, reference, feeds, samples, context.config.threads))
        else:
            reason = "no graph of the workspace has tensors of the same names"
            not_done.append(NotMeasured(f"layers of {candidate.label}", reason))
    return found, not_done


def _engine_settings(context: Context, candidate: Candidate) -> dict[str, Any] | str:
    """How an engine is cut and run, or the reason why it is not."""
    record = context.engines()[candidate.precision]
    if record.backend != "tensorrt-rtx" and int(record.version.split(".")[0]) < STRONGLY_TYPED:
        return _WEAK
    if record.backend == "trtexec" and parse_options(record.builder_option).weakly_typed(parse_version(record.version)):
        return _WEAK
    survivors = surviving(context.path(record.path))
    if survivors is None:
        return f"{NO_LAYERS}; see the graph that it was built from"
    opened = as_engine(context.config, record, context.scratch)
    return {"survivors": survivors, "open": opened, "tried": FEW}


def unopened(context: Context, not_measured: Sequence[NotMeasured]) -> list[NotMeasured]:
    """Of engines that cannot run here: why their layers are not explained, and where they could be compared."""
    found = []
    for item in not_measured:
        if not item.what.startswith(_ENGINE):
            continue
        precision = item.what.removeprefix(_ENGINE)
        path = context.path(context.engines()[precision].path)
        tensors = shared(path, load_model(context.path(context.graphs()[precision]), full_check=False))
        where = NO_LAYERS if tensors is None else f"its fusions leave {len(tensors)} tensors: {', '.join(tensors)}"
        found.append(NotMeasured(f"layers of {item.what}", f"{item.reason}; {where}"))
    return found


def _counterpart(context: Context, candidate: Candidate, model: onnx.ModelProto) -> tuple[str, onnx.ModelProto] | None:
    """The FP32 graph that shares the most inner tensors with the candidate; the export has none before it."""
    if candidate.label == "exported":
        return None
    graphs = context.graphs()
    if candidate.label == f"{_ENGINE}fp32":  # the engine of a graph against that graph
        return "fp32", model
    names = _tensors(model)
    best: tuple[int, str, onnx.ModelProto] | None = None
    for label in ("exported",) if candidate.label == "fp32" else ("fp32", "exported"):
        other = named(load_model(context.path(graphs[label]), full_check=False))
        shared = len(names & _tensors(other))
        if shared > (best[0] if best else 1):  # the output alone says nothing
            best = shared, label, other
    return (best[1], best[2]) if best else None


def _tensors(model: onnx.ModelProto) -> set[str | None]:
    return {value.name for value in values_of(view_of(model))}


def worst_feeds(
    reference: Runner, candidate: Candidate, data: Dataset
) -> tuple[list[dict[str, np.ndarray]], tuple[str, ...], list[Sequence[Any]]]:
    """Network inputs of the worst samples, in full batches: the last one repeats its last sample; and their targets."""
    how = sampling(reference)
    batch = how.batch or 1
    # Those that lose most of the task come first: they are what a bound on the task breaks by.
    tables = sorted(candidate.outputs.values(), key=lambda table: table.name != WHOLE)
    worst = [w["id"] for table in tables for w in table.worst(_SAMPLES)]
    chosen = data.only(list(dict.fromkeys(worst))[:_SAMPLES])
    feeds: list[dict[str, np.ndarray]] = []
    ids: list[str] = []
    targets: list[Sequence[Any]] = []
    for part in chosen.batches(batch):
        feeds.append(how.network(filled(part.feed(how.shapes), batch)))
        ids += part.ids
        if part.truth is not None:
            targets.append([*part.truth, *[part.truth[-1]] * (batch - len(part))])
    return feeds, tuple(ids), targets


def _against_torch(
    label: str,
    model: onnx.ModelProto,
    reference: TorchRunner,
    feeds: Sequence[Feeds],
    samples: tuple[str, ...],
    threads: int | None,
) -> Localization:
    """The export against PyTorch's own modules; a PyTorch module cannot be restored inside an ONNX graph."""
    bounds = module_boundaries(model, reference)
    makers = {b.tensor: b.module for b in bounds}
    comparison = compare(
        lambda tensors: TorchSource(reference, {t: makers[t] for t in tensors}),
        model,
        bounds,
        feeds,
        lambda edited: in_onnxruntime(edited, threads),
        CAP,
    )
    rows = rows_of(bounds, comparison, {})
    least = 10 * NEGLIGIBLE
    culprits = tuple(row.module for row in rows[:1] if row.error_added > least)
    said = f"{culprits[0]} adds the largest difference" if culprits else f"no module adds a difference above {least:g}"
    said += f" from PyTorch on {these(samples)}"
    reason = "restoring was not tried: a PyTorch module cannot be put into an ONNX graph"
    return Localization(label, "PyTorch", samples, None, rows, culprits, said, (reason,))
