"""A comparison on a cluster: what a worker needs of it, and its parts put together in the order of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy.cluster.files import at, travelling
from csa_deploy.cluster.parts import KeptShares
from csa_deploy.cluster.spread import decided_by, require_apart, run_on_cluster
from csa_deploy.cluster.worker import Local, Run
from csa_deploy.data.base import Dataset
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.verify.candidates import graph_candidate
from csa_deploy.verify.reference import open_reference
from csa_deploy.verify.stream import Stream
from csa_deploy.workspace import MANIFEST, Workspace

if TYPE_CHECKING:
    from csa_deploy.context import Context
    from csa_deploy.network import Preprocessing

_KEPT = "shares-verify"


@dataclass(frozen=True)
class ComparisonJob:
    """What a worker compares.

    Attributes:
        graphs: of every candidate its file, label, precision and the path that is shown.
        datasets: by preprocessing, the reference's first.
        batch: samples per step.
        threads: of PyTorch, which Dask's workers start with one.
    """

    context: Context
    graphs: tuple[tuple[Path, str, str, str], ...]
    datasets: dict[Preprocessing | None, Dataset]
    batch: int
    threads: int | None

    @property
    def data(self) -> Dataset:
        """The reference's."""
        return next(iter(self.datasets.values()))

    def files(self) -> Sequence[Path]:
        """The workspace's records, the graphs, weights and arrays."""
        root = self.context.workspace.root.absolute()
        graphs = (file for file, *_ in self.graphs)
        exported = self.context.path(self.context.export.graph)
        records = sorted((root / "records").glob("*.json"))
        files = [root / MANIFEST, *records, exported, self.context.checkpoint, *graphs]
        return travelling(files, self.datasets.values())

    def open(self, stack: ExitStack, local: Local) -> Run:
        """The same runners."""
        context, config = self.context, self.context.config
        if context.checkpoint is not None:
            config = config.model_copy(update={"checkpoint": str(local(context.checkpoint))})
        context = replace(context, config=config, workspace=Workspace(local(context.workspace.root)))
        reference, preprocessing = open_reference(context)
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        candidates = [
            graph_candidate(local(f), label, p, shown, context.comparing) for f, label, p, shown in self.graphs
        ]
        for candidate in candidates:
            candidate.tasks = context.tasks()
        for runner in (reference, *(c.runner for c in candidates)):
            stack.enter_context(runner)
        datasets = {kind: at(data, local) for kind, data in self.datasets.items()}
        return Stream(datasets.__getitem__, reference, preprocessing, candidates, self.batch).share


def compare_on_cluster(context: Context, stream: Stream) -> None:
    """Compare on all samples, on the workers of the configured cluster.

    Raises:
        UsageError: frames of sequences, or a candidate that is no graph in ONNX Runtime; what one process raises.
        EnvironmentLacksError: there is no such cluster, or a worker does not fit.
    """
    require_apart("a frame of a sequence rests on those before it" if context.export.state else None)
    elsewhere = next((c for c in stream.candidates if not isinstance(c.runner, OnnxRuntimeRunner)), None)
    require_apart(f"'{elsewhere.label}' is no graph in ONNX Runtime" if elsewhere else None)
    job = _job(context, stream)
    code = context.source.fingerprint() if context.source.kind != "onnx" else ""  # a graph is one of the job's files
    key = decided_by(job, context.config, source=code, metrics=context.measured_by)
    run_on_cluster(str(context.config.cluster), job, stream, KeptShares(context.path(_KEPT), key), context.progress)


def _job(context: Context, stream: Stream) -> ComparisonJob:
    sent = replace(context, progress=print, scratch=Path(), notes=[])  # a lambda would be another one each time
    graphs = []
    for candidate in stream.candidates:
        assert candidate.file is not None  # as graphs have
        graphs.append((candidate.file.absolute(), candidate.label, candidate.precision, candidate.path))
    threads = stream.reference.host_threads if isinstance(stream.reference, TorchRunner) else None
    datasets = {kind: stream.open(kind) for kind in stream.kinds}
    return ComparisonJob(sent, tuple(graphs), datasets, stream.batch, threads or None)
