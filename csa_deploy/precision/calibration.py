"""One pass over the calibration data: statistics of every activation, with the audit of what they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import logging
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from csa_deploy.data.base import Batch, Dataset
from csa_deploy.errors import UsageError
from csa_deploy.graph.light import large_weights, without
from csa_deploy.precision.calibration_data import require_enough
from csa_deploy.precision.histogram import BINS, Histogram
from csa_deploy.precision.observer import RangeObserver
from csa_deploy.precision.thresholds import METHODS, Method, threshold
from csa_deploy.workspace import key_of, write_atomic

_LOG = logging.getLogger(__name__)
_SAVE_EVERY = 10.0  # seconds between two saves of an unfinished pass
FORMAT = 3


@dataclass(frozen=True)
class Key:
    """What statistics depend on. Equal keys mean equal statistics; see :meth:`differences`."""

    graph: str
    data: str
    preprocessing: str
    tensors: str

    def differences(self, other: Key) -> tuple[str, ...]:
        """Names of the parts that differ."""
        return tuple(f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(other, f.name))


@dataclass
class Statistics:
    """Statistics of activations over a number of images.

    Attributes:
        key: what they were taken of.
        histograms: by tensor that can be INT8.
        ranges: largest absolute value by other tensor; see :class:`RangeObserver`.
        images: number of images.
        skipped: files that could not be read, with the reason.
        labels: images per class index; empty for data without labels.
        provider: what executed the graph.
    """

    key: Key
    histograms: dict[str, Histogram]
    ranges: dict[str, float]
    images: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    provider: str = ""

    @property
    def largest(self) -> dict[str, float]:
        """Largest absolute value of every observed tensor."""
        return {**self.ranges, **{name: h.amax for name, h in self.histograms.items()}}

    def count(self, batch: Batch) -> None:
        """Count the images of a batch, and their classes."""
        self.images += len(batch)
        for label in batch.labels if batch.labels is not None else ():
            self.labels[str(label)] = self.labels.get(str(label), 0) + 1

    def thresholds(self, method: Method) -> dict[str, float]:
        """Largest representable value by tensor. Tensors that were zero throughout are left out."""
        found = {name: threshold(h, method) for name, h in self.histograms.items()}
        return {name: value for name, value in found.items() if value > 0.0}

    def audit(self) -> dict[str, Any]:
        """Per tensor: range, thresholds by method and the share that each clips."""
        tensors = {}
        for name, histogram in self.histograms.items():
            chosen = {method: threshold(histogram, method) for method in METHODS}
            tensors[name] = {
                "largest": histogram.amax,
                "values": histogram.total,
                "constant_zero": histogram.amax == 0.0,
                "thresholds": chosen,
                "clipped": {m: histogram.clipped(t) if m != "minmax" else 0.0 for m, t in chosen.items()},
                "histogram": _coarse(histogram),
            }
        return {"key": dataclasses.asdict(self.key), "images": self.images, "skipped": self.skipped, "tensors": tensors}


def _coarse(histogram: Histogram) -> dict[str, Any]:
    """The histogram in 64 bins, for people."""
    return {"width": histogram.width * (BINS // 64), "counts": histogram.counts.reshape(64, -1).sum(axis=1).tolist()}


def calibrate(
    model: onnx.ModelProto,
    data: Dataset,
    tensors: tuple[str, ...],
    *,
    threads: int | None = None,
    unfinished: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Take statistics in one pass; memory does not depend on the number of images.

    Args:
        model: FP32 graph of static shape.
        data: calibration images.
        tensors: activations to take histograms of.
        threads: of ONNX Runtime.
        unfinished: file in which an interrupted pass goes on. At the end it holds the finished one, for whoever
            removes it when what comes after has succeeded as well.
        progress: called with (images done, images).

    Raises:
        UsageError: an activation is NaN or infinite, the data do not fit the network, or too many cannot be read.
    """
    key = statistics_key(model, data, tensors)
    observer = RangeObserver(model, tensors, threads=threads)
    statistics = Statistics(key, observer.histograms, observer.ranges, provider=observer.provider)
    done = _resume(statistics, data, unfinished)
    saved = time.monotonic()
    batches = data.batches(observer.batch, indices=range(done, len(data)))
    while together := list(itertools.islice(batches, observer.lanes)):
        observer.run([(batch.feed(observer.sampling.shapes), batch.ids) for batch in together])
        for batch in together:
            statistics.count(batch)
        done = together[-1].consumed
        if unfinished and time.monotonic() - saved > _SAVE_EVERY:
            observer.collect()
            statistics.skipped = dict(data.skipped)
            unfinished = _save_quietly(statistics, unfinished, done)
            saved = time.monotonic()
        if progress:
            progress(done, len(data))
    observer.collect()
    statistics.skipped = dict(data.skipped)
    require_enough(data, statistics.images)
    if unfinished:
        _save_quietly(statistics, unfinished, len(data))
    return statistics


