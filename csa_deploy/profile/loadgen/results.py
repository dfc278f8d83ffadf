"""The result of a run, from the load generator's logs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from csa_deploy.profile.loadgen.logs import SUMMARY_LOG, compare_outputs, read_detail, read_queries, unfinished
from csa_deploy.profile.loadgen.settings import SCENARIO_NAMES, LoadgenSettings
from csa_deploy.profile.loadgen.stopping import estimate, is_broken, is_shown, needed, percentile_of
from csa_deploy.records.loadgen import Deadlines, LoadgenRun, OutputsCheck
from csa_deploy.spec import TensorSpec
from csa_deploy.units import counted

_PERCENTILES = ("50", "90", "95", "97", "99", "99.9")
"""Those that the load generator counts."""

_THEIRS = "sent by the load generator"
_OURS = "sent on csa-deploy's schedule through SingleStream: this load generator has no constant stream"
_CHECKS = {
    "result_min_duration_met": "shorter than the least duration",
    "result_min_queries_met": "fewer queries than the least number",
}
_OF_LATENCY = {
    "result_perf_constraints_met": "the latency at the percentile is above the limit",
    "early_stopping_met": "too few queries to show the percentile",
}


def read_run(
    label: str, settings: LoadgenSettings, folder: Path, outputs: Sequence[TensorSpec], samples: str, kept_in: str
) -> LoadgenRun:
    """The result of one run.

    Args:
        label: graph or engine.
        settings: that it was run with.
        folder: of the logs, ``accuracy`` and ``performance``.
        outputs: of the network.
        samples: that the queries were about.
        kept_in: where the logs will lie inside the workspace.

    Raises:
        UsageError: logs are missing or were not finished.
    """
    detail = read_detail(folder / "performance", mode="performance")
    others = read_detail(folder / "accuracy", mode="accuracy")
    values = detail.values
    reasons = [*detail.errors, *(f"accuracy mode: {said}" for said in others.errors)]
    reasons += [said for key, said in _CHECKS.items() if values.get(key) is False]
    of_latency = [said for key, said in _OF_LATENCY.items() if values.get(key) is False]
    sent = int(others.values["qsl_reported_total_count"])
    check = compare_outputs(folder / "accuracy", folder / "performance", outputs, sent)
    found: dict[str, Any] = {"percentiles_ms": {p: _percentile_ns(values, p) / 1e6 for p in _PERCENTILES}}
    if settings.scenario == "constant-stream":
        stream, late = _of_stream(settings, folder / "performance", values)
        found, of_latency = found | stream, late or of_latency
    elif settings.scenario == "offline":
        found["throughput"] = values["result_samples_per_second"]
    else:
        found |= _of_single_stream(settings, folder / "performance", values)
    reasons += of_latency
    if values["result_validity"] != "VALID" and not reasons:
        reasons = ["the load generator says so, for a reason of its own: see its summary"]
    return LoadgenRun(
        label=label,
        scenario=settings.scenario,
        settings=settings.name,
        loadgen=str(values["loadgen_version"]).partition(" ")[0],
        said=values["result_validity"],
        reasons=(*reasons, *_of_outputs(check)),
        queries=values["effective_samples_per_query" if settings.scenario == "offline" else "result_query_count"],
        seconds=_seconds(values),
        outputs=check,
        samples=samples,
        folder=kept_in,
        **found,
    )


def _percentile_ns(values: Mapping[str, Any], percentile: str) -> int:
    return int(values[f"result_{float(percentile):.2f}_percentile_latency_ns"])


def _seconds(values: Mapping[str, Any]) -> float:
    began, ended = (datetime.strptime(values[f"power_{name}"], "%m-%d-%Y %H:%M:%S.%f") for name in ("begin", "end"))
    return (ended - began).total_seconds()


def _of_single_stream(settings: LoadgenSettings, folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The percentile that counts, which only the summary states, and its upper bound."""
    summary = (folder / SUMMARY_LOG).read_text(encoding="utf-8") if (folder / SUMMARY_LOG).is_file() else ""
    stated = re.search(r"^[\d.]+th percentile latency \(ns\) : (\d+)\n", summary, re.MULTILINE)
    if stated is None:
        raise unfinished(folder / SUMMARY_LOG, "states no latency")
    return {
        "percentile": settings.number("target_latency_percentile"),
        "percentile_ms": int(stated[1]) / 1e6,
        "early_stopping_ms": values["early_stopping_latency_ss"] / 1e6 if values["early_stopping_met"] else None,
    }


def _of_stream(settings: LoadgenSettings, folder: Path, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Latencies from when each frame was due, missed deadlines, and why the percentile does not hold."""
    queries = read_queries(folder, values["result_query_count"])
    theirs = values["effective_scenario"] == SCENARIO_NAMES["constant-stream"]
    latencies = queries.latency if theirs else queries.since_due(settings.frame_ns)
    percentile = float(settings.values["target_latency_percentile"])
    share, frames, missed = percentile / 100, len(latencies), int((latencies > settings.frame_ns).sum())
    broken = is_broken(frames, missed, share)
    reached = percentile_of(latencies, share)
    bound = estimate(latencies, share)
    found = {
        "percentiles_ms": {p: percentile_of(latencies, float(p) / 100) / 1e6 for p in _PERCENTILES},
        "percentile": percentile,
        "percentile_ms": reached / 1e6,
        "early_stopping_ms": None if bound is None else bound / 1e6,
        "deadlines": Deadlines(
            frame_ms=settings.frame_ns / 1e6, arrivals=_THEIRS if theirs else _OURS, missed=missed, broken=broken
        ),
    }
    why = []
    if reached > settings.frame_ns or broken:
        why.append(f"{counted(missed, 'deadline')} of {frames:,} missed, too many for {percentile:.10g} %")
    elif not is_shown(frames, missed, share):
        least = needed(missed, share)
        why.append(
            f"{frames:,} frames with {missed} missed do not show {percentile:.10g} %: that needs {least:,} frames"
        )
    return found, why


def _of_outputs(check: OutputsCheck) -> list[str]:
    if check.verdict == "pass":
        return []
    if check.verdict == "not measured":
        return ["no output of the timed run was kept"]
    return [
        f"{check.sampled - check.identical} of {check.sampled} outputs of the timed run differ from those of accuracy "
        "mode"
    ]
