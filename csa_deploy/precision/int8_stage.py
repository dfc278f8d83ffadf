"""The INT8 part of the precision stage: calibration, the graph, the audit and TensorRT's cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csa_deploy.data.dataset import require_dataset
from csa_deploy.data.named import NAMED
from csa_deploy.errors import UsageError
from csa_deploy.graph.load import save_model
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.precision.bounds import complete
from csa_deploy.precision.calibration import Statistics, calibrate, load_statistics, save_statistics, statistics_key
from csa_deploy.precision.calibration_data import (
    RANDOM,
    RECOMMENDED,
    CalibrationData,
    missing_classes,
    open_calibration,
    refuse_overlap,
)
from csa_deploy.precision.choice import choose_layers
from csa_deploy.precision.int8 import rest_of, to_int8
from csa_deploy.precision.placement import Placement, place
from csa_deploy.precision.thresholds import LEVELS
from csa_deploy.precision.trt_cache import cache_text
from csa_deploy.workspace import StageOutput, dump_json

if TYPE_CHECKING:
    import onnx

    from csa_deploy.config import Config
    from csa_deploy.pipeline import Context

_LOG = logging.getLogger(__name__)
STATISTICS = "calibration/statistics.npz"
UNFINISHED = "calibration/unfinished.npz"
AUDIT = "calibration/audit.json"


@dataclass(frozen=True)
class Calibrated:
    """What calibration gave."""

    data: CalibrationData
    placement: Placement
    statistics: Statistics
    thresholds: dict[str, float]

    def describe(self, context: Context, output: StageOutput) -> None:
        """Write statistics and audit, and the notes that the user must see."""
        statistics, config = context.scratch / "statistics.npz", context.config
        save_statistics(self.statistics, statistics)
        classes = context.preprocessing.classes if context.preprocessing else ()
        missing = missing_classes(self.statistics.labels, classes)
        audit = {
            "schema_version": 1,
            "data": self.data.name,
            "random": self.data.name == RANDOM,
            "seed": config.seed,
            "method": config.calib_method,
            "preprocessing": self.data.preprocessing,
            "provider": self.statistics.provider,
            "hashes": self.data.hashes(),
            "classes_missing": missing,
            **self.statistics.audit(),
        }
        path = context.scratch / "audit.json"
        path.write_text(dump_json(audit))
        output.artifacts.update({STATISTICS: statistics, AUDIT: path})
        output.record["calibration"] = {
            "data": self.data.name,
            "images": self.statistics.images,
            "skipped": len(self.statistics.skipped),
            "method": config.calib_method,
            "tensors": len(self.statistics.histograms),
            "audit": AUDIT,
            "statistics": STATISTICS,
        }
        output.record["notes"] += self._notes(context, missing)

    def _notes(self, context: Context, missing: list[str]) -> list[str]:
        notes = []
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
        zero = [n for n, h in self.statistics.histograms.items() if h.amax == 0.0]
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
        "data": data.fingerprint(),
        "preprocessing": data.preprocessing,
        "method": config.calib_method,
        "seed": config.seed,
        "search": config.search and config.bounds("int8"),
        "techniques": config.techniques,
    }


def calibrated(context: Context, model: onnx.ModelProto) -> Calibrated:
    """Calibrate, or take over the workspace's statistics of the same graph, data and preprocessing.

    Raises:
        UsageError: no calibration data, images that accuracy is measured on, or a graph that cannot be INT8.
    """
    placement = place(model)
    data = _open(context)
    check_overlap(context, data)
    statistics = _statistics(context, model, data, placement.tensors)
    return Calibrated(data, placement, statistics, statistics.thresholds(context.config.calib_method))


def check_overlap(context: Context, data: CalibrationData | None = None) -> None:
    """Refuse calibration images that accuracy is measured on."""
    evaluation = context.dataset(context.preprocessing)
    if evaluation is not None:
        refuse_overlap(data or _open(context), evaluation)


def _statistics(
    context: Context, model: onnx.ModelProto, data: CalibrationData, tensors: tuple[str, ...]
) -> Statistics:
    stored = context.path(STATISTICS)
    if stored.is_file():
        try:
            return load_statistics(stored, statistics_key(model, data, tensors))
        except UsageError as error:
            _LOG.info("calibrating anew: %s", error.message)
    return calibrate(
        model,
        data,
        tensors,
        threads=context.config.threads,
        unfinished=context.path(UNFINISHED),
        progress=context.progress,
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


def _open(context: Context) -> CalibrationData:
    config = context.config
    spec = require_calibration(context)
    graph = _input_shapes(context)
    return open_calibration(spec, context.preprocessing, graph, samples=config.calib_samples, seed=config.seed)


def training_set(context: Context) -> str | None:
    """The training part of the named set that accuracy is measured on, else of the network's own."""
    own = context.source.entry.dataset if context.source.entry else None
    return next((name for name in (f"{context.config.data}:train", f"{own}:train") if name in NAMED), None)


def _input_shapes(context: Context) -> dict[str, tuple[int, ...]]:
    """Shape by network input, as the export recorded it."""
    return {v["name"]: tuple(v["shape"]) for v in context.workspace.record("export")["inputs"]}


def write_int8(context: Context, model: onnx.ModelProto, calibration: Calibrated, output: StageOutput) -> None:
    """Write the INT8 graph and TensorRT's calibration cache."""
    config, statistics = context.config, calibration.statistics
    choice = choose_layers(context, model, calibration, rest_of(model))
    plan = choice.plan
    result = to_int8(
        plan.model,
        plan.placement,
        plan.thresholds,
        kept=choice.kept,
        keep_fp32=config.keep_fp32,
        largest=plan.largest,
        adjustments=plan.adjustments,
    )
    path = context.scratch / f"{context.name}.int8.onnx"
    save_model(result.model, path)
    sizes = complete(model, {**statistics.largest, **calibration.thresholds})
    cache = context.scratch / f"{context.name}.calibration.cache"
    cache.write_text(cache_text({name: size / LEVELS for name, size in sizes.items()}))
    output.artifacts.update({f"onnx/{path.name}": path, f"calibration/{cache.name}": cache})
    base = None
    if plan.model is not model:  # fine-tuning starts from the weights that the scales belong to
        base = context.scratch / f"{context.name}.equalized.onnx"
        save_model(plan.model, base)
        output.artifacts[f"onnx/{base.name}"] = base
    output.record["precisions"]["int8"] = {
        "graph": f"onnx/{path.name}",
        "equalized": base and f"onnx/{base.name}",
        "cache": f"calibration/{cache.name}",
        "statistics": graph_statistics(result.model).to_json(),
        **choice.to_json(),
        **result.to_json(),
    }
    fp32 = {node.name for node in result.kept_fp32}
    output.record["notes"] += [
        f"{name} stays in {'FP32' if name in fp32 else result.rest.upper()}: {why}" for name, why in result.kept.items()
    ]
