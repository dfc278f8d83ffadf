"""Of a candidate with several outputs: the worst value of every metric, and the bound that its verdict rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from csa_deploy import units
from csa_deploy.config import METRIC_BOUNDS

Row = Mapping[str, Any]


def worst_metrics(outputs: Sequence[Row]) -> dict[str, float]:
    """Per metric the worst value of all outputs that have it.

    Accuracy on the labels is that of one output, the one that is least often right, beside the reference's on it.
    """
    found: dict[str, float] = {}
    for output in outputs:
        for metric, value in output["metrics"].items():
            if metric not in METRIC_BOUNDS:
                continue
            if metric not in found or _worse(value, found[metric], METRIC_BOUNDS[metric]):
                found[metric] = value
    for k in (1, 5):
        labelled = [o["metrics"] for o in outputs if f"top{k}" in o["metrics"]]
        if labelled:
            found[f"reference_top{k}"] = min(labelled, key=lambda m: m[f"top{k}"])[f"reference_top{k}"]
    return found


def _worse(value: float, other: float, side: str) -> bool:
    if math.isnan(value) or math.isnan(other):
        return math.isnan(value)
    return value < other if side == "min" else value > other


def deciding(checks: Sequence[Row], outputs: int) -> str:
    """The first broken bound in words, else the first undecided one, else nothing: ``snr_db of box 14.1 dB``."""
    for state in ("fail", "undecided"):
        for check in checks:
            if check["state"] == state and check["value"] is not None:
                where = f" of {check['output']}" if outputs > 1 else ""
                return f"{check['metric']}{where} {units.beside(check['value'], check['bound'], check['metric'])}"
    return ""
