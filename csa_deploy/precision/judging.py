"""Holds a choice of INT8 layers against FP32 as the accuracy gate will: its metrics, its bounds, every output.

What differs from the gate is what so few images allow: no interval is asked for, and a share may miss its bound by one
image.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from csa_deploy.metrics.estimates import EXTREME
from csa_deploy.metrics.metric import NOT_APPLICABLE, Estimate
from csa_deploy.metrics.stream import SampleTable, measure
from csa_deploy.metrics.task import Measured
from csa_deploy.verify.gate import Check, judge

Outputs = Mapping[str, np.ndarray]
Metrics = dict[str, dict[str, float]]
"""By output and name."""


def compare(
    exact: Sequence[Outputs],
    got: Sequence[Outputs],
    targets: Sequence[Sequence[Any]] | None = None,
    tasks: Sequence[Measured] = (),
) -> Metrics:
    """Metrics of every output and of the tasks over batches, as the accuracy gate defines them.

    Args:
        exact: outputs in FP32, a batch each, the first axis of all outputs the samples.
        got: the same of the choice.
        targets: what the data say of each sample, a batch each; None where they say nothing.
        tasks: task metrics to measure.
    """
    found: dict[str, SampleTable] = {}
    for number, (want, have) in enumerate(zip(exact, got, strict=True)):
        ids = [f"{number}-{index}" for index in range(len(next(iter(want.values()))))]
        measure(want, have, ids, None if targets is None else targets[number], found, tasks)
    return {name: metrics.values() for name, metrics in found.items()}


def broken(metrics: Metrics, budget: Mapping[str, float], images: int) -> tuple[str, ...]:
    """The bounds that do not hold, in words; values that are not finite break every budget."""
    found = []
    for output, values in metrics.items():
        if not math.isfinite(values.get("max_abs_error", 0.0)):
            found.append(f"'{output}' is not finite")
            continue
        for check in _checks(output, values, budget, images):
            if check.state == "fail" and not _within_an_image(check, images):
                found.append(f"{check.metric} of '{output}' is {check.value:.4g}, bound {check.bound:g}")
    return tuple(found)


def unjudged(metrics: Metrics, budget: Mapping[str, float], images: int, asked: Collection[str] = ()) -> dict[str, str]:
    """Bounds that no output was held against, with the reason; of those that do not apply, what was asked for."""
    checks = [check for output, values in metrics.items() for check in _checks(output, values, budget, images, asked)]
    judged = {check.metric for check in checks if check.state != "not measured"}
    return {
        check.metric: check.reason.split(": ", 1)[-1]
        for check in checks
        if check.metric not in judged and (check.asked or not check.reason.startswith(NOT_APPLICABLE))
    }


def _checks(
    output: str, values: Mapping[str, float], budget: Mapping[str, float], images: int, asked: Collection[str] = ()
) -> list[Check]:
    estimates = {name: Estimate(value, None, EXTREME) for name, value in values.items()}
    return judge(output, estimates, budget, samples=images, asked=asked)


def _within_an_image(check: Check, images: int) -> bool:
    if not check.entry.counted:
        return False
    slack = 1 / images + 1e-9
    return replace(check, bound=check.bound + (-slack if check.side == "min" else slack)).state != "fail"
