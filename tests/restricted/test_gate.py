"""The gate: what the rules say and what NVIDIA's validator says, as one verdict."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from restricted_networks import single

from csa_deploy.restricted.check import check
from csa_deploy.restricted.explain import explain
from csa_deploy.restricted.inspection import GateResult, ScopeVerdict, rejection
from csa_deploy.restricted.reporters.formats import FORMATS, render
from csa_deploy.restricted.validator import RefusedLayer, ValidatorVerdict

REFUSED = ValidatorVerdict("refused", (RefusedLayer("Relu", "the_node", ("LayerSizeLimit",)),), "out of scope")


def gate(op: str, answer: ValidatorVerdict | None, strict: bool = False) -> GateResult:
    report = check(single(op), ["drive-os-7"], strict=strict, name="net.onnx")
    return GateResult(report, tuple(ScopeVerdict(scope, answer) for scope in report.scopes))


def suite_of(result: GateResult) -> ElementTree.Element:
    found = ElementTree.fromstring(render(result.inspected, "junit")).find("testsuite")
    assert found is not None
    return found


def test_the_validator_lifts_the_evidence() -> None:
    scope = gate("Relu", ValidatorVerdict("accepted")).scopes[0]
    assert (scope.verdict, scope.level, scope.differs) == ("allowed", "validator", "")
    assert gate("Relu", None).scopes[0].level == "static"


@pytest.mark.parametrize(
    "form", [form for form in FORMATS if form != "model-explorer"]
)  # which has no room for reasons
@pytest.mark.shows("MEA-03")
def test_a_layer_that_only_the_validator_refuses_is_a_loud_finding(form: str) -> None:
    result = gate("Relu", REFUSED)
    assert (result.scopes[0].verdict, result.scopes[0].level) == ("denied", "validator")
    text = render(result.inspected, form)
    for words in ("validator.refused", "the_node", "LayerSizeLimit", "the rule pack says allowed"):
        assert words in text.replace("&#39;", "'").replace("\\_", "_")  # as the form escapes
    failure = rejection(result, False, "net.onnx")
    assert failure is not None and "validator.refused: the_node" in str(failure)


def test_junit_fails_what_only_the_validator_refuses() -> None:
    suite = suite_of(gate("Relu", REFUSED))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")


@pytest.mark.parametrize("answer", ["crashed", "timed-out", "not-parsed", "skipped"])
@pytest.mark.shows("MEA-03")
def test_no_answer_is_a_finding_and_no_pass(answer: str) -> None:
    result = gate("Relu", ValidatorVerdict(answer, reason="two\nlines"))  # type: ignore[arg-type]
    scope = result.scopes[0]
    assert (scope.report.verdict, scope.verdict, scope.level) == ("allowed", "unknown", "static")
    assert scope.combined.findings[0].rule == f"validator.{answer}"
    assert "two lines" in scope.combined.findings[0].message and "two lines" in scope.why_not_next
    assert explain(f"validator.{answer}")
    assert rejection(result, False, "net.onnx") is None
    assert rejection(result, True, "net.onnx") is not None


@pytest.mark.parametrize("answer", ["not-available"])
def test_a_validator_that_did_not_look_changes_nothing(answer: str) -> None:
    scope = gate("Relu", ValidatorVerdict(answer, reason="why")).scopes[0]  # type: ignore[arg-type]
    assert scope.combined.findings == scope.report.findings
    assert (scope.verdict, scope.level) == ("allowed", "static")
    assert "why" in scope.why_not_next


def test_the_validator_does_not_lift_what_the_rules_deny() -> None:
    result = gate("LRN", ValidatorVerdict("accepted"))
    scope = result.scopes[0]
    assert (scope.verdict, scope.level) == ("denied", "static")
    assert "says denied" in scope.differs and result.notes


def test_doubts_that_the_validator_clears_are_notes_in_every_format() -> None:
    result = gate("Mystery", ValidatorVerdict("accepted"), strict=True)
    assert result.scopes[0].report.verdict == "unknown"
    assert (result.scopes[0].verdict, result.rejected(True)) == ("allowed", [])
    assert suite_of(result).get("failures") == "0"


def test_the_error_names_every_scope_that_rejects_and_the_way_on() -> None:
    report = check(single("GlobalAveragePool"), ["drive-os-6", "dla-orin"], name="net.onnx")
    failure = rejection(GateResult(report, tuple(map(ScopeVerdict, report.scopes))), False, "net.onnx")
    assert "denied in drive-os-6, dla-orin: reduce: " in str(failure)
    assert "--fix" in str(failure)
