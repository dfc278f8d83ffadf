"""What a stage reads of its run: configuration, source, workspace, data, and a way to show progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.errors import CsaDeployError
from csa_deploy.records.build import BuildRecord, EngineRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.records.repair import RepairRecord
from csa_deploy.records.split import SplitRecord

if TYPE_CHECKING:
    from csa_deploy.boxes import Postprocessing
    from csa_deploy.config import Config
    from csa_deploy.data.base import Dataset
    from csa_deploy.instance import Network
    from csa_deploy.metrics.task import Measured
    from csa_deploy.network import Preprocessing, Sample
    from csa_deploy.source import Source
    from csa_deploy.spec import Arrays, Sampling, TensorSpec
    from csa_deploy.state import StateLink
    from csa_deploy.tasks.task import Task
    from csa_deploy.workspace import Workspace

SMALL_MACS = 50_000_000
"""Multiply-accumulates below which a network computes faster on one thread than threads find to one another.

PyTorch on csa_digits (11 M): 1.2 ms of CPU on one thread and 5.2 ms on two, and the same bits on every machine.
"""

Progress = Callable[..., None]
"""Called with (done, total), and with the part that is under way where a stage has several."""


@dataclass
class Context:
    """What a stage may read: configuration, source, workspace, a scratch directory and a way to show progress."""

    config: Config
    source: Source
    workspace: Workspace
    scratch: Path = Path()
    progress: Progress = lambda done, total, part="": None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.config.task is None and self.source.entry and self.source.entry.task:
            self.config = self.config.model_copy(update={"task": self.source.entry.task})

    @property
    def name(self) -> str:
        """File stem of the network's artifacts."""
        return self.source.name

    @property
    def checkpoint(self) -> Path | None:
        """Checkpoint file, if one was asked for."""
        return Path(self.config.checkpoint) if self.config.checkpoint else None

    @property
    def size(self) -> tuple[int, int] | None:
        """Input size asked for, (height, width)."""
        return self.config.size

    def make_network(self, sample: Sample | None = None) -> Network:
        """The PyTorch network with the weights, size and batch that are asked for; not of an ONNX file.

        Args:
            sample: what one sample of it is; None: as asked for.
        """
        return self.source.make_network(
            input_size=self.size,
            batch=self.config.batch,
            checkpoint=self.checkpoint,
            checkpoint_key=self.config.checkpoint_key,
            sample=sample or self.config.sample,
        )

    @property
    def batch(self) -> int:
        """Samples that one inference of the exported graph takes."""
        return self.sampling.batch or 1

    @property
    def sampling(self) -> Sampling:
        """How samples go through the exported graph."""
        from csa_deploy.spec import sampling_of

        export = self.export
        return sampling_of(export.inputs, export.outputs, export.sample)

    @property
    def export(self) -> ExportRecord:
        """What the export states."""
        return self.workspace.read(ExportRecord)

    @property
    def comparing(self) -> Config:
        """The settings by which networks are compared: on one thread where the network is small, unless asked for."""
        macs = self.export.statistics.macs
        small = self.config.threads is None and macs is not None and macs < SMALL_MACS
        return self.config.model_copy(update={"threads": 1}) if small else self.config

    def engines(self) -> dict[str, EngineRecord]:
        """Engines of the workspace by precision; none where nothing was built."""
        record = self.workspace.find(BuildRecord)
        return record.engines if record else {}

    @property
    def split(self) -> SplitRecord | None:
        """The network in parts, where it is to be split."""
        return self.workspace.find(SplitRecord) if self.config.split else None

    def path(self, relative: str) -> Path:
        """A file of the workspace."""
        return self.workspace.root / relative

    def floating(self) -> OptimizeRecord | RepairRecord:
        """The record of the FP32 graph that precisions and engines are made of: the optimized graph, or with ``fix``
        the repaired one.
        """
        repaired = self.workspace.find(RepairRecord) if self.config.fix else None
        return repaired or self.workspace.read(OptimizeRecord)

    def graphs(self) -> dict[str, str]:
        """Graphs that were made: label -> path inside the workspace. ``exported`` is the plain export."""
        found = {"exported": self.export.graph, "fp32": self.floating().graph}
        if record := self.workspace.find(PrecisionRecord):
            found.update({precision: graph.graph for precision, graph in record.precisions.items()})
        return found

    @cached_property
    def preprocessing(self) -> Preprocessing | None:
        """Preprocessing that travels in the exported graph's metadata, or None when the graph is no image network."""
        return self.export.preprocessing

    @cached_property
    def postprocessing(self) -> Postprocessing | None:
        """How the outputs become boxes, from the exported graph's metadata; None where nobody states it."""
        from csa_deploy.export.metadata import stated_postprocessing

        return stated_postprocessing(self.path(self.export.graph))

    @cached_property
    def task(self) -> Task[Any] | None:
        """How the outputs are read; None of a network that classifies, or of which nobody says what it does."""
        from csa_deploy.tasks.stock import vision_task

        classes = self.preprocessing.classes if self.preprocessing else ()
        return vision_task(self.config, classes, self.postprocessing)

    @property
    def decoding(self) -> dict[str, Any] | None:
        """How outputs become boxes, with the thresholds in force, for passport and bundle; None where nobody says."""
        from csa_deploy.tasks.plugins import fingerprints

        config, own = self.config, self.postprocessing
        thresholds = {"score_threshold": config.score_threshold, "nms_iou": config.nms_iou}
        if config.decode:
            return {"decode": config.decode, "sha256": fingerprints([config.decode])[config.decode], **thresholds}
        return own.with_thresholds(**thresholds).to_json() if own else None

    @property
    def measured_by(self) -> dict[str, Any]:
        """What decides the metrics of a task, for the keys of stages; nothing of a network that classifies."""
        from csa_deploy.tasks.plugins import fingerprints
        from csa_deploy.workspace import sha256_of

        config = self.config
        found = {
            "metrics": fingerprints(config.code),
            "postprocessing": self.postprocessing.to_json() if self.postprocessing else None,
            "state_init": sha256_of(Path(config.state_init)) if config.state_init else None,
            "thresholds": [t for t in (config.score_threshold, config.nms_iou) if t is not None],
        }
        return {name: value for name, value in found.items() if value}

    def tasks(self) -> list[Measured]:
        """The task metrics to measure, reading outputs as this network's are read."""
        from csa_deploy.tasks.stock import measured

        return measured(self.config, self.task)

    @property
    def data_spec(self) -> str | None:
        """Data set asked for, or the one that belongs to the network."""
        return self.config.data or (self.source.entry.dataset if self.source.entry else None)

    def dataset(self, preprocessing: Any, limit: int | None = None) -> Dataset | None:
        """Open the data set with ``limit`` samples, or as many as are configured; None when there is no data set."""
        from csa_deploy.data.dataset import open_dataset

        if self.data_spec is None:
            return None
        config = self.config
        limit = limit or config.samples
        sequences = bool(config.state)
        return open_dataset(
            self.data_spec, preprocessing, limit=limit, seed=config.seed, task=config.task, sequences=sequences
        )

    def with_states(self, data: Dataset) -> Dataset:
        """Frames with the states that the exported graph, FP32, has before them; data as they are without state."""
        from csa_deploy.data.arrays import RANDOM
        from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
        from csa_deploy.runners.stateful import StatesAdded

        export = self.export
        if not export.state or data.name == RANDOM:
            return data
        runner = OnnxRuntimeRunner(self.path(export.graph), threads=self.config.threads, spin=False)
        return StatesAdded(data, runner, export.state, self.initial_state(export.state, export.inputs))

    def initial_state(self, links: Sequence[StateLink], inputs: Sequence[TensorSpec]) -> Arrays:
        """The state at the start of a sequence, by input."""
        from csa_deploy.state import initial_state

        return initial_state(links, inputs, Path(self.config.state_init) if self.config.state_init else None)

    def data_fingerprint(self, limit: int | None = None) -> str | None:
        """Hash of the samples of :meth:`dataset`: files may change under the same name.

        None before the export, which says how they are read, and where they cannot be opened: whoever needs them says
        why.
        """
        if self.data_spec is None or "export" not in self.workspace.stages:
            return None
        try:
            dataset = self.dataset(self.preprocessing, limit)
            return dataset.fingerprint() if dataset else None
        except (CsaDeployError, OSError):
            return None