def statistics_key(model: onnx.ModelProto, data: Dataset, tensors: tuple[str, ...]) -> Key:
    """The key of the statistics that :func:`calibrate` would take."""
    return Key(
        graph=_hash(model),
        data=data.fingerprint(),
        preprocessing=key_of({"preprocessing": data.preprocessing and data.preprocessing.to_json()}),
        tensors=key_of({"tensors": list(tensors)}),
    )


def _hash(model: onnx.ModelProto) -> str:
    weights = large_weights(model)
    light = without(model, {tensor.name for tensor in weights})
    digest = hashlib.sha256(light.SerializeToString(deterministic=True))
    for tensor in weights:
        digest.update(onnx.numpy_helper.to_array(tensor).ravel().view(np.uint8).data)
    return digest.hexdigest()


def save_statistics(statistics: Statistics, path: Path, *, done: int | None = None) -> None:
    """Write statistics to an ``.npz``; the same statistics give the same bytes.

    Raises:
        OSError: the folder cannot be written.
    """
    described = {
        "format": FORMAT,
        "key": dataclasses.asdict(statistics.key),
        "images": statistics.images,
        "done": done,
        "skipped": statistics.skipped,
        "labels": statistics.labels,
        "provider": statistics.provider,
        "ranges": statistics.ranges,
        "tensors": {name: h.stated() for name, h in statistics.histograms.items()},
    }
    counts = np.stack([h.counts for h in statistics.histograms.values()])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(zipfile.ZipInfo("statistics.json"), json.dumps(described))
        with archive.open(zipfile.ZipInfo("counts.npy"), "w") as stream:
            np.lib.format.write_array(stream, counts, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def load_statistics(path: Path, key: Key) -> Statistics:
    """Read statistics that were taken under ``key``.

    Raises:
        UsageError: no such file, damaged, or taken of another graph, other data or another preprocessing.
    """
    return _load(path, key)[0]


def samples_done(path: Path, key: Key) -> int:
    """How many samples an interrupted pass under ``key`` had read; 0 where there is none."""
    try:
        return _load(path, key)[1] or 0
    except UsageError:
        return 0


def _load(path: Path, key: Key) -> tuple[Statistics, int | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read("statistics.json"))
            with archive.open("counts.npy") as stream:
                counts = np.lib.format.read_array(stream, allow_pickle=False)
        if described["format"] != FORMAT:
            raise ValueError(f"format {described['format']}, this csa-deploy reads {FORMAT}")
        stored = Key(**described["key"])
        tensors = described["tensors"].items()
        histograms = {n: Histogram.of(c, stated) for (n, stated), c in zip(tensors, counts, strict=True)}
        fields = {name: described[name] for name in ("images", "skipped", "labels", "provider", "ranges")}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: no readable calibration statistics ({error})", fix="calibrate again") from None
    if differences := stored.differences(key):
        raise UsageError(
            f"{path}: these calibration statistics are of another {' and another '.join(differences)}",
            fix="calibrate again",
        )
    return Statistics(key=stored, histograms=histograms, **fields), described["done"]


def _resume(statistics: Statistics, data: Dataset, unfinished: Path | None) -> int:
    """Take over what an interrupted pass over the same data left; returns the number of samples it had read."""
    if unfinished is None or not unfinished.is_file():
        return 0
    try:
        earlier, done = _load(unfinished, statistics.key)
    except UsageError as error:
        _LOG.info("interrupted calibration not resumed: %s", error.message)
        return 0
    for name, histogram in earlier.histograms.items():
        statistics.histograms[name].take(histogram)
    statistics.ranges.update(earlier.ranges)
    statistics.images, statistics.labels = earlier.images, earlier.labels
    data.skipped.update(earlier.skipped)
    _LOG.info("calibration goes on after %d images", statistics.images)
    return done or 0


def _save_quietly(statistics: Statistics, unfinished: Path, done: int) -> Path | None:
    """Save; the file, or None when it cannot be written, which is said once and tried no more."""
    try:
        save_statistics(statistics, unfinished, done=done)
    except OSError as error:
        _LOG.warning("an interrupted calibration could not be resumed: %s cannot be written (%s)", unfinished, error)
        return None
    return unfinished
