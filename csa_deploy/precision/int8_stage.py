"""Calibration in the precision stage: the data, the statistics, the audit and what the user must know of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.data.arrays import RANDOM
from csa_deploy.data.base import Dataset
from csa_deploy.data.dataset import require_dataset
from csa_deploy.data.named import NAMED
from csa_deploy.errors import UsageError
from csa_deploy.precision.bounds import complete
from csa_deploy.precision.calibration import Statistics, calibrate, load_statistics, save_statistics, statistics_key
from csa_deploy.precision.calibration_data import (
    RECOMMENDED,
    constant_inputs,
    missing_classes,
    open_calibration,
)
from csa_deploy.precision.dla_placement import place_for_dla, with_every_scale
from csa_deploy.precision.kept import Kept, kept_by
from csa_deploy.precision.leaks import refuse_overlap
from csa_deploy.precision.phases import CALIBRATING, Phases
from csa_deploy.precision.qdq_placement import QdqPlacement, place
from csa_deploy.precision.selection import UNFINISHED_EQUALIZED, UNFINISHED_SEARCH, read_samples
from csa_deploy.precision.spread import calibrate_on_cluster
from csa_deploy.precision.techniques import RANGED_IMAGES, Plan, best_ranges
from csa_deploy.precision.thresholds import METHODS, Method
from csa_deploy.records.precision import Calibration, DlaGraph
from csa_deploy.results import NotMeasured
from csa_deploy.workspace import dump_json

if TYPE_CHECKING:
    import onnx

    from csa_deploy.config import Config
    from csa_deploy.context import Context

_LOG = logging.getLogger(__name__)
STATISTICS = "calibration/statistics.npz"
_UNFINISHED = "calibration/unfinished.npz"
AUDIT = "calibration/audit.json"


@dataclass(frozen=True)
class Calibrated:
    """What calibration gave, and what of the graph stays in floating point whatever it gave."""

    data: Dataset
    placement: QdqPlacement
    statistics: Statistics
    thresholds: dict[str, float]
    method: Method
    kept: Kept
    leaks: tuple[str, ...] = ()
    dla: DlaGraph | None = None

    def describe(
        self, context: Context, artifacts: dict[str, Path]
    ) -> tuple[Calibration, list[str], list[NotMeasured]]:
        """Write statistics and audit; with what is stated, the notes that the user must see and what failed."""
        statistics, config = context.scratch / "statistics.npz", context.config
        save_statistics(self.statistics, statistics)
        artifacts[STATISTICS] = statistics
        classes = context.preprocessing.classes if context.preprocessing else ()
        missing = missing_classes(self.statistics.labels, classes)
        constant = constant_inputs(self.data)
        stated = Calibration(
            data=self.data.name,
            images=self.statistics.images,
            skipped=len(self.statistics.skipped),
            method=self.method,
            tensors=len(self.statistics.histograms),
            constant_inputs=tuple(constant),
            leaks=self.leaks,
            audit=AUDIT,
            statistics=STATISTICS,
        )
        notes = self._notes(context, missing, constant)
        try:
            path = context.scratch / "audit.json"
            path.write_text(dump_json(self._audit(config, missing)))
            artifacts[AUDIT] = path
        except Exception as error:  # the graphs do not need it: what they took is not given up for it
            _LOG.warning("the audit of the calibration is missing, it failed: %s", error)
            _LOG.debug("the audit's failure", exc_info=error)
            reason = f"it failed: {type(error).__name__}: {error}"
            return replace(stated, audit=None), notes, [NotMeasured("audit of the calibration", reason)]
        return stated, notes, []

    def _audit(self, config: Config, missing: list[str]) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "data": self.data.name,
            "random": self.data.name == RANDOM,
            "seed": config.seed,
            "method": self.method,
            "preprocessing": self.data.preprocessing and self.data.preprocessing.to_json(),
            "provider": self.statistics.provider,
            "hashes": self.data.hashes(),
            "classes_missing": missing,
            **self.statistics.audit(),
        }

    def _notes(self, context: Context, missing: list[str], constant: list[str]) -> list[str]:
        notes = [
            f"input '{name}' is the same in all {self.statistics.images} calibration samples: INT8 does not know how "
            "it varies, and may be far off where it does; calibrate on samples as in use"
            for name in constant
        ]
        for note in notes:
            _LOG.warning("%s: %s", self.data.name, note)
        notes += self.leaks
        images = self.statistics.images
        if self.data.name == RANDOM:
            back = training_set(context) or "FOLDER"
            notes.append(
                "calibrated on random numbers: the accuracy in INT8 may be far below what images give; "
                f"the workspace keeps this setting until another is given: --calib {back}"
            )
        if images < RECOMMENDED:
            notes.append(f"calibrated on {images} images; {RECOMMENDED} or more are recommended")
        if missing:
            notes.append(f"no calibration image of {len(missing)} classes, the first is {missing[0]}")
        if skipped := self.statistics.skipped:
            notes.append(f"{len(skipped)} unreadable files were skipped, the first is {next(iter(skipped.values()))}")
        zero = [n for n, h in self.statistics.histograms.items() if h.amax == 0.0 and n not in self.thresholds]
        if zero:
            notes.append(
                f"{len(zero)} activations were zero on every image and stay unquantized, the first is {zero[0]}"
            )
        return notes


def needs_calibration(config: Config) -> bool:
    """INT8 does; FP16 uses it where data are given."""
    return "int8" in config.precision or config.calib is not None


def int8_key(context: Context) -> dict[str, Any]:
    """What decides calibration: settings that matter to nothing else, and the data."""
    config = context.config
    data = _open(context)
    return {
        **context.measured_by,
        "data": data.fingerprint(),
        "preprocessing": data.preprocessing and data.preprocessing.to_json(),
        "method": config.calib_method,
        "seed": config.seed,
        "search": config.search and config.bounds("int8"),
        "techniques": config.techniques,
        **({"target_dla": config.fp16_io} if config.target_dla else {}),
    }


def calibrated(context: Context, model: onnx.ModelProto, phases: Phases) -> Calibrated:
    """Calibrate, or take over the workspace's statistics of the same graph, data and preprocessing.

    Raises:
        UsageError: no calibration data, images that accuracy is measured on, or a graph that cannot be INT8.
    """
    config = context.config
    placement, dla = place_for_dla(model, config.fp16_io) if config.target_dla else (place(model), None)
    data = _open(context)
    leaks = check_overlap(context, data)
    data = context.with_states(data)
    statistics = _statistics(context, model, data, placement.tensors, phases)
    method, kept = config.calib_method, kept_by(config, model)
    if dla is None:
        return Calibrated(data, placement, statistics, statistics.thresholds(method), method, kept, tuple(leaks))
    sizes = complete(model, statistics.largest)
    ranges = {name: with_every_scale(placement, statistics.thresholds(name), sizes) for name in METHODS}
    if config.search:
        feeds = read_samples(data, context.sampling, RANGED_IMAGES).feeds
        method, found = best_ranges(Plan(model, placement, {}, {}), ranges, method, feeds, config.threads)
        dla = replace(dla, ranges=found)
    return Calibrated(data, placement, statistics, ranges[method], method, kept, tuple(leaks), dla)


def check_overlap(context: Context, data: Dataset | None = None) -> list[str]:
    """Refuse calibration images that accuracy is measured on; returns what the user must know of near ones."""
    evaluation = context.dataset(context.preprocessing)
    leaks = refuse_overlap(data or _open(context), evaluation) if evaluation is not None else []
    for leak in leaks:
        _LOG.warning("%s", leak)
    return leaks


def _statistics(
    context: Context, model: onnx.ModelProto, data: Dataset, tensors: tuple[str, ...], phases: Phases
) -> Statistics:
    stored = context.path(STATISTICS)
    if stored.is_file():
        try:
            return load_statistics(stored, statistics_key(model, data, tensors))
        except UsageError as error:
            _LOG.info("calibrating anew: %s", error.message)
    unfinished, progress = context.path(_UNFINISHED), phases.of(CALIBRATING)
    if context.config.cluster:
        calibrate_on_cluster(context, model, data, tensors, unfinished, progress)
    return calibrate(
        model,
        data,
        tensors,
        threads=context.config.threads,
        unfinished=unfinished,
        progress=progress,
    )


def require_calibration(context: Context) -> str:
    """What to calibrate on; raises UsageError where that is nothing, or nothing there."""
    spec = context.config.calib or training_set(context)
    if spec is None:
        raise UsageError(
            f"{context.name}: INT8 needs calibration images",
            fix="give --calib with a folder of images like those in use, an .npz or a named set",
        )
    if spec != RANDOM:
        require_dataset(spec)
    return spec


def _open(context: Context) -> Dataset:
    config = context.config
    spec, shapes = require_calibration(context), context.sampling.shapes
    count, seed, task = config.calib_samples, config.seed, config.task
    sequences = bool(config.state)
    return open_calibration(
        spec, context.preprocessing, shapes, samples=count, seed=seed, task=task, sequences=sequences
    )


def forget_unfinished(context: Context) -> None:
    """Remove what an interrupted run would go on from: everything was written."""
    for name in (_UNFINISHED, UNFINISHED_EQUALIZED, UNFINISHED_SEARCH):
        context.path(name).unlink(missing_ok=True)


def training_set(context: Context) -> str | None:
    """The training part of the named set that accuracy is measured on, else of the network's own."""
    own = context.source.entry.dataset if context.source.entry else None
    return next((name for name in (f"{context.config.data}:train", f"{own}:train") if name in NAMED), None)
