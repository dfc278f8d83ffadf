"""What a stage reads of its run: configuration, source, workspace, data, and a way to show progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.errors import CsaDeployError
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.repair import RepairRecord

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.data.base import Dataset
    from csa_deploy.network import Preprocessing
    from csa_deploy.source import Source
    from csa_deploy.spec import Sampling
    from csa_deploy.workspace import Workspace

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

    @property
    def batch(self) -> int:
        """Samples that one inference of the exported graph takes."""
        return self.sampling.batch or 1

    @property
    def sampling(self) -> Sampling:
        """How samples go through the exported graph."""
        from csa_deploy.spec import sampling_of

        export = self.export
        return sampling_of(export.inputs, export.outputs)

    @property
    def export(self) -> ExportRecord:
        """What the export states."""
        return self.workspace.read(ExportRecord)

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
        if self.workspace.stage("precision"):
            found.update({p: g["graph"] for p, g in self.workspace.record("precision")["precisions"].items()})
        return found

    @cached_property
    def preprocessing(self) -> Preprocessing | None:
        """Preprocessing that travels in the exported graph's metadata, or None when the graph is no image network."""
        return self.export.preprocessing

    @property
    def data_spec(self) -> str | None:
        """Data set asked for, or the one that belongs to the network."""
        return self.config.data or (self.source.entry.dataset if self.source.entry else None)

    def dataset(self, preprocessing: Any, limit: int | None = None) -> Dataset | None:
        """Open the data set with ``limit`` samples, or as many as are configured; None when there is no data set."""
        from csa_deploy.data.dataset import open_dataset

        if self.data_spec is None:
            return None
        entry, config = self.source.entry, self.config
        task = config.task or (entry.task if entry else None)
        limit = limit or config.samples
        return open_dataset(self.data_spec, preprocessing, limit=limit, seed=config.seed, task=task)

    def data_fingerprint(self, limit: int | None = None) -> str | None:
        """Hash of the samples of :meth:`dataset`: files may change under the same name.

        None before the export, which says how they are read, and where they cannot be opened: whoever needs them says
        why.
        """
        if self.data_spec is None or not self.workspace.stage("export"):
            return None
        try:
            dataset = self.dataset(self.preprocessing, limit)
            return dataset.fingerprint() if dataset else None
        except (CsaDeployError, OSError):
            return None
