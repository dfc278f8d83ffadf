"""The reference itself: what it is, whether its own answers make sense, and FP64 as the judge between FP32 backends."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from csa_deploy.export.compare import max_error
from csa_deploy.metrics.intervals import share
from csa_deploy.records.verify import Arbitration, OwnAccuracy
from csa_deploy.runners.base import Runner, run_padded
from csa_deploy.runners.exact_runner import ExactRunner
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.torch_runner import TorchRunner, torch_runner
from csa_deploy.spec import TensorSpec
from csa_deploy.verify.results import OutputColumns

if TYPE_CHECKING:
    from csa_deploy.context import Context
    from csa_deploy.network import Preprocessing
    from csa_deploy.verify.candidates import Candidate


def open_reference(context: Context) -> tuple[Runner, Preprocessing | None]:
    """The PyTorch module, or the source graph where there is none; and the preprocessing that belongs to it."""
    if context.source.kind == "onnx":
        path = context.path(context.graphs()["exported"])
        runner = OnnxRuntimeRunner(path, threads=context.comparing.threads, spin=False, name="source graph")
        return runner, context.preprocessing
    network = context.make_network(context.export.sample)
    return torch_runner(network, context.comparing.threads), network.preprocessing


def own_accuracy(output: OutputColumns, labels: Sequence[int], *, trained: bool) -> OwnAccuracy | None:
    """The reference's accuracy; None without labels or classes."""
    if not labels or not output.classes:
        return None
    predicted, wanted = output.columns["reference_class"].astype(int), np.asarray(labels)
    hits = int((predicted == wanted).sum())
    interval = share(hits, len(wanted))
    shift = None
    for step in (-1, 1):
        moved = share(int((predicted == (wanted + step) % output.classes).sum()), len(wanted))
        if moved[0] > interval[1]:
            shift = step
    return OwnAccuracy(hits / len(wanted), interval, 1 / output.classes, trained, shift)


def arbitrate(
    reference: Runner,
    candidates: Sequence[Candidate],
    feeds: Mapping[str, Mapping[str, np.ndarray]],
    graph: Path | None = None,
) -> tuple[list[Arbitration], str]:
    """Run the worst sample of every FP32 candidate in FP64.

    Args:
        reference: entered.
        candidates: entered.
        feeds: inputs of the worst samples by identity.
        graph: the reference's file, where it is an ONNX graph.

    Returns:
        The judgements, or none and the reason why FP64 is impossible.
    """
    if not feeds:
        return [], ""
    try:
        double = _in_double(reference, graph)
        found = []
        for sample, feed in feeds.items():
            exact, ours = run_padded(double, _cast(feed)), run_padded(reference, feed)
            for candidate, output in _worst_on(sample, candidates):
                sides = ours[output], candidate.run(feed)[output]
                errors = [max_error(exact[output], side) for side in sides]
                found.append(Arbitration(candidate.label, sample, output, errors[0], errors[1]))
        return found, ""
    except Exception as error:  # other people's modules may hold FP32 constants, and say so in many ways
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        return [], f"the network does not run in FP64: {said}"


def _worst_on(sample: str, candidates: Sequence[Candidate]) -> list[tuple[Candidate, str]]:
    """Candidates and outputs whose worst sample it is."""
    return [(c, name) for c in candidates for name, m in c.tensors.items() if m.worst(1)[0]["id"] == sample]


def _cast(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a.astype(np.float64) if a.dtype.kind == "f" else a for name, a in feeds.items()}


def _in_double(reference: Runner, graph: Path | None) -> Runner:
    """PyTorch in FP64; for an ONNX graph ONNX's reference, since ONNX Runtime has no FP64 convolutions."""
    if not isinstance(reference, TorchRunner):
        assert graph is not None
        return ExactRunner(graph)
    inputs, outputs = (
        [TensorSpec(s.name, s.shape, s.dtype.replace("float32", "float64")) for s in specs]
        for specs in (reference.input_specs, reference.output_specs)
    )
    module = copy.deepcopy(reference.module).double()
    return TorchRunner(
        module, inputs, reference.output_names, name="torch FP64", outputs=outputs, sample=reference.sample
    )
