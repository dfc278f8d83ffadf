"""The accuracy of what a configuration names, in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.cluster.files import at, travelling
from csa_deploy.cluster.parts import KeptShares
from csa_deploy.cluster.spread import decided_by, require_apart, run_on_cluster
from csa_deploy.cluster.worker import Local, Run
from csa_deploy.data.base import Dataset
from csa_deploy.runners.base import sampling
from csa_deploy.runners.stateful import on_own_state
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.source import load_source
from csa_deploy.tasks.plugins import fingerprints
from csa_deploy.tasks.stock import measured, vision_task
from csa_deploy.verify.evaluate import Count, Evaluation, evaluate
from csa_deploy.verify.subject import BUILT, Subject, open_subject

if TYPE_CHECKING:
    from csa_deploy.config import Config

_KEPT = "shares-evaluate"


@dataclass(frozen=True)
class EvaluationJob:
    """What a worker evaluates.

    Attributes:
        config: names the network.
        batch: samples per step.
        threads: of PyTorch, which Dask's workers start with one; None of a graph.
    """

    config: Config
    data: Dataset
    batch: int
    threads: int | None

    def files(self) -> Sequence[Path]:
        """The graph or the weights, and arrays."""
        return travelling(map(Path, self._sent.values()), [self.data])

    @property
    def _sent(self) -> dict[str, str]:
        given = {"network": self.config.network, "checkpoint": self.config.checkpoint}
        return {key: path for key, path in given.items() if path and (key != "network" or path.endswith(".onnx"))}

    def open(self, stack: ExitStack, local: Local) -> Run:
        """The same network."""
        config = self.config.model_copy(update={key: str(local(Path(path))) for key, path in self._sent.items()})
        subject = open_subject(config)
        stack.enter_context(subject.runner)
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        return Count.of(subject.runner, at(self.data, local), self.batch, *_asked(config, subject, self.data)).share


def evaluate_subject(
    config: Config, subject: Subject, data: Dataset, root: Path, progress: Callable[..., None]
) -> Evaluation:
    """By labels, and by the metrics of the task and of the user.

    Args:
        subject: what is evaluated, its runner entered.
        data: labelled.
        root: workspace, in which shares of an interrupted run on a cluster are kept.
        progress: called with (done, total), on a cluster also with what that is.

    Raises:
        UsageError: see :func:`evaluate`; on a cluster an engine or frames of sequences.
        EnvironmentLacksError: there is no such cluster, or a worker does not fit.
    """
    runner = on_own_state(subject.runner, config)
    batch = sampling(runner).batch or config.batch or 1
    task, metrics = _asked(config, subject, data)

    def spread(count: Count) -> None:
        require_apart("a frame of a sequence rests on those before it" if config.state else None)
        built = config.network.endswith(BUILT)
        require_apart(f"{config.network} is not run by ONNX Runtime or PyTorch" if built else None)
        threads = runner.host_threads if isinstance(runner, TorchRunner) else None
        job = EvaluationJob(config, data, batch, threads or None)
        source = load_source(config.network).fingerprint()
        key = decided_by(job, config, source=source, metrics=fingerprints(config.code))
        run_on_cluster(str(config.cluster), job, count, KeptShares(root / _KEPT, key), progress)

    run = spread if config.cluster else None
    return evaluate(runner, data, batch, progress, task, metrics, subject.changed, run)


def _asked(config: Config, subject: Subject, data: Dataset) -> Any:
    """How outputs are read, and the metrics of the task."""
    classes = subject.preprocessing.classes if subject.preprocessing else ()
    task = vision_task(config, classes or data.classes, subject.postprocessing)
    return task, measured(config, task)
