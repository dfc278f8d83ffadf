"""What is compared with the reference: the graphs and engines of the workspace, and those that the user names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.export.metadata import read_preprocessing
from csa_deploy.graph.facts import stated_types
from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.graph.int8_arithmetic import to_integer
from csa_deploy.graph.load import load_model
from csa_deploy.graph.summation import UNIT_ROUNDOFF
from csa_deploy.metrics.stream import OutputMetrics, SampleTable, measure
from csa_deploy.metrics.task import Measured
from csa_deploy.network import Preprocessing
from csa_deploy.records.split import SplitRecord
from csa_deploy.results import NotMeasured
from csa_deploy.runners.base import Runner, cast_to_inputs, filled, run_padded, sampling
from csa_deploy.runners.chained_runner import CHAINED, SPLIT_FILE, ChainedRunner, open_chain
from csa_deploy.runners.onnxruntime_runner import PROVIDERS, OnnxRuntimeRunner
from csa_deploy.spec import TensorSpec
from csa_deploy.trtexec.engines import engine_runner
from csa_deploy.trtexec.runner import TrtexecRunner
from csa_deploy.verify.batch import Changed, FirstSteps
from csa_deploy.verify.results import CandidateColumns, OutputColumns

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.context import Context

ROUNDED = "every FP16 tensor rounded to FP16, sums inside an operator in FP32"

INTEGER = {
    "gpu": "INT32 sums, one rescale in FP32, halves to even as on the GPU",
    "dla": "INT32 sums, one rescale in FP32, halves away from zero as on DLA",
}


@dataclass
class Candidate:
    """A graph or an engine under comparison, and its metrics so far.

    Attributes:
        precision: whose budget it is held against.
        path: inside the workspace, or as the user gave it.
        preprocessing: what the file itself says its input is; None when it says nothing.
        file: the ONNX graph that it is or was built from.
        outputs: what is kept of every sample, by output; of the tasks' metrics that of all outputs.
        tasks: task metrics to measure.
        first: the first batches that it ran.
    """

    label: str
    precision: str
    path: str
    runner: Runner
    preprocessing: Preprocessing | None = None
    file: Path | None = None
    outputs: dict[str, SampleTable] = field(default_factory=dict)
    tasks: Sequence[Measured] = ()
    first: FirstSteps = field(default_factory=FirstSteps)

    @property
    def tensors(self) -> dict[str, OutputMetrics]:
        """Of ``outputs`` those that are one."""
        return {name: kept for name, kept in self.outputs.items() if isinstance(kept, OutputMetrics)}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for inputs as PyTorch takes them; inputs that are FP16 in this graph are rounded to it."""
        return run_padded(self.runner, cast_to_inputs(self.runner, feeds))

    def run_each(self, steps: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """Outputs of several steps; an engine on a target gets them all at once, as each exchange costs a second."""
        if not isinstance(self.runner, TrtexecRunner):
            return [self.run(feeds) for feeds in steps]
        types = {spec.name: spec.dtype for spec in self.runner.input_specs}
        counts = [len(next(iter(feeds.values()))) for feeds in steps]
        how = sampling(self.runner)
        whole = [how.network(filled(feeds, how.batch or 1)) for feeds in steps]  # as run_padded does
        answers = self.runner.run_all([{n: a.astype(types[n]) for n, a in feeds.items()} for feeds in whole])
        return [
            {n: a[:count] for n, a in how.samples(answer).items()}
            for answer, count in zip(answers, counts, strict=True)
        ]

    def update(self, want: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], ids: Any, targets: Any) -> None:
        """Add a batch."""
        measure(want, got, ids, targets, self.outputs, self.tasks)

    def columns(self) -> CandidateColumns:
        """The metrics of every sample."""
        classes = {name: kept.classes for name, kept in self.tensors.items()}
        outputs = tuple(OutputColumns(n, classes.get(n, 0), kept.columns) for n, kept in self.outputs.items())
        return CandidateColumns(self.label, self.precision, outputs)


def require_same_interface(reference: Runner, candidate: Runner, label: str) -> None:
    """Raise UsageError when names or shapes of inputs or outputs differ, both sides listed; types may differ."""
    for what in ("input", "output"):
        ours, theirs = getattr(reference, f"{what}_specs"), getattr(candidate, f"{what}_specs")
        if {s.name: s.shape for s in ours} != {s.name: s.shape for s in theirs}:
            raise UsageError(
                f"{label}: its {what}s are not the reference's: {label} has {_listed(theirs)}; "
                f"the reference has {_listed(ours)}",
                fix="compare graphs of the same network, exported for the same size and batch",
            )


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{s.name} {[e or '?' for e in s.shape]}" for s in specs)


