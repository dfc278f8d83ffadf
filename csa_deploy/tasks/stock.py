"""The metrics of segmentation and detection among all metrics, and what they need to know of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from csa_deploy.boxes import Postprocessing
from csa_deploy.errors import UsageError
from csa_deploy.metrics.task import Measured, register_task, task_of
from csa_deploy.tasks.decoding import load_decode
from csa_deploy.tasks.metrics import AveragePrecision, AveragePrecision50, DetectionAgreement, MeanIoU
from csa_deploy.tasks.task import Detection, Segmentation, Task

if TYPE_CHECKING:
    from csa_deploy.config import Config

STOCK: dict[str, tuple[Any, ...]] = {
    "segmentation": (MeanIoU,),
    "detection": (AveragePrecision, AveragePrecision50, DetectionAgreement),
}
"""Metrics by task; by the first one the worst samples are chosen."""
for _metrics in STOCK.values():
    for _metric in _metrics:
        register_task(_metric())


def names_of(kind: str | None) -> list[str]:
    """The metrics that a task is measured by."""
    return [metric.name for metric in STOCK.get(kind or "", ())]


def vision_task(config: Config, classes: Sequence[str], postprocessing: Postprocessing | None) -> Task[Any] | None:
    """How the outputs of a network are read; None where it classifies, or nobody says what its task is.

    Args:
        config: states the task (or metrics of one in its budget), thresholds and a decode function.
        classes: names in the order of the network's classes.

    Raises:
        UsageError: nothing says how outputs become boxes.
    """
    kind: str | None = config.task or next(
        (k for k in STOCK if set(names_of(k)) & {t.name for t in config.tasks()}), None
    )
    if kind == "segmentation":
        threshold = 0.5 if config.score_threshold is None else config.score_threshold
        return Segmentation(tuple(classes), threshold)
    if kind != "detection":
        return None
    decode: Any = load_decode(config.decode) if config.decode else postprocessing
    if decode is None:
        raise UsageError(
            "detection needs to know how outputs become boxes",
            fix="name a function with --decode heads.py:decode, or let the network state its postprocessing",
        )
    return Detection(tuple(classes), decode, config.score_threshold, config.nms_iou)


def measured(config: Config, task: Task[Any] | None) -> list[Measured]:
    """The task metrics to measure, those of the task reading outputs as it does."""
    bound = {m.name: task_of(m(task)) for m in (STOCK[task.kind] if task else ())}
    return [bound.get(metric.name, metric) for metric in config.tasks()]
