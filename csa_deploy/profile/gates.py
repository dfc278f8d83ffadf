"""Latency and memory limits, and the stored baseline, as gates that know noise.

A limit fails when the whole interval of the measured percentile lies above it, passes when the whole interval lies
below and the series is long enough to have shown slower inferences, and is undecided else. A baseline fails when
:func:`csa_deploy.profile.comparison.compare_samples` says ``slower``. Too few samples for an interval decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from csa_deploy.errors import PerformanceGateError
from csa_deploy.profile.comparison import compare_samples
from csa_deploy.profile.statistics import CONFIDENCE, ENOUGH_FOR_INTERVAL, enough_for

PERCENTILE_OF = {"p50_ms": 50.0, "p90_ms": 90.0, "p95_ms": 95.0, "p99_ms": 99.0, "p999_ms": 99.9}
BASELINE_PERCENTILES = (50.0, 95.0)
# A bootstrap of a percentile rests on the samples beyond it; with fewer than ten its interval is too short.
BEYOND = 10
ANEW = "both timed now, in turns"
STORED = "stored samples of another time"


@dataclass(frozen=True)
class Gate:
    """One limit and what was found.

    Attributes:
        label: graph or engine.
        quantity: what is limited.
        bound: the limit, or the slow-down from which on a baseline fails, as a share.
        value: what was measured, or the ratio to the baseline.
        low: lower end of its interval; equal to ``value`` where it has none.
        high: upper end.
        verdict: ``pass``, ``fail``, ``undecided`` or ``not measured``.
        reason: why it is undecided or not measured; what a baseline's samples are.
    """

    label: str
    quantity: str
    bound: float
    value: float | None
    low: float | None
    high: float | None
    verdict: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def limit_gates(
    limits: Mapping[str, Mapping[str, float]],
    latency: Mapping[str, Mapping[str, Any]],
    memory: Mapping[str, Mapping[str, float]],
) -> list[Gate]:
    """Hold measurements against limits.

    Args:
        limits: label -> quantity -> bound.
        latency: label -> summary of :func:`csa_deploy.profile.statistics.summarise`.
        memory: label -> ``weights_mib``, ``activations_mib``, ``engine_mib``, ``peak_mib`` as far as they are known.
    """
    found = []
    for label, bounds in limits.items():
        for quantity, bound in bounds.items():
            if quantity.endswith("_mib"):
                found.append(_exact(label, quantity, bound, memory.get(label, {}).get(quantity)))
            else:
                found.append(_percentile(label, quantity, bound, latency.get(label)))
    return found


def _exact(label: str, quantity: str, bound: float, value: float | None) -> Gate:
    if value is None:
        return Gate(label, quantity, bound, None, None, None, "not measured", f"no {quantity} of '{label}' is known")
    return Gate(label, quantity, bound, value, value, value, "pass" if value <= bound else "fail")


def enough_to_pass(percentile: float) -> int:
    """Samples of which, were the percentile above a limit, all would lie below it with less than 1 % chance.

    Wilks (1941), Annals of Mathematical Statistics 12, for independent samples; neighbours that are alike need more.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(percentile / 100))


def _percentile(label: str, quantity: str, bound: float, summary: Mapping[str, Any] | None) -> Gate:
    if summary is None:
        return Gate(label, quantity, bound, None, None, None, "not measured", f"'{label}' did not run here")
    if quantity == "max_ms":
        return _exact(label, quantity, bound, summary["max_ms"])
    key = f"{PERCENTILE_OF[quantity]:g}"
    value = summary["percentiles_ms"][key]
    if value is None:
        need = summary["too_few"][key]
        return Gate(label, quantity, bound, None, None, None, "not measured", f"needs {need} timed inferences")
    if summary["intervals_ms"][key] is None:
        reason = f"only {ENOUGH_FOR_INTERVAL} timed inferences or more give an interval"
        return Gate(label, quantity, bound, value, value, value, "undecided", reason)
    low, high = summary["intervals_ms"][key]
    need = enough_to_pass(PERCENTILE_OF[quantity])
    if high <= bound and len(summary["samples_ms"]) < need:
        reason = (
            f"below the limit, but only {need} timed inferences leave less than 1 % chance of an unseen slower tail"
        )
        return Gate(label, quantity, bound, value, low, high, "undecided", reason)
    if high <= bound:
        return Gate(label, quantity, bound, value, low, high, "pass")
    if low > bound:
        return Gate(label, quantity, bound, value, low, high, "fail")
    return Gate(label, quantity, bound, value, low, high, "undecided", "the limit lies inside the interval")


def baseline_gates(
    anew: Mapping[str, Mapping[str, Any]],
    stored: Mapping[str, Mapping[str, Any]],
    latency: Mapping[str, Mapping[str, Any]],
    minimum_effect: float,
    reasons: Mapping[str, str] | None = None,
) -> list[Gate]:
    """Hold latencies against a baseline; all map label to a summary with its samples.

    Args:
        anew: of the baseline, timed in turns with ``latency``.
        stored: of the baseline, for labels that could not be timed anew.
        latency: of this run.
        minimum_effect: slow-down from which on a gate fails, as a share.
        reasons: label -> why the baseline's stored samples cannot be compared, where that is known.
    """
    found = []
    for label, summary in latency.items():
        how = ANEW if label in anew else STORED
        older = anew.get(label) or stored.get(label)
        if older is None:
            reason = (reasons or {}).get(label) or f"the baseline has no '{label}'"
            found.append(Gate(label, "baseline", minimum_effect, None, None, None, "not measured", reason))
            continue
        a, b = older["samples_ms"], summary["samples_ms"]
        for percentile in BASELINE_PERCENTILES:
            if percentile > 50 and min(len(a), len(b)) < BEYOND * enough_for(percentile):
                continue
            name = f"p{percentile:g} against baseline"
            ratio = compare_samples(a, b, percentile=percentile, minimum_effect=minimum_effect)
            if ratio is None:
                found.append(Gate(label, name, minimum_effect, None, None, None, "not measured", _too_few(a, b)))
                continue
            verdict = "fail" if ratio.outcome == "slower" else "pass"
            found.append(Gate(label, name, minimum_effect, ratio.ratio, ratio.low, ratio.high, verdict, how))
    return found


def _too_few(older: Sequence[float], newer: Sequence[float]) -> str:
    """Why two series are not compared."""
    return (
        f"needs {ENOUGH_FOR_INTERVAL} timed inferences of each, there are {len(older)} of the baseline "
        f"and {len(newer)} of this run"
    )


def failure(gates: list[Gate]) -> PerformanceGateError | None:
    """The error of the first gate that failed."""
    for gate in gates:
        if gate.verdict != "fail":
            continue
        if "baseline" in gate.quantity:
            assert gate.value is not None and gate.low is not None and gate.high is not None
            return PerformanceGateError(
                f"profile: {gate.label}: {100 * (gate.value - 1):.1f} % slower than the baseline at "
                f"{gate.quantity.split()[0]} (99 % interval {100 * (gate.low - 1):+.1f} to {100 * (gate.high - 1):+.1f}"
                f" %), the limit is {100 * gate.bound:g} %",
                fix="find the cause with `csa-deploy compare`, or accept the run as the new baseline",
            )
        return PerformanceGateError(
            f"profile: {gate.label}: {gate.quantity} is {gate.value:g} (interval {gate.low:g} to {gate.high:g}), "
            f"the limit is {gate.bound:g}",
            fix="see the report for the layers that cost most, or change --limit",
        )
    return None