def collect(context: Context, not_measured: list[NotMeasured]) -> list[Candidate]:
    """All candidates; engines that cannot run here are noted in ``not_measured``, with the reason."""
    found, config = [], context.comparing
    for label, graph in context.graphs().items():
        if label == "exported" and context.source.kind == "onnx":
            continue  # it is the reference
        precision = "fp32" if label == "exported" else label
        found.append(graph_candidate(context.path(graph), label, precision, graph, config))
    if split := context.split:
        chain = chain_runner(split, context.workspace.root, config)
        file = context.path(split.graph)
        preprocessing = read_preprocessing(load_model(file, full_check=False))
        found.append(Candidate(CHAINED, split.precision, SPLIT_FILE, chain, preprocessing, file))
    for precision, engine in context.engines().items():
        path, label = context.path(engine.path), f"engine {precision}"
        built_from = found_file(found, precision)
        try:
            runner = engine_runner(path, engine, config.target, name=label)
            runner.sample = context.export.sample
        except EnvironmentLacksError as error:
            not_measured.append(NotMeasured(label, error.message))
            continue
        found.append(Candidate(label, precision, engine.path, runner, None, built_from))
    names = [Path(given).name for given in config.candidate]
    labels = (given if names.count(name) > 1 else name for given, name in zip(config.candidate, names, strict=True))
    return found + [_named(*named, config) for named in zip(config.candidate, labels, strict=True)]


def found_file(candidates: list[Candidate], label: str) -> Path | None:
    """The graph of a label among the candidates."""
    return next((c.file for c in candidates if c.label == label), None)


def _named(given: str, label: str, config: Config) -> Candidate:
    """A graph that the user names; its label is its file's name, or where two have the same, as it was given."""
    path = Path(given)
    if path.suffix != ".onnx":
        raise UsageError(
            f"{given}: only ONNX graphs can be compared beside the workspace's own graphs and engines",
            fix="name a .onnx file; engines are compared when `csa-deploy build` made them",
        )
    return graph_candidate(path, label, None, given, config)


def graph_candidate(path: Path, label: str, precision: str | None, shown: str, config: Config) -> Candidate:
    """A graph in ONNX Runtime; without a precision the one that its types state."""
    model = load_model(path, full_check=False)
    precision = precision or stated_types(model).precision
    runner = graph_runner(path, model, precision, config, name=label)
    return Candidate(label, precision, shown, runner, read_preprocessing(model), path)


def changed_graph(
    load: Callable[[], onnx.ModelProto], precision: str, config: Config, *, name: str, engine: bool = False
) -> Changed:
    """A graph, to be changed and run as it ran; or that of an engine, whose sums may be in FP16."""

    def opened(model: onnx.ModelProto) -> OnnxRuntimeRunner:
        return graph_runner(model.SerializeToString(), model, precision, config, name=name)

    unit = UNIT_ROUNDOFF["float16" if engine and precision != "fp32" else "float32"]
    return Changed(load, opened, not engine, unit)


def chain_runner(split: SplitRecord, root: Path, config: Config) -> ChainedRunner:
    """The parts of a split network one after another, each as :func:`graph_runner` runs a graph."""

    def opened(path: Path, name: str) -> Runner:
        model = load_model(path, full_check=False)
        return graph_runner(path, model, stated_types(model).precision, config, name=name)

    return open_chain(split, root, opened)


def graph_runner(
    source: Path | bytes, model: onnx.ModelProto, precision: str, config: Config, *, name: str
) -> OnnxRuntimeRunner:
    """A graph in ONNX Runtime: on the CPU with the rounding that its types state, on a GPU as its provider computes.

    Raises:
        EnvironmentLacksError: the configured provider is not here.
    """
    if config.provider == "cpu" and precision != "fp32":
        if precision == "int8" and config.int8_arithmetic != "float":
            model = to_integer(model, config.int8_arithmetic).model
            name = f"{name}: {INTEGER[config.int8_arithmetic]}"
        return rounding_runner(model, threads=config.threads, name=name)
    provider = PROVIDERS[config.provider]
    return OnnxRuntimeRunner(
        source, provider=provider, precision=precision, threads=config.threads, spin=False, name=name
    )


def rounding_runner(model: onnx.ModelProto, *, threads: int | None, name: str) -> OnnxRuntimeRunner:
    """A typed graph in ONNX Runtime, with the rounding that its types state."""
    return OnnxRuntimeRunner(
        keep_rounding(model).SerializeToString(),
        threads=threads,
        optimize=False,
        spin=False,
        name=f"{name}: {ROUNDED}",
    )
