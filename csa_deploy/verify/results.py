"""Stored results: the metrics of every sample in one columnar ``.npz``, enough to judge again without running.

Columns are named ``<candidate>/<output>/<metric>`` (see :func:`column_key`), each of shape (N,), or (N, k) for the
strongest classes, their probabilities and what a task metric keeps (its output is ``all outputs``); ``id`` and, for
labelled data, ``label`` have the same length. ``meta`` is a JSON text: what was compared with what, on which data, and
whether it is complete.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.metrics.metric import Estimate, Kind
from csa_deploy.metrics.stream import worst
from csa_deploy.metrics.table import defined_by, estimates_of, worst_values
from csa_deploy.records.batch import BatchConsistency
from csa_deploy.records.verify import JudgedCandidate, JudgedOutput
from csa_deploy.verify.gate import Check, applicable, deciding, judge, require_outputs, unheld, verdict

SCHEMA_VERSION = 3
SAMPLES = "verify/samples.npz"
PARTIAL = "verify/partial.npz"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputColumns:
    """Metrics of one output of one candidate, a value per sample."""

    name: str
    classes: int
    columns: Mapping[str, np.ndarray]

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Metrics of the whole set, with their intervals."""
        return estimates_of(self.columns)

    @property
    def kinds(self) -> set[Kind]:
        """What the output is, by the metrics that it has."""
        return {metric.of for metric in defined_by(self.columns)}

    def non_finite(self, ids: Sequence[str], column: str = "finite") -> tuple[str, ...]:
        """Identities of the samples with values that are not finite, in either or (``reference_finite``) in one."""
        return tuple(str(ids[i]) for i in np.flatnonzero(self.columns.get(column, np.ones(0)) == 0).tolist())

    def judged(self, ids: Sequence[str]) -> JudgedOutput:
        """Metrics, their intervals and the worst samples."""
        values = {name: estimate.value for name, estimate in self.estimates.items()}
        return JudgedOutput(self.name, self.classes, values, self.estimates, tuple(worst(self.columns, ids)))


@dataclass(frozen=True)
class CandidateColumns:
    """All outputs of one candidate."""

    label: str
    precision: str
    outputs: tuple[OutputColumns, ...]

    def judged(
        self,
        ids: Sequence[str],
        budget: Mapping[str, float],
        asked: Collection[str] = (),
        differs: Mapping[str, tuple[Any, Any]] = {},
        batch: BatchConsistency | None = None,
    ) -> JudgedCandidate:
        """Metrics, checks and verdict; the same from a run and a file.

        Args:
            ids: identity of each sample.
            budget: bounds by metric.
            differs: settings of its preprocessing that are others than the reference's, with both.
            batch: what it gave in other batches.

        Raises:
            UsageError: the budget names an output that is not there.
        """
        require_outputs(budget, [output.name for output in self.outputs], self.precision)
        checks: list[Check] = []
        for output in self.outputs:
            checks += judge(output.name, output.estimates, budget, samples=len(ids), asked=asked)
        checks = applicable([*checks, *unheld(budget, checks, asked)])
        non_finite = {o.name: found[:5] for o in self.outputs if (found := o.non_finite(ids))}
        reference = {o.name: found[:5] for o in self.outputs if (found := o.non_finite(ids, "reference_finite"))}
        outputs = tuple(output.judged(ids) for output in self.outputs)
        return JudgedCandidate(
            label=self.label,
            precision=self.precision,
            verdict="fail" if differs or (batch and batch.broken) else verdict(checks, bool(non_finite)),
            metrics=worst_values([output.metrics for output in outputs]),
            decided_by=deciding(checks, len(outputs)),
            outputs=outputs,
            checks=tuple(check.held() for check in checks),
            non_finite=non_finite,
            reference_non_finite=reference,
            preprocessing_differs=dict(differs),
            batch=batch,
        )


@dataclass(frozen=True)
class Results:
    """A comparison, finished or not.

    Attributes:
        ids: identity of each sample.
        labels: class index of each sample, or None.
        candidates: what was compared with the reference.
        meta: network, data set, reference, total number of samples.
    """

    ids: tuple[str, ...]
    labels: np.ndarray | None
    candidates: tuple[CandidateColumns, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def partial(self) -> str:
        """In words, how much of the data was compared; empty when all of it."""
        total = self.meta.get("total", len(self.ids))
        return "" if len(self.ids) == total else f"partial: {len(self.ids)} of {total} samples"

    def to_bytes(self) -> bytes:
        """The file; equal results give equal bytes."""
        arrays: dict[str, np.ndarray] = {"schema_version": np.asarray(SCHEMA_VERSION), "id": np.asarray(self.ids)}
        if self.labels is not None:
            arrays["label"] = self.labels
        described = []
        for candidate in self.candidates:
            outputs = [{"name": o.name, "classes": o.classes, "columns": list(o.columns)} for o in candidate.outputs]
            described.append({"label": candidate.label, "precision": candidate.precision, "outputs": outputs})
            for output in candidate.outputs:
                arrays.update({column_key(candidate.label, output.name, n): c for n, c in output.columns.items()})
        arrays["meta"] = np.asarray(json.dumps({**self.meta, "candidates": described}, sort_keys=True))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()


def column_key(label: str, output: str, metric: str) -> str:
    """Name of a column in the file; a ``/`` of the label is ``%2F``: output ``b/y`` of ``a`` is not that of ``a/b``."""
    return "/".join((label.replace("%", "%25").replace("/", "%2F"), output, metric))


def stored_results(root: Path) -> Path:
    """The file with a workspace's results: of the last finished comparison, else of one that was interrupted."""
    finished, partial = root / SAMPLES, root / PARTIAL
    if partial.is_file() and not finished.is_file():
        return partial
    if partial.is_file():
        logger.warning("a later comparison was interrupted; its results are in %s, here are those before it", partial)
    return finished


def read_results(path: Path) -> Results:
    """Read stored results.

    Raises:
        UsageError: no such file, no results, or of another schema version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            version = int(file["schema_version"])
            if version != SCHEMA_VERSION:
                raise UsageError(
                    f"{path}: schema version {version}, this csa-deploy reads {SCHEMA_VERSION}", fix="verify again"
                )
            meta = json.loads(str(file["meta"]))
            candidates = tuple(_candidate(file, described) for described in meta.pop("candidates"))
            labels = file["label"] if "label" in file.files else None
            ids = tuple(map(str, file["id"]))
            columns = [v for c in candidates for o in c.outputs for v in o.columns.values()]
            if {len(v) for v in (*columns, *([] if labels is None else [labels]))} - {len(ids)}:
                raise ValueError("columns of unequal length")
            return Results(ids, labels, candidates, meta)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", fix="run `csa-deploy verify` first") from None
    except (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: not the results of a comparison ({error})", fix="verify again") from None


def _candidate(file: Any, described: dict[str, Any]) -> CandidateColumns:
    outputs = tuple(
        OutputColumns(
            o["name"], o["classes"], {n: file[column_key(described["label"], o["name"], n)] for n in o["columns"]}
        )
        for o in described["outputs"]
    )
    return CandidateColumns(described["label"], described["precision"], outputs)
