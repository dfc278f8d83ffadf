"""Limits and baselines on series of known distribution."""

from __future__ import annotations

import numpy as np
import pytest

from csa_deploy.config import Config
from csa_deploy.errors import PerformanceGateError, UsageError
from csa_deploy.profile.gates import ANEW, STORED, baseline_gates, failure, limit_gates
from csa_deploy.profile.statistics import independent, summarise


def run(median: float, seed: int, n: int = 300) -> dict[str, dict]:
    draw = np.random.default_rng(seed)
    return {"fp32": summarise(median * np.exp(0.03 * draw.standard_normal(n)))}


def unlike_neighbours(n: int) -> np.ndarray:
    """Around 10 ms; no correlation, not even by chance, takes away from what so many samples are worth."""
    draws = (10 + np.random.default_rng(seed).random(n) for seed in range(50))
    return next(samples for samples in draws if independent(samples) == n)


@pytest.mark.parametrize(("bound", "verdict"), [(11.0, "pass"), (9.0, "fail")])
def test_a_limit_far_from_the_median_decides(bound: float, verdict: str) -> None:
    (gate,) = limit_gates({"fp32": {"p50_ms": bound}}, run(10, 0), {})
    assert gate.verdict == verdict
    assert gate.low <= gate.value <= gate.high


def test_a_limit_inside_the_interval_is_undecided_and_no_failure() -> None:
    latency = run(10, 0)
    (gate,) = limit_gates({"fp32": {"p50_ms": latency["fp32"].percentiles_ms["50"]}}, latency, {})
    assert gate.verdict == "undecided"
    assert failure([gate]) is None


@pytest.mark.parametrize(
    ("quantity", "need"), [("p50_ms", 8), ("p90_ms", 51), ("p95_ms", 104), ("p99_ms", 528), ("p999_ms", 5296)]
)
@pytest.mark.shows("MEA-32")
def test_a_tail_passes_only_where_a_slower_one_would_have_been_seen(quantity: str, need: int) -> None:
    short, long = (
        limit_gates({"fp32": {quantity: 100.0}}, {"fp32": summarise(unlike_neighbours(n))}, {})[0]
        for n in (need - 1, need)
    )
    assert (short.verdict, long.verdict) == ("undecided", "pass")
    assert f"needs {need} timed inferences, there are {need - 1}" in short.reason


@pytest.mark.shows("MEA-32", "ERR-26")
def test_a_network_slower_than_its_limit_in_the_tail_does_not_pass() -> None:
    """Two inferences in a hundred take twice as long: the 99th percentile is 20 ms, and 100 samples often miss it."""
    passed = []
    for n in (100, 528):
        draws = (np.random.default_rng(seed) for seed in range(100))
        runs = (summarise(np.where(draw.random(n) < 0.02, 20.0, 10.0 + draw.random(n))) for draw in draws)
        passed.append(sum(limit_gates({"a": {"p99_ms": 15.0}}, {"a": r}, {})[0].verdict == "pass" for r in runs))
    assert passed == [0, 0]


def test_what_was_not_measured_is_no_pass() -> None:
    limits = {"engine fp16": {"p99_ms": 5.0, "engine_mib": 3.0}, "fp32": {"p999_ms": 5.0}}
    gates = limit_gates(limits, run(10, 0), {})
    assert [g.verdict for g in gates] == ["not measured"] * 3
    assert gates[2].reason == "needs 1000 timed inferences: measure with --iterations 1000"


def test_memory_is_exact() -> None:
    memory = {"fp32": {"weights_mib": 4.0}}
    assert limit_gates({"fp32": {"weights_mib": 4.0}}, {}, memory)[0].verdict == "pass"
    failed = limit_gates({"fp32": {"weights_mib": 3.9}}, {}, memory)
    assert failed[0].verdict == "fail"
    error = failure(failed)
    assert isinstance(error, PerformanceGateError)
    assert error.exit_code == 7


def test_noise_passes_the_baseline_and_five_percent_fails_it() -> None:
    noisy = [baseline_gates({}, run(10, s), run(10, 1000 + s), 0.02) for s in range(40)]
    slower = [baseline_gates({}, run(10, s), run(10.5, 1000 + s), 0.02) for s in range(40)]
    assert all(failure(gates) is None for gates in noisy)
    assert all(failure(gates) is not None for gates in slower)
    assert "slower than the baseline at p50" in str(failure(slower[0]))


def test_a_label_that_the_baseline_lacks_is_not_measured() -> None:
    (gate,) = baseline_gates({}, {}, run(10, 0), 0.02)
    assert gate.verdict == "not measured"
    (gate,) = baseline_gates({}, {}, run(10, 0), 0.02, {"fp32": "another machine"})
    assert gate.reason == "another machine"


@pytest.mark.parametrize(("before", "now"), [(1, 1), (300, 6), (6, 300)])
def test_too_few_samples_decide_no_baseline(before: int, now: int) -> None:
    """Twice as slow, and still no verdict: a bootstrap of one sample has an interval of no width."""
    (gate,) = baseline_gates({}, run(10, 0, before), run(20, 1, now), 0.02)
    assert (gate.verdict, gate.value) == ("not measured", None)
    assert gate.reason.startswith("the baseline: an interval" if before < 8 else "this run: an interval")
    assert failure([gate]) is None
    nine = unlike_neighbours(9)  # of eight each, both ends of the ratio are open
    assert baseline_gates({}, {"fp32": summarise(nine)}, {"fp32": summarise(2 * nine)}, 0.02)[0].verdict == "fail"


def test_what_was_timed_anew_counts_before_what_is_stored() -> None:
    gates = baseline_gates(run(10, 0), run(5, 1), run(10, 2), 0.02)
    assert [(gate.verdict, gate.reason) for gate in gates] == [("pass", ANEW)] * 2
    (gate, *_) = baseline_gates({}, run(5, 1), run(10, 2), 0.02)
    assert (gate.verdict, gate.reason) == ("fail", STORED)


def test_limits_are_read_from_flags_and_yaml() -> None:
    flags = Config(limit=["engine-fp16.p99_ms=5", "fp32.weights_mib=200"]).limit
    assert flags == {"engine fp16": {"p99_ms": 5.0}, "fp32": {"weights_mib": 200.0}}
    assert Config(limit={"engine-fp16": {"p99_ms": 5}}).limit == {"engine fp16": {"p99_ms": 5.0}}


@pytest.mark.parametrize("text", ["fp32.p98_ms=1", "fp33.p50_ms=1", "fp32.p50_ms", "fp32.p50_ms=fast"])
def test_a_bad_limit_is_refused_in_one_line(text: str) -> None:
    from csa_deploy.config import make_config

    with pytest.raises(UsageError) as error:
        make_config({"limit": [text]})
    assert "limit" in str(error.value)
    assert "\n" not in str(error.value)
