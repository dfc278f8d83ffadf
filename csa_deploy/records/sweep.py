"""What the sweep over batch and input size states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from csa_deploy.results import Stored


@dataclass(frozen=True)
class SweepPoint:
    """One batch and size.

    Attributes:
        kind: what was swept.
        batch: samples per inference.
        side: of the square input in pixels.
        macs: multiply-accumulates of one inference.
        median_ms: latency of one inference; None when it was not measured.
        interval_ms: 99 % interval of the median; None of too few inferences.
        reason: why it was not measured.
    """

    kind: Literal["batch", "side"]
    batch: int
    side: int
    macs: int | None = None
    median_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Sweep(Stored):
    """The points, how each was measured, and by how many inferences."""

    method: str
    iterations: int
    rows: tuple[SweepPoint, ...]
    schema_version: int = 1
