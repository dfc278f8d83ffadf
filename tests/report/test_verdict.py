"""The headline covers the gates that it lists, each with its own state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from csa_deploy.records.build import BuildRecord, EngineRecord, JudgedScope, RestrictedFlag
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.profile import Gate, Profiled, ProfileRecord, TimedEntry
from csa_deploy.records.report import Headline, Records, ReportData, Row
from csa_deploy.records.verify import CandidateRecord, ComparedData, Runtime, VerifyRecord
from csa_deploy.report.markdown import summary
from csa_deploy.report.verdict import gate_states, verdict, word_of
from csa_deploy.results import NotMeasured

ORDER = ("check", "build", "verify", "profile")


def candidate(label: str, state: str = "pass") -> CandidateRecord:
    found: Any = {"outputs": (), "checks": (), "non_finite": {}, "reference_non_finite": {}}
    found |= {"metrics": {}, "decided_by": "", "preprocessing_differs": {}, "path": "", "runner": {}}
    return CandidateRecord(label=label, precision=label, verdict=state, tensors_sha256="", **found)  # type: ignore[arg-type]


def engine(*scopes: JudgedScope) -> EngineRecord:
    flag = RestrictedFlag("builder", requested=True, accepted=True, acts=True, evidence="validator")
    empty = dict.fromkeys(("compute_capabilities", "flags", "inputs", "outputs", "warnings", "not_done"), ())
    named = dict.fromkeys(
        ("backend", "version", "model", "path", "engine", "log", "inspection", "network", "passport"), ""
    )
    counts: Any = {"plan": {}, "layer_counts": {}, "dtype_counts": {}, "engine_mib": 1.0}
    return EngineRecord(restricted=flag, scopes=scopes, **empty, **named, **counts)  # type: ignore[arg-type]


def scope(verdict: str, level: str) -> JudgedScope:
    return JudgedScope("drive-os-7", "", "", verdict, verdict, level, "")  # type: ignore[arg-type]


def records(state: str = "pass", verdict: str = "allowed", gate: tuple[str, ...] = ()) -> Records:
    timed = TimedEntry(label="fp16", path="", runner={}, evidence="this machine's CPU, not the target")
    return Records(
        check=CheckRecord(summary="checked", model="", scopes=(), gate=gate),
        build=BuildRecord(summary="built", engines={"fp16": engine(*([scope(verdict, "validator")] if gate else []))}),
        verify=VerifyRecord(
            summary="compared",
            not_measured=(NotMeasured("engine fp16", "no GPU"),),
            verdict=state,  # type: ignore[arg-type]
            partial="",
            reference={"backend": "torch"},
            accuracy=None,
            data=ComparedData("digits", 10, True, "", ""),
            candidates=(candidate("fp32"), candidate("fp16", state)),
            arbitration=(),
            localization=(),
            runtime=Runtime((), ()),
        ),
        profile=ProfileRecord(summary="measured", contract={}, measured=(timed,), cost={}, layers={}),
    )


def judged(found: Records, gates: Sequence[Gate] = (), **passed: bool) -> Headline:
    return verdict({name: passed.get(name, True) for name in found.done}, ORDER, found, Profiled(gates=tuple(gates)))


def limit(state: Any) -> Gate:
    return Gate("fp16", "p50_ms", 5.0, 4.0, 3.9, 4.1, state)


def test_a_pass_says_what_it_rests_on_and_what_did_not_run() -> None:
    found = judged(records(gate=("drive-os-7",)))
    assert found.state == "pass"
    assert "accuracy budgets on 10 samples: fp32, fp16; engine fp16 did not run here" in found.gates
    assert any("(evidence: validator)" in text for text in found.gates)


def test_graphs_that_a_scope_judges_alike_are_one_gate() -> None:
    found = records(gate=("drive-os-7",))
    assert found.build is not None
    engines = found.build.engines
    engines["fp32"] = engines["fp16"]
    engines["int8"] = engine(scope("unknown", "static"))
    assert [c.text for c in gate_states(found, None) if c.name == "restricted mode"] == [
        "restricted mode, fp32, fp16 as built: drive-os-7 allowed (evidence: validator)",
        "restricted mode, int8 as built: drive-os-7 unknown (evidence: static)",
    ]


def test_an_open_accuracy_gate_says_of_which_graphs() -> None:
    (gate,) = [c for c in gate_states(records(state="undecided"), None) if c.name == "accuracy"]
    assert gate.text.startswith("accuracy budgets on 10 samples: pass: fp32; undecided: fp16;")


def test_the_reference_is_named_for_what_it_is() -> None:
    found = records()
    assert gate_states(found, None)[0].evidence == "compared with PyTorch on digits"
    assert found.verify is not None
    found.verify.reference["backend"] = "onnxruntime"
    assert gate_states(found, None)[0].evidence == "compared with the source graph on digits"


def test_restricted_mode_does_not_count_unless_asked_for() -> None:
    checks = gate_states(records(), None)
    assert [c.state for c in checks if c.name == "restricted mode"] == ["not counted"]
    assert judged(records()).state == "pass"


@pytest.mark.shows("MEA-30", "MEA-40", "ERR-34")
def test_what_is_open_keeps_the_verdict_from_passing() -> None:
    assert judged(records(state="undecided")).state == "incomplete"
    assert judged(records(), [limit("undecided")]).state == "incomplete"
    assert judged(records(), [limit("not measured")]).state == "incomplete"
    assert judged(records(verdict="unknown", gate=("drive-os-7",))).state == "incomplete"
    assert judged(records(), [limit("pass")]).state == "pass"


@pytest.mark.shows("MEA-40", "ERR-34")
def test_a_failed_stage_fails_and_a_missing_one_is_named() -> None:
    assert judged(records(), [limit("fail")], profile=False).state == "fail"
    found = replace(records(), verify=None)
    assert judged(found).state == "incomplete"
    assert "verify was not run" in judged(found).reasons


@pytest.mark.shows("MEA-33")
def test_a_limit_says_where_it_was_measured() -> None:
    (check,) = [c for c in gate_states(records(), Profiled(gates=(limit("pass"),))) if "p50" in c.text]
    assert check.evidence == "this machine's CPU, not the target"
    assert check.text == "fp16 p50_ms at most 5: 4 (3.9 to 4.1)"


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
    gate = Gate("fp16", "p50 against baseline", 0.02, value, low, high, "pass")
    (check,) = gate_states(Records(), Profiled(gates=(gate,)))
    percents = [f"{100 * share - 100:+.1f}" for share in (value, low, high)]
    said = "{} % (99 % interval {} to {} %), allowed 2 %".format(*percents)
    assert check.text == f"fp16 p50 against baseline {said}" + ("" if word == "pass" else f": {word}")
    assert (word_of(gate), check.state) == (word, "pass")  # it did not fail


def data(*reasons: str) -> ReportData:
    named: Any = {"csa_deploy": "", "network": "net", "workspace": "", "config": {}, "batch": 1, "measurements": {}}
    verdict = Headline("fail", reasons, ())
    return ReportData(verdict=verdict, stages=(), rows=(), records=Records(), not_measured=(), **named)


def test_markdown_cannot_be_broken_out_of() -> None:
    assert "- a \\| b &lt;script>'" in summary(data("a | b\n<script>`"))


def test_the_columns_are_those_that_a_network_has() -> None:
    """A map has a mean IoU and no top-1; the verdict names the bound that decided, the latency what ran."""
    metrics = {"mean_iou_agreement": 0.52, "pixel_agreement": 0.96, "snr_db": 20.1}
    row = Row(label="int8", precision="int8", path="", bytes=1024, nodes=3, macs=1000, metrics=metrics, verify="fail")
    row = replace(row, decided_by="mean_iou_agreement of mask 52.00 %", latency_ms={"50": 86.0, "99": 90.0})
    said = summary(replace(data(), rows=(row,)))
    assert "| mean IoU with reference | pixels as reference | signal/noise |" in said and "top-1" not in said
    assert (
        "| 52.00 % | 96.00 % | 20.1 dB | fail: mean_iou_agreement of mask 52.00 % | 86.00 ms CPU, fake-quantized |"
        in said
    )
    labelled = replace(row, metrics={"top1": 0.9, "reference_top1": 0.91, "top1_agreement": 0.99})
    said = summary(replace(data(), rows=(labelled,)))
    assert "| top-1 | agrees with reference |" in said and "top-5" not in said and "IoU" not in said
    detector = replace(row, metrics={**metrics, "map": 0.5})
    said = summary(replace(data(), rows=(detector,), config={"task": "detection"}))
    assert "signal/noise" in said and "IoU" not in said and "pixels as" not in said
