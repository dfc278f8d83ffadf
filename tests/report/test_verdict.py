"""The headline covers the gates that it lists, each with its own state."""

from __future__ import annotations

from typing import Any

import pytest

from csa_deploy.report.markdown import summary
from csa_deploy.report.verdict import gate_states, verdict, word_of

ORDER = ("check", "build", "verify", "profile")


def candidate(label: str, state: str = "pass") -> dict[str, Any]:
    return {"label": label, "verdict": state}


def records(state: str = "pass", scope: str = "allowed", gate: list[str] | None = None) -> dict[str, Any]:
    scopes = [{"scope": "drive-os-7", "verdict": scope, "level": "validator"}] if gate else []
    return {
        "check": {"gate": gate, "summary": "checked"},
        "build": {"engines": {"fp16": {"scopes": scopes}}, "summary": "built"},
        "verify": {
            "summary": "compared",
            "data": {"samples": 10, "name": "digits"},
            "reference": {"backend": "torch"},
            "candidates": [candidate("fp32"), candidate("fp16", state)],
            "not_measured": [{"what": "engine fp16", "reason": "no GPU"}],
        },
        "profile": {
            "summary": "measured",
            "measured": [{"label": "fp16", "evidence": "this machine's CPU, not the target"}],
        },
    }


def judged(found: dict[str, Any], gates: list[dict[str, Any]] | None = None, **passed: bool) -> dict[str, Any]:
    return verdict({name: passed.get(name, True) for name in found}, ORDER, found, {"profile": {"gates": gates or []}})


def limit(state: str) -> dict[str, Any]:
    numbers = {"value": 4.0, "low": 3.9, "high": 4.1}
    return {"label": "fp16", "quantity": "p50_ms", "bound": 5.0, "reason": "", "verdict": state, **numbers}


def test_a_pass_says_what_it_rests_on_and_what_did_not_run() -> None:
    found = judged(records(gate=["drive-os-7"]))
    assert found["state"] == "pass"
    assert "accuracy budgets on 10 samples: fp32, fp16; engine fp16 did not run here" in found["gates"]
    assert any("(evidence: validator)" in text for text in found["gates"])


def test_graphs_that_a_scope_judges_alike_are_one_gate() -> None:
    found = records(gate=["drive-os-7"])
    engines = found["build"]["engines"]
    engines["fp32"] = engines["fp16"]
    engines["int8"] = {"scopes": [{"scope": "drive-os-7", "verdict": "unknown", "level": "static"}]}
    assert [c["text"] for c in gate_states(found, {}) if c["name"] == "restricted mode"] == [
        "restricted mode, fp32, fp16 as built: drive-os-7 allowed (evidence: validator)",
        "restricted mode, int8 as built: drive-os-7 unknown (evidence: static)",
    ]


def test_an_open_accuracy_gate_says_of_which_graphs() -> None:
    (gate,) = [c for c in gate_states(records(state="undecided"), {}) if c["name"] == "accuracy"]
    assert gate["text"].startswith("accuracy budgets on 10 samples: pass: fp32; undecided: fp16;")


def test_the_reference_is_named_for_what_it_is() -> None:
    found = records()
    assert gate_states(found, {})[0]["evidence"] == "compared with PyTorch on digits"
    found["verify"]["reference"] = {"backend": "onnxruntime"}
    assert gate_states(found, {})[0]["evidence"] == "compared with the source graph on digits"


def test_restricted_mode_does_not_count_unless_asked_for() -> None:
    checks = gate_states(records(gate=None), {})
    assert [c["state"] for c in checks if c["name"] == "restricted mode"] == ["not counted"]
    assert judged(records(gate=None))["state"] == "pass"


def test_what_is_open_keeps_the_verdict_from_passing() -> None:
    assert judged(records(state="undecided"))["state"] == "incomplete"
    assert judged(records(), [limit("undecided")])["state"] == "incomplete"
    assert judged(records(), [limit("not measured")])["state"] == "incomplete"
    assert judged(records(scope="unknown", gate=["drive-os-7"]))["state"] == "incomplete"
    assert judged(records(), [limit("pass")])["state"] == "pass"


