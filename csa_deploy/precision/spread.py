"""Calibration on a cluster: counts are integers and largest values have no order, so their sum is that of one pass."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from csa_deploy.cluster.files import at, travelling
from csa_deploy.cluster.parts import KeptShares, SharePart
from csa_deploy.cluster.spread import decided_by, require_apart, run_on_cluster
from csa_deploy.cluster.worker import Local, Run
from csa_deploy.data.base import Dataset
from csa_deploy.errors import UsageError
from csa_deploy.graph.interface import graph_sampling
from csa_deploy.precision.calibration import Key, Statistics, samples_done, save_statistics, statistics_key
from csa_deploy.precision.histogram import Histogram
from csa_deploy.precision.observer import RangeObserver

if TYPE_CHECKING:
    from csa_deploy.context import Context

_KEPT = "shares-calibration"


@dataclass(frozen=True)
class CalibrationJob:
    """What a worker takes statistics of.

    Attributes:
        model: FP32 graph of static shape.
        data: calibration images.
        tensors: activations to take histograms of.
        batch: samples of one inference.
        threads: of ONNX Runtime.
    """

    model: onnx.ModelProto
    data: Dataset
    tensors: tuple[str, ...]
    batch: int
    threads: int | None

    def files(self) -> Sequence[Path]:
        """Arrays; the graph is in the job."""
        return travelling((), [self.data])

    def open(self, stack: ExitStack, local: Local) -> Run:
        """The same graph under observation."""
        return Observation.of(self, at(self.data, local), Key("", "", "", "")).share


@dataclass
class Observation:
    """Statistics of the samples so far.

    Attributes:
        observer: of the graph.
        data: calibration images.
        statistics: of them; what this process observes itself is brought there by :meth:`finish`.
    """

    observer: RangeObserver
    data: Dataset
    statistics: Statistics

    @classmethod
    def of(cls, job: CalibrationJob, data: Dataset, key: Key) -> Observation:
        """Of which nothing is known yet."""
        observer = RangeObserver(job.model, job.tensors, threads=job.threads)
        return cls(observer, data, _empty(observer, key))

    def run(self, progress: Callable[[int, int], None], indices: Sequence[int]) -> None:
        """Observe the next samples."""
        self._observe(self.statistics, indices)
        self._collect(self.statistics)

    def share(self, indices: Sequence[int]) -> SharePart:
        """The same on some samples alone, which :meth:`add` puts to the others."""
        own, before = _empty(self.observer, self.statistics.key), self.data.skipped
        self.data.skipped = {}
        try:
            self._observe(own, indices)
            skipped = self.data.skipped
        finally:
            self.data.skipped = before
            self._collect(own)  # also what was observed before an error: it is not the next share's
        histograms = own.histograms.values()
        facts = {
            **{"images": own.images, "labels": own.labels, "skipped": skipped, "provider": own.provider},
            **{"histograms": [h.stated() for h in histograms], "ranges": own.ranges},
        }
        return SharePart({"counts": np.stack([h.counts for h in histograms])}, facts)

    def add(self, part: SharePart) -> None:
        """Put what came of other samples to it."""
        facts, whole = part.facts, self.statistics
        for identity, said in facts["skipped"].items():
            self.data.skip(identity, UsageError(said))
        parts = zip(whole.histograms.values(), part.arrays["counts"], facts["histograms"], strict=True)
        for histogram, counts, stated in parts:
            histogram.take(Histogram.of(counts, stated))
        for name, largest in facts["ranges"].items():
            whole.ranges[name] = max(whole.ranges[name], largest)
        whole.images += facts["images"]
        for label, images in facts["labels"].items():
            whole.labels[label] = whole.labels.get(label, 0) + images

    def _observe(self, statistics: Statistics, indices: Sequence[int]) -> None:
        batches, observer = self.data.batches(self.observer.batch, indices=indices), self.observer
        while together := list(itertools.islice(batches, observer.lanes)):
            observer.run([(batch.feed(observer.sampling.shapes), batch.ids) for batch in together])
            for batch in together:
                statistics.count(batch)

    def _collect(self, statistics: Statistics) -> None:
        """Take over what was observed; the observer knows nothing of it then."""
        self.observer.collect()
        for name, histogram in self.observer.histograms.items():
            statistics.histograms[name].take(histogram)
        for name, largest in self.observer.ranges.items():
            statistics.ranges[name] = max(statistics.ranges[name], largest)
            self.observer.ranges[name] = 0.0


def _empty(observer: RangeObserver, key: Key) -> Statistics:
    histograms = {name: Histogram() for name in observer.histograms}
    return Statistics(key, histograms, dict.fromkeys(observer.ranges, 0.0), provider=observer.provider)


def calibrate_on_cluster(
    context: Context, model: onnx.ModelProto, data: Dataset, tensors: tuple[str, ...], unfinished: Path, progress: Any
) -> None:
    """Write the statistics of all samples, taken on the configured cluster, to where :func:`calibrate` goes on from.

    Raises:
        UsageError: frames of sequences; what one process raises.
        EnvironmentLacksError: there is no such cluster, or a worker does not fit.
    """
    require_apart("a frame of a sequence rests on those before it" if context.config.state else None)
    key = statistics_key(model, data, tensors)
    if samples_done(unfinished, key) == len(data):
        return
    job = CalibrationJob(model, data, tensors, graph_sampling(model).batch or 1, context.config.threads)
    seen = Observation.of(job, data, key)
    kept = KeptShares(context.path(_KEPT), decided_by(job, context.config, statistics=dataclasses.asdict(key)))
    run_on_cluster(str(context.config.cluster), job, seen, kept, lambda done, total, said="": progress(done, total))
    seen.statistics.skipped = dict(data.skipped)
    save_statistics(seen.statistics, unfinished, done=len(data))
