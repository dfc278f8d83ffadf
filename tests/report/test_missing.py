"""What was not measured names everything that it holds for, once per reason."""

from __future__ import annotations

from typing import Any

from csa_deploy.report.markdown import comparison
from csa_deploy.report.not_measured import by_reason, not_measured

LAYERS = "layers of the engine after fusion: not measured: no CUDA device"


def engine(*said: str) -> dict[str, Any]:
    return {"not_done": list(said)}


def test_engines_that_lack_the_same_are_all_named() -> None:
    found = not_measured({"build": {"engines": {"fp16": engine(LAYERS), "fp32": engine(LAYERS, "no reason given")}}})
    assert found == [
        {
            "stage": "build",
            "what": "layers of the engine after fusion (engine fp16, engine fp32)",
            "reason": "no CUDA device",
        },
        {"stage": "build", "what": "no reason given (engine fp32)", "reason": ""},
    ]


def test_a_reason_is_the_cause_alone() -> None:
    items = [
        {"what": "engine fp16", "reason": "net.fp16.engine cannot run: no CUDA device"},
        {"what": "engine fp32", "reason": "net.fp32.engine cannot run: no CUDA device"},
        {"what": "energy", "reason": "not measured: no rail"},
    ]
    found = by_reason(not_measured({"verify": {"not_measured": items}, "profile": {"not_measured": items[:1]}}))
    assert [(e["what"], e["reason"], e["stages"]) for e in found] == [
        (["engine fp16", "engine fp32"], "no CUDA device", ["verify"]),
        (["energy"], "no rail", ["verify"]),
    ]


def test_quantities_of_engines_are_brief() -> None:
    names = [
        "engine a",
        "engine b",
        "clock",
        "engine a device",
        "engine b device",
        "engine b layers",
        "engine c layers",
    ]
    (entry,) = by_reason([{"stage": "profile", "what": name, "reason": "no GPU"} for name in names])
    assert entry["what"] == names
    assert entry["brief"] == "engine a (latency, device), engine b (latency, device, layers), clock, engine c layers"


def test_a_comparison_groups_what_it_left_out() -> None:
    left = [{"what": f"{label} p99", "reason": "too few | samples"} for label in ("fp32", "fp16")]
    text = comparison({"a": "x", "b": "y", "method": "stored", "caveats": [], "rows": [], "not_compared": left})
    assert text.endswith("- not compared: fp32 p99, fp16 p99: too few \\| samples")