def test_a_failed_stage_fails_and_a_missing_one_is_named() -> None:
    assert judged(records(), [limit("fail")], profile=False)["state"] == "fail"
    found = records()
    del found["verify"]
    assert judged(found)["state"] == "incomplete"
    assert "verify was not run" in judged(found)["reasons"]


def test_a_limit_says_where_it_was_measured() -> None:
    (check,) = [c for c in gate_states(records(), {"profile": {"gates": [limit("pass")]}}) if "p50" in c["text"]]
    assert check["evidence"] == "this machine's CPU, not the target"
    assert check["text"] == "fp16 p50_ms at most 5: 4 (3.9 to 4.1)"


@pytest.mark.parametrize(
    ("value", "low", "high", "word"),
    [
        (1.10896, 0.97, 1.2, "no difference shown"),
        (1.01, 1.005, 1.03, "undecided"),
        (1.001, 0.99, 1.015, "pass"),
    ],
)
def test_a_baseline_is_in_percent_and_says_no_more_than_was_shown(
    value: float, low: float, high: float, word: str
) -> None:
    gate = {"label": "fp16", "quantity": "p50 against baseline", "bound": 0.02, "reason": "", "verdict": "pass"}
    gate |= {"value": value, "low": low, "high": high}
    (check,) = gate_states({}, {"profile": {"gates": [gate]}})
    percents = [f"{100 * share - 100:+.1f}" for share in (value, low, high)]
    said = "{} % (99 % interval {} to {} %), allowed 2 %".format(*percents)
    assert check["text"] == f"fp16 p50 against baseline {said}" + ("" if word == "pass" else f": {word}")
    assert (word_of(gate), check["state"]) == (word, "pass")  # it did not fail


def test_markdown_cannot_be_broken_out_of() -> None:
    data = {
        "network": "net",
        "verdict": {"state": "fail", "checks": [], "reasons": ["a | b\n<script>`"]},
        "rows": [],
        "records": {},
        "batch": 2,
        "not_measured": [],
    }
    assert "- a \\| b &lt;script>'" in summary(data)


def test_the_columns_are_those_that_a_network_has() -> None:
    """A map has a mean IoU and no top-1; the verdict names the bound that decided, the latency what ran."""
    metrics = {"mean_iou_agreement": 0.52, "pixel_agreement": 0.96, "snr_db": 20.1}
    row = {
        "label": "int8",
        "precision": "int8",
        "path": "",
        "bytes": 1024,
        "nodes": 3,
        "macs": 1000,
        "metrics": metrics,
    }
    row |= {"intervals": {}, "verify": "fail", "decided_by": "mean_iou_agreement of mask 52.00 %", "not_measured": None}
    row |= {"latency_ms": {"50": 86.0, "99": 90.0}}
    data = {"network": "net", "verdict": {"state": "fail", "checks": [], "reasons": []}, "rows": [row], "records": {}}
    said = summary({**data, "config": {}, "batch": 1, "not_measured": []})
    assert "| mean IoU with reference | pixels as reference | signal/noise |" in said and "top-1" not in said
    assert (
        "| 52.00 % | 96.00 % | 20.1 dB | fail: mean_iou_agreement of mask 52.00 % | 86.00 ms CPU, fake-quantized |"
        in said
    )
    labelled = {**row, "metrics": {"top1": 0.9, "reference_top1": 0.91, "top1_agreement": 0.99}}
    said = summary({**data, "rows": [labelled], "config": {}, "batch": 1, "not_measured": []})
    assert "| top-1 | agrees with reference |" in said and "top-5" not in said and "IoU" not in said
    detector = {**row, "metrics": {**metrics, "map": 0.5}}
    said = summary({**data, "rows": [detector], "config": {"task": "detection"}, "batch": 1, "not_measured": []})
    assert "signal/noise" in said and "IoU" not in said and "pixels as" not in said
