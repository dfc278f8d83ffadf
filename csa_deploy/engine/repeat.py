"""Several builds of one plan: how far engines, tactics, outputs and latency spread between them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csa_deploy.engine.result import BuildResult
from csa_deploy.errors import BuildFailedError
from csa_deploy.metrics.distance import exactly


@dataclass(frozen=True)
class Ran:
    """What one engine of several gave: its outputs on the same input, and its median latency in ms."""

    outputs: Mapping[str, np.ndarray]
    median_ms: float


@dataclass(frozen=True)
class Spread:
    """Builds of the same plan, side by side.

    Attributes:
        engines: SHA-256 of each engine, in order of building.
        seconds: seconds of each build; None where not told.
        tactics: layer -> the tactics that it got, for layers that got more than one; None where not known.
        runs: outputs and latency of each engine; empty where they could not run.
        not_run: why they could not; empty when they did.
    """

    engines: tuple[str, ...]
    seconds: tuple[float | None, ...]
    tactics: Mapping[str, tuple[str, ...]] | None
    runs: tuple[Ran, ...] = ()
    not_run: str = ""

    @property
    def identical(self) -> bool:
        """Whether all engines are the same bytes."""
        return len(set(self.engines)) == 1

    @property
    def output_difference(self) -> float | None:
        """Largest difference of any output value between any two engines."""
        if not self.runs:
            return None
        stacked = [exactly(np.stack([run.outputs[name] for run in self.runs])) for name in self.runs[0].outputs]
        return max((float(np.max(np.ptp(values, axis=0))) for values in stacked), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """JSON form with what follows from the builds."""
        latencies = [run.median_ms for run in self.runs]
        return {
            "builds": len(self.engines),
            "engines": list(self.engines),
            "identical": self.identical,
            "seconds": list(self.seconds),
            "tactics_that_differ": None if self.tactics is None else {k: list(v) for k, v in self.tactics.items()},
            "output_difference": self.output_difference,
            "median_ms": latencies or None,
            "median_ms_spread": max(latencies) - min(latencies) if latencies else None,
            "not_run": self.not_run,
        }


def spread_of(results: Sequence[BuildResult], runs: Sequence[Ran], not_run: str) -> Spread:
    """Compare builds; the results in order of building."""
    return Spread(
        engines=tuple(result.engine_sha256 for result in results),
        seconds=tuple(result.build_seconds for result in results),
        tactics=_tactics([result.inspection for result in results]),
        runs=tuple(runs),
        not_run=not_run,
    )


def median_ms(samples: Sequence[float]) -> float:
    """Median of latencies."""
    return float(statistics.median(samples))


def require_identical(spread: Spread, what: str) -> None:
    """Raise BuildFailedError unless all engines are the same bytes."""
    if spread.identical:
        return
    differing = "" if spread.tactics is None else f"; {len(spread.tactics)} layers got other tactics"
    raise BuildFailedError(
        f"{what}: {len(set(spread.engines))} different engines in {len(spread.engines)} builds{differing}",
        fix="share a --timing-cache between the builds and lock the clocks, or build without --reproducible",
    )


def _tactics(inspections: Sequence[Path | None]) -> dict[str, tuple[str, ...]] | None:
    chosen: dict[str, set[str]] = {}
    for path in inspections:
        if path is None or not path.is_file():
            return None
        for layer in json.loads(path.read_text(encoding="utf-8")).get("Layers", []):
            if isinstance(layer, dict) and "TacticName" in layer:
                chosen.setdefault(layer["Name"], set()).add(layer["TacticName"])
    return {name: tuple(sorted(tactics)) for name, tactics in sorted(chosen.items()) if len(tactics) > 1}
