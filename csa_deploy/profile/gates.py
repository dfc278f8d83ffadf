"""Latency and memory limits, and the stored baseline, as gates that know noise.

A limit fails when the whole interval of the measured percentile lies above it, passes when the whole interval lies
below, and is undecided else; an interval without upper end passes nothing. A baseline fails when
:func:`csa_deploy.profile.comparison.compare_samples` says ``slower``. Too few samples for an interval decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from csa_deploy import units
from csa_deploy.errors import PerformanceGateError
from csa_deploy.profile.comparison import compare_samples
from csa_deploy.profile.statistics import too_short
from csa_deploy.records.device import EngineProfile
from csa_deploy.records.profile import PERCENTILE_OF, Gate, GraphCost, LatencySummary

BASELINE_PERCENTILES = (50.0, 95.0)
ANEW = "both timed now, in turns"
STORED = "stored samples of another time"
MIB = 2**20
_NOT_HERE = (
    "'{}' did not run here: `csa-deploy profile` times it with an NVIDIA GPU, or with --target on a DRIVE or Jetson"
)


def memory_of(
    costs: Mapping[str, GraphCost], engine_bytes: Mapping[str, int], inspected: Mapping[str, EngineProfile]
) -> dict[str, dict[str, float]]:
    """MiB by label and quantity, as far as they are known.

    Args:
        costs: of each graph, by label.
        engine_bytes: size of each engine, by precision.
        inspected: what was found in engines, by label.
    """
    found: dict[str, dict[str, int | None]] = {
        label: {"weights_mib": cost.weight_bytes, "activations_mib": cost.activation_bytes}
        for label, cost in costs.items()
    }
    for precision, size in engine_bytes.items():
        label = f"engine {precision}"
        found[label] = {"engine_mib": size}
        if label in inspected and (memory := inspected[label].memory):
            found[label]["weights_mib"] = memory.weights_bytes
            found[label]["activations_mib"] = memory.context_bytes
            found[label]["peak_mib"] = memory.peak_bytes
    return {
        label: {name: size / MIB for name, size in sizes.items() if size is not None} for label, sizes in found.items()
    }


def limit_gates(
    limits: Mapping[str, Mapping[str, float]],
    latency: Mapping[str, LatencySummary],
    memory: Mapping[str, Mapping[str, float]],
) -> list[Gate]:
    """Hold measurements against limits.

    Args:
        limits: label -> quantity -> bound.
        latency: label -> summary.
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


def _percentile(label: str, quantity: str, bound: float, summary: LatencySummary | None) -> Gate:
    if summary is None:
        return Gate(label, quantity, bound, None, None, None, "not measured", _NOT_HERE.format(label))
    if quantity == "max_ms":
        return _exact(label, quantity, bound, summary.max_ms)
    key = f"{PERCENTILE_OF[quantity]:g}"
    value = summary.percentiles_ms[key]
    if value is None:
        need = summary.too_few[key]
        return Gate(
            label,
            quantity,
            bound,
            None,
            None,
            None,
            "not measured",
            f"needs {need} timed inferences: measure with --iterations {need}",
        )
    low, high = summary.intervals_ms[key] or (None, None)
    if high is not None and high <= bound:
        return Gate(label, quantity, bound, value, low, high, "pass")
    if low is not None and low > bound:
        return Gate(label, quantity, bound, value, low, high, "fail")
    reason = too_short(summary.samples_ms, PERCENTILE_OF[quantity]) or "the limit lies inside the interval"
    return Gate(label, quantity, bound, value, low, high, "undecided", reason)


def baseline_gates(
    anew: Mapping[str, LatencySummary],
    stored: Mapping[str, LatencySummary],
    latency: Mapping[str, LatencySummary],
    minimum_effect: float,
    reasons: Mapping[str, str] | None = None,
) -> list[Gate]:
    """Hold latencies against a baseline; all map label to a summary with its samples.

    Args:
        anew: of the baseline, timed in turns with ``latency``.
        stored: of the baseline, for labels that could not be timed anew.
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
        found += _against(label, older.samples_ms, summary.samples_ms, minimum_effect, how)
    return found


def _against(label: str, older: Sequence[float], newer: Sequence[float], effect: float, how: str) -> list[Gate]:
    found = []
    for percentile in BASELINE_PERCENTILES:
        name = f"p{percentile:g} against baseline"
        ratio = compare_samples(older, newer, percentile=percentile, minimum_effect=effect)
        if ratio is not None:
            slower = ratio.outcome == "slower"
            held = ratio.ratio, ratio.low, ratio.high
            found.append(Gate(label, name, effect, *held, "fail" if slower else "pass", how))
        elif percentile == 50:  # a tail is compared where there are enough samples
            reason = why_not_compared(older, newer, percentile, ("the baseline", "this run"))
            found.append(Gate(label, name, effect, None, None, None, "not measured", reason))
    return found


def why_not_compared(older: Sequence[float], newer: Sequence[float], percentile: float, names: tuple[str, str]) -> str:
    """Which of two series is too short for a ratio at a percentile, and why."""
    sides = zip(names, (too_short(series, percentile) for series in (older, newer)), strict=True)
    return "; ".join(f"{name}: {reason}" for name, reason in sides if reason)


def failure(gates: list[Gate]) -> PerformanceGateError | None:
    """The error of the first gate that failed."""
    for gate in gates:
        if gate.verdict != "fail":
            continue
        if "baseline" in gate.quantity:
            assert gate.value is not None
            between = units.span(gate.low, gate.high, units.slowdown)
            return PerformanceGateError(
                f"profile: {gate.label}: {100 * (gate.value - 1):.1f} % slower than the baseline at "
                f"{gate.quantity.split()[0]} (99 % interval {between} %), the limit is {100 * gate.bound:g} %",
                fix="find the cause with `csa-deploy compare`, or accept the run as the new baseline",
            )
        return PerformanceGateError(
            f"profile: {gate.label}: {gate.quantity} is {gate.value:.9g} (interval "
            f"{units.span(gate.low, gate.high)}), the limit is {gate.bound:.9g}",
            fix="see the report for the layers that cost most, or change --limit",
        )
    return None
