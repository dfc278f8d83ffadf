"""The load generator's settings: its own file format, read as it reads it, and refused where it would be silent.

A line is ``MODEL.SCENARIO.KEY = VALUE``; ``*`` stands for any model or scenario, times are in milliseconds. The load
generator ignores keys that it does not know and reads a wrong number as 0, ``1_000`` as 1 and ``0100`` as 64
(``TestSettings::FromConfig``, by C's ``strtoull`` and ``strtod``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from csa_deploy.errors import UsageError
from csa_deploy.naming import unknown
from csa_deploy.records.loadgen import Scenario

SCENARIO_NAMES: dict[Scenario, str] = {
    "single-stream": "SingleStream",
    "offline": "Offline",
    "constant-stream": "ConstantStream",
}
"""Scenarios by the load generator's name. MLPerf Automotive's has ``ConstantStream``; MLPerf Inference's has not."""

_SCENARIOS = ("*", *SCENARIO_NAMES.values(), "MultiStream", "Server")
FRAME_RATE = 15.0
"""Frames per second of MLPerf Automotive's detection and segmentation: one every 66.7 ms; its BEVFormer has 12."""


class _Key(NamedTuple):
    """Least and largest value (None: no end), whether it is whole, and what it is."""

    low: float
    high: float | None
    whole: bool
    what: str


_LONGEST_MS = 10**12  # the load generator counts in nanoseconds of 64 bits, and says nothing where they overflow
_NUMBER = {True: re.compile("0|[1-9][0-9]{0,18}"), False: re.compile(r"[0-9]*\.?[0-9]*([eE][+-]?[0-9]+)?")}
"""By whether it is whole: what C and Python read as the same number."""
_KEYS = {
    "min_duration": _Key(1, _LONGEST_MS, True, "milliseconds, at least 1"),
    "max_duration": _Key(0, _LONGEST_MS, True, "milliseconds; 0 is no limit"),
    "min_query_count": _Key(1, None, True, "a number of queries, at least 1"),
    "max_query_count": _Key(0, None, True, "a number of queries; 0 is no limit"),
    "target_latency": _Key(0, _LONGEST_MS, False, "milliseconds: a stream's frame time; 0 takes target_qps"),
    "target_latency_percentile": _Key(1e-9, 100 - 1e-9, False, "a percentile, above 0 and below 100"),
    "target_qps": _Key(1e-9, None, False, "queries per second, above 0"),
    "performance_sample_count_override": _Key(1, None, True, "a number of samples, at least 1"),
    "accuracy_log_sampling_target": _Key(1, None, True, "a number of samples, at least 1"),
    "accuracy_log_rng_seed": _Key(0, None, True, "a seed, 0 or more"),
    "constant_gen": _Key(1, 1, True, "1: frames come at a constant rate"),
}
# 6,636 queries are the fewest that show a 99.9th percentile with one exception, 64 those of a 90th.
_NAMED = {
    "short": {"min_duration": "3000", "target_latency_percentile": "90", "min_query_count": "64"},
    "full": {"min_duration": "600000", "target_latency_percentile": "99.9", "min_query_count": "6636"},
}
_ALWAYS = {"accuracy_log_sampling_target": "64", "accuracy_log_rng_seed": "720381539243781796"}
AUDITED_KEYS = ("accuracy_log_sampling_target", "accuracy_log_rng_seed")
"""Keys that the load generator reads from its audit.config, as MLPerf's TEST01 sets them."""
MODEL_NAME = "csa_deploy"
"""The model's name in files that are written: the load generator has settings of its own for names of MLPerf's."""


