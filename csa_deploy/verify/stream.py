"""Feeds every sample to the reference and to all candidates, and hashes what goes in."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from csa_deploy.cluster.parts import SharePart
from csa_deploy.metrics.stream import OutputMetrics, SampleTable, threshold_of
from csa_deploy.network import Preprocessing
from csa_deploy.runners.base import Runner, free_cores, run_padded, sampling
from csa_deploy.runners.stateful import begin
from csa_deploy.trtexec.runner import TrtexecRunner
from csa_deploy.verify.candidates import Candidate, require_same_interface

if TYPE_CHECKING:
    from csa_deploy.data.base import Batch, Dataset

Open = Callable[[Preprocessing | None], "Dataset"]
Progress = Callable[[int, int], None]
STEPS_ON_TARGET = 100


@dataclass
class Stream:
    """One pass over the data.

    A candidate that states another preprocessing than the reference's gets its inputs made that way: that is what an
    application would do that believes the file. The hashes then differ, which fails the candidate.

    Attributes:
        open: opens the data set for a preprocessing.
        reference: what all are compared with, entered.
        preprocessing: the reference's.
        candidates: entered as well.
        batch: samples per step.
        ids: identities of the samples compared so far.
        labels: their labels, where there are any.
        frames: of sequences their places in their own.
    """

    open: Open
    reference: Runner
    preprocessing: Preprocessing | None
    candidates: list[Candidate]
    batch: int
    ids: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    _digests: dict[Preprocessing | None, bytearray] = field(default_factory=dict)

    @property
    def kinds(self) -> list[Preprocessing | None]:
        """Preprocessings that inputs are made with, the reference's first."""
        return list(dict.fromkeys([self.preprocessing, *(self.given(c) for c in self.candidates)]))

    def run(self, progress: Progress, indices: Sequence[int] | None = None) -> None:
        """Compare on all samples, or on those at these places.

        Raises:
            UsageError: data, labels or a candidate's interface do not fit.
        """
        for candidate in self.candidates:
            require_same_interface(self.reference, candidate.runner, candidate.label)
        kinds = self.kinds
        datasets = [self.open(kind) for kind in kinds]
        shapes = sampling(self.reference).shapes
        together = STEPS_ON_TARGET if any(isinstance(c.runner, TrtexecRunner) for c in self.candidates) else 1
        free = free_cores([self.reference, *(c.runner for c in self.candidates)])
        steps = zip(*(dataset.batches(self.batch, free, indices) for dataset in datasets), strict=True)
        while taken := list(itertools.islice(steps, together)):
            feeds = [
                {kind: self._feed(kind, batch, shapes) for kind, batch in zip(kinds, batches, strict=True)}
                for batches in taken
            ]
            self._steps(feeds, [batches[0] for batches in taken], datasets[0])
            progress(len(self.ids), len(datasets[0]))

    def given(self, candidate: Candidate) -> Preprocessing | None:
        """The preprocessing that a candidate's inputs are made with."""
        return candidate.preprocessing or self.preprocessing

    def digest(self, candidate: Candidate | None = None) -> str:
        """SHA-256 over the SHA-256 of each sample's tensors that went into a candidate, or into the reference."""
        kind = self.given(candidate) if candidate else self.preprocessing
        return hashlib.sha256(self._digests.get(kind, b"")).hexdigest()

    def share(self, indices: Sequence[int]) -> SharePart:
        """The same on some samples alone, which :meth:`add` puts behind those before them."""
        tables: list[dict[str, SampleTable]] = [
            {
                spec.name: OutputMetrics(spec.name, threshold=threshold_of(candidate.tasks), channel_rows=[])
                for spec in self.reference.output_specs
            }
            for candidate in self.candidates
        ]
        candidates = [replace(c, outputs=own) for c, own in zip(self.candidates, tables, strict=True)]
        own = Stream(self.open, self.reference, self.preprocessing, candidates, self.batch)
        own.run(lambda done, total: None, indices)
        return own._part()

    def add(self, part: SharePart) -> None:
        """Put what came of the next samples behind what there is, as if they had run here."""
        ids, arrays = part.facts["ids"], part.arrays
        for place, kind in enumerate(self.kinds):
            self._digests.setdefault(kind, bytearray()).extend(arrays[f"inputs {place}"].tobytes())
        for place, name, classes, columns in part.facts["tables"]:
            candidate, prefix = self.candidates[place], f"{place}/{name}"
            if classes is None:
                table = candidate.outputs.setdefault(name, SampleTable(name))
            else:
                table = candidate.outputs.setdefault(
                    name, OutputMetrics(name, classes=classes, threshold=threshold_of(candidate.tasks))
                )
            table.extend(ids, {column: arrays[f"{prefix}/{column}"] for column in columns})
            if isinstance(table, OutputMetrics) and f"{prefix}//channels" in arrays:
                for signal, noise in arrays[f"{prefix}//channels"]:
                    table.add_channels(signal, noise)
        self.ids += ids
        self.frames += part.facts["frames"]
        self.labels += part.facts["labels"]

    def _part(self) -> SharePart:
        arrays = {f"inputs {n}": np.frombuffer(self._digests[kind], np.uint8) for n, kind in enumerate(self.kinds)}
        tables = []
        for place, candidate in enumerate(self.candidates):
            for name, table in candidate.outputs.items():
                classes = table.classes if isinstance(table, OutputMetrics) else None
                tables.append((place, name, classes, list(table.table)))
                arrays |= {f"{place}/{name}/{column}": np.array(n) for column, n in table.table.items()}
                if isinstance(table, OutputMetrics) and table.channel_rows:
                    arrays[f"{place}/{name}//channels"] = np.array(table.channel_rows)
        return SharePart(arrays, {"ids": self.ids, "frames": self.frames, "labels": self.labels, "tables": tables})

    def _feed(
        self, kind: Preprocessing | None, batch: Batch, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, np.ndarray]:
        feeds = batch.feed(shapes)
        digests = self._digests.setdefault(kind, bytearray())
        for sample in range(len(batch)):
            one = hashlib.sha256()
            for name in sorted(feeds):
                one.update(np.ascontiguousarray(feeds[name][sample]).data)
            digests += one.digest()
        return feeds

    def _steps(
        self,
        feeds: Sequence[Mapping[Preprocessing | None, dict[str, np.ndarray]]],
        batches: Sequence[Batch],
        data: Dataset,
    ) -> None:
        for batch in batches:  # with state there is one
            begin(batch, [self.reference, *(c.runner for c in self.candidates)])
        wanted = [run_padded(self.reference, given[self.preprocessing]) for given in feeds]
        if not self.ids and batches[0].labels is not None:
            classes = [a.shape[1] for a in wanted[0].values() if a.ndim == 2]
            if classes:
                data.check_labels(classes[0])
        answers = [c.run_each([given[self.given(c)] for given in feeds]) for c in self.candidates]
        for step, (want, batch) in enumerate(zip(wanted, batches, strict=True)):
            for candidate, got in zip(self.candidates, answers, strict=True):
                candidate.update(want, got[step], batch.ids, batch.truth)
                candidate.first.add(batch.ids, feeds[step][self.given(candidate)], got[step])
            self.ids += batch.ids
            self.frames += batch.frames
            self.labels += batch.labels.tolist() if batch.labels is not None else []