@dataclass(frozen=True)
class LoadgenSettings:
    """What one scenario is run with.

    Attributes:
        name: ``short``, ``full``, or the user's file.
        scenario: that they are for.
        values: by key, as they are written.
    """

    name: str
    scenario: Scenario
    values: Mapping[str, str]

    def number(self, key: str) -> float | None:
        """A value; None where the load generator's own stands."""
        return float(self.values[key]) if key in self.values else None

    @property
    def frame_ns(self) -> int:
        """Between two frames of a constant stream, nanoseconds; also the deadline."""
        latency_ms = self.number("target_latency") or 0.0
        return round(latency_ms * 1e6) if latency_ms else int(1e9 / float(self.values["target_qps"]))

    def text(self, *, audit: bool = False) -> str:
        """As the load generator reads it: ``user.conf``, or ``audit.config`` with what is kept of a timed run."""
        about = "outputs that are kept of the timed run" if audit else f"settings '{self.name}' of csa-deploy"
        keys = [key for key in self.values if (key in AUDITED_KEYS) == audit]
        name = "*.*" if audit else f"*.{SCENARIO_NAMES[self.scenario]}"
        return "\n".join([f"# {about}", *(f"{name}.{key} = {self.values[key]}" for key in keys)]) + "\n"


def settings_for(
    scenario: Scenario, name: str | None, network: str, frame_rate: float | None = None
) -> LoadgenSettings:
    """Settings of a scenario; what a user's file does not state is as in ``full``.

    Args:
        scenario: that is run.
        name: ``short`` (the default), ``full``, or a file in the load generator's format.
        network: lines for this model, and those for any, count.
        frame_rate: frames per second of a constant stream; counts more than the file.

    Raises:
        UsageError: no such file, a line that cannot be read, an unknown key, or a value out of range.
    """
    name = name or "short"
    values = {**_NAMED.get(name, _NAMED["full"]), **_ALWAYS}
    if scenario == "offline":
        del values["target_latency_percentile"]
    if scenario == "constant-stream":
        values["target_qps"] = repr(FRAME_RATE)
    if name not in _NAMED:
        values |= _chosen(read_settings(Path(name)), network, SCENARIO_NAMES[scenario])
    if scenario == "constant-stream" and frame_rate is not None:
        values |= {"target_qps": repr(frame_rate), "target_latency": "0"}
    return LoadgenSettings(name, scenario, values)


def read_settings(path: Path) -> dict[tuple[str, str, str], str]:
    """A settings file: value by model, scenario and key.

    Raises:
        UsageError: it cannot be read, or a line is wrong; names the line.
    """
    fix = "give short, full, or a file with lines such as *.SingleStream.min_duration = 60000"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such settings of the load generator", fix=fix) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", fix=fix) from None
    found: dict[tuple[str, str, str], str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        words = words[: next((i for i, word in enumerate(words) if word.startswith("#")), len(words))]
        if words:
            name = _named(words, f"{path}, line {number}")
            found[name] = words[2]
    return found


def _named(words: list[str], where: str) -> tuple[str, str, str]:
    """Model, scenario and key of a line in words, whose value holds."""
    parts = words[0].rsplit(".", 2)
    if len(words) != 3 or words[1] != "=" or len(parts) != 3:
        raise UsageError(
            f"{where}: '{' '.join(words)}' is no setting", fix="write MODEL.SCENARIO.KEY = VALUE, with the blanks"
        )
    model, scenario, key = parts
    for what, said, known in (("scenario", scenario, _SCENARIOS), ("key", key, tuple(_KEYS))):
        if said not in known:
            raise UsageError(f"{where}: {unknown(what, said, known)}", fix=f"use one of {', '.join(known)}")
    limits, text = _KEYS[key], words[2]
    try:
        value = float(text) if _NUMBER[limits.whole].fullmatch(text) else float("nan")
    except ValueError:
        value = float("nan")
    if not limits.low <= value <= (float("inf") if limits.high is None else limits.high) or value == float("inf"):
        raise UsageError(f"{where}: {key} = {text} is no valid value", fix=f"it is {limits.what}")
    return model, scenario, key


def _chosen(lines: Mapping[tuple[str, str, str], str], network: str, scenario: str) -> dict[str, str]:
    """Values by key, in the load generator's order: model and scenario, scenario, model, any."""
    order = (("*", "*"), (network, "*"), ("*", scenario), (network, scenario))
    return {key: value for place in order for (*where, key), value in lines.items() if (*where,) == place}
