"""One verdict of a policy, from both sides of every boundary."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import beta
from typer.testing import CliRunner

from csa_deploy.bundle.verdict import Verdict
from csa_deploy.cli.main import app
from csa_deploy.levels import LEVELS
from csa_deploy.policy.deployment import Deployment
from csa_deploy.policy.judging import judge_policy
from csa_deploy.policy.reporters import as_junit, as_markdown
from csa_deploy.policy.verdict import PolicyVerdict, Requirement

Written = Callable[..., Path]
DAY = datetime.date(2026, 12, 1)
RULE, OTHER_RULE = "attention.segformer-batch", "common.loop"


def judged(path: Path, deployment: Deployment, day: datetime.date = DAY) -> PolicyVerdict:
    return judge_policy(path, deployment, today=day)


def only(verdict: PolicyVerdict, kind: str) -> Requirement:
    (found,) = [r for r in verdict.requirements if r.kind == kind]
    return found


def edited(deployment: Deployment, stage: str, edit: Callable[[Any], None]) -> Deployment:
    """The deployment with another record."""
    records = json.loads(json.dumps(deployment.records))
    edit(records[stage])
    return replace(deployment, records=records)


def problem(name: str, severity: str, state: str = "affected") -> dict[str, Any]:
    words = ("title", "why", "symptom", "versions", "read", "workaround", "repair", "detect")
    found: dict[str, Any] = dict.fromkeys(words, "said")
    return {**found, "id": name, "state": state, "severity": severity, "symptom": "wrong-result"} | {
        "nodes": [],
        "modules": [],
        "sources": [],
    }


def built_by(deployment: Deployment, backend: str, version: str, *, asked: str) -> Deployment:
    """The deployment with engines of a builder, and errata that were asked of a version."""
    named = edited(deployment, "check", lambda record: record["errata"].update(tensorrt=asked))
    engines = {"backend": backend, "version": version}
    return edited(named, "build", lambda record: [engine.update(engines) for engine in record["engines"].values()])


def with_problems(deployment: Deployment, *problems: Mapping[str, Any]) -> Deployment:
    asked = edited(deployment, "check", lambda record: record["errata"].update(problems=list(problems)))
    return built_by(asked, "tensorrt", "10.3.0.26", asked="10.3")


def accepting(*names: str, expires: str = "2027-01-31", **more: Any) -> list[dict[str, Any]]:
    return [{"id": name, "reason": "looked at", "expires": expires, **more} for name in names]


def test_a_policy_that_is_met(fp16: Deployment, written: Written) -> None:
    path = written(
        scopes={"drive-os-6": {"level": "static"}},
        errata={"severity": "low"},
        accepted=accepting("errata.not-asked-of-rtx"),
        budgets={"fp16": {"top1_agreement": 0.95, "snr_db": 20}},
        limits={"exported": {"weights_mib": 10}, "engine fp16": {"engine_mib": 2}},
    )
    verdict = judged(path, fp16)
    assert verdict.verdict == "accepted" and verdict.failure() is None
    kinds = [r.kind for r in verdict.requirements]
    assert kinds == ["own gates", "scope", *["errata"] * 2, *["accuracy"] * 2, *["limit"] * 2, "acceptance"]
    assert all(r.found and (r.evidence or r.kind == "acceptance") for r in verdict.requirements)
    data = verdict.to_json()
    assert (data["schema_version"], data["verdict"]) == (1, "accepted")
    assert PolicyVerdict.from_json(json.loads(json.dumps(data))) == verdict


@pytest.mark.parametrize(("wanted", "state"), [(level, "pass" if level == "static" else "fail") for level in LEVELS])
@pytest.mark.shows("MEA-45", "ERR-37")
def test_the_weakest_evidence_that_will_do(fp16: Deployment, written: Written, wanted: str, state: str) -> None:
    found = only(judged(written(scopes={"drive-os-6": {"level": wanted}}), fp16), "scope")
    assert found.state == state
    assert state == "pass" or "validator: " in found.found, "why it is not stronger"


def test_a_scope_that_nobody_judged_is_not_met(deployment: Deployment, written: Written) -> None:
    verdict = judged(written(scopes={"drive-os-7": {}}), deployment)
    states = [r.state for r in verdict.requirements if r.kind == "scope"]
    assert states and set(states) == {"not measured"} and verdict.verdict == "incomplete"


@pytest.mark.parametrize(
    ("verdict", "rules", "accepted", "state"),
    [
        ("allowed", [], [], "pass"),
        ("denied", [], [], "fail"),
        ("denied", [RULE], [RULE], "fail"),
        ("unknown", [RULE, OTHER_RULE], [RULE, OTHER_RULE], "pass"),
        ("unknown", [RULE, OTHER_RULE], [RULE], "undecided"),
        ("unknown", [], [], "undecided"),
        ("with GPU fallback", [], [], "fail"),
    ],
)
def test_what_is_unknown_can_be_accepted_and_what_is_denied_cannot(
    deployment: Deployment, written: Written, verdict: str, rules: list[str], accepted: list[str], state: str
) -> None:
    def edit(record: Any) -> None:
        record["engines"] = {"fp16": record["engines"]["fp16"]}
        record["engines"]["fp16"]["scopes"][0].update(verdict=verdict, unknown_by=rules)

    path = written(scopes={"drive-os-6": {}}, accepted=accepting(*accepted))
    found = judged(path, edited(deployment, "build", edit))
    assert only(found, "scope").state == state
    assert (found.verdict == "accepted") == (state == "pass")


def test_a_graph_that_was_checked_says_nothing_about_an_engine_of_another(
    deployment: Deployment, written: Written
) -> None:
    policy = written(scopes={"drive-os-6": {}})
    unjudged = edited(deployment, "build", lambda r: [e.update(scopes=[]) for e in r["engines"].values()])
    found = [r for r in judged(policy, unjudged).requirements if r.kind == "scope"]
    assert found and {r.state for r in found} == {"not measured"}
    assert all("was not judged" in r.found and "--restricted --scope drive-os-6" in r.found for r in found)
    one = edited(deployment, "build", lambda r: next(iter(r["engines"].values())).update(scopes=[]))
    assert judged(policy, one).verdict != "accepted"


def test_without_engines_a_scope_is_that_of_the_graph_that_was_checked(
    deployment: Deployment, written: Written
) -> None:
    checked = edited(deployment, "build", lambda r: r.update(engines={}))
    verdict = judged(written(scopes={"drive-os-6": {}}), checked)
    assert only(verdict, "scope").state == "pass" and "exported graph" in only(verdict, "scope").evidence


@pytest.mark.parametrize(
    ("severity", "asked", "state", "not_ruled_out", "counts"),
    [
        ("high", "high", "affected", False, True),
        ("medium", "high", "affected", False, False),
        ("medium", "medium", "affected", False, True),
        ("low", "medium", "affected", False, False),
        ("low", "low", "affected", False, True),
        ("high", "low", "not ruled out", False, False),
        ("high", "low", "not ruled out", True, True),
    ],
)
def test_which_known_problems_have_to_be_accepted(
    deployment: Deployment, written: Written, severity: str, asked: str, state: str, not_ruled_out: bool, counts: bool
) -> None:
    met = with_problems(deployment, problem(RULE, severity, state))
    keys = {"errata": {"severity": asked, "not_ruled_out": not_ruled_out}}
    assert judged(written(**keys), met).verdict == ("rejected" if counts else "accepted")
    # Accepted by id it is met; where it does not count, the entry is unused, which is a finding.
    accepted = judged(written(**keys, accepted=accepting(RULE)), met)
    assert accepted.verdict == ("accepted" if counts else "rejected")
    assert only(accepted, "acceptance").state == ("pass" if counts else "fail")


@pytest.mark.parametrize(
    ("day", "verdict"), [("2027-01-30", "accepted"), ("2027-01-31", "accepted"), ("2027-02-01", "rejected")]
)
@pytest.mark.shows("MEA-45", "ERR-37")
def test_an_acceptance_counts_up_to_its_last_day(
    deployment: Deployment, written: Written, day: str, verdict: str
) -> None:
    met = with_problems(deployment, problem(RULE, "high"))
    path = written(errata={}, accepted=accepting(RULE))
    found = judged(path, met, datetime.date.fromisoformat(day))
    assert found.verdict == verdict
    if verdict == "rejected":
        assert only(found, "errata").state == "fail"
        assert only(found, "acceptance").found.startswith("expired 1 days ago")


@pytest.mark.shows("MEA-45", "ERR-37")
def test_an_expired_entry_is_a_finding_even_where_nothing_needs_it(deployment: Deployment, written: Written) -> None:
    verdict = judged(written(errata={}, accepted=accepting(RULE, expires="2026-11-30")), with_problems(deployment))
    assert [r.state for r in verdict.requirements] == ["pass", "pass", "fail"]


@pytest.mark.shows("MEA-45")
def test_an_unused_entry_says_whether_its_id_is_known(deployment: Deployment, written: Written) -> None:
    path = written(accepted=accepting(RULE, "attention.segformer-bach"))
    known, misspelt = (r.found for r in judged(path, deployment).requirements if r.kind == "acceptance")
    assert "nothing that was judged meets it" in known
    assert "attention.segformer-batch" in misspelt and "nothing that was judged" not in misspelt


@pytest.mark.parametrize(("networks", "counted"), [(["csa_digits"], True), (["other"], False), ([], True)])
def test_an_entry_is_about_some_networks(
    deployment: Deployment, written: Written, networks: list[str], counted: bool
) -> None:
    met = with_problems(deployment, problem(RULE, "high"))
    verdict = judged(written(errata={}, accepted=accepting(RULE, networks=networks)), met)
    assert (verdict.verdict == "accepted") == counted
    assert any(r.kind == "acceptance" for r in verdict.requirements) == counted


@pytest.mark.parametrize(
    ("backend", "version", "asked", "accepted", "state"),
    [
        ("tensorrt", "10.3.0.26", "10.3", (), "pass"),
        ("trtexec", "10.3.0.26", "10.3.0", (), "pass"),
        ("tensorrt", "10.3.0.26", "10", (), "pass"),
        ("tensorrt", "10.3.0.26", "", (), "pass"),
        ("tensorrt", "10.13.0.26", "10.1", (), "undecided"),
        ("trtexec", "11.4.1", "10.3", (), "undecided"),
        ("tensorrt-rtx", "1.7.1.116", "10.3", (), "undecided"),
        ("tensorrt-rtx", "1.7.1.116", "", (), "undecided"),
        ("tensorrt-rtx", "1.7.1.116", "", ("errata.not-asked-of-rtx",), "pass"),
    ],
)
@pytest.mark.shows("MEA-45", "ERR-28")
def test_errata_of_another_tensorrt_than_the_engine_s_are_open(
    fp16: Deployment, written: Written, backend: str, version: str, asked: str, accepted: tuple[str, ...], state: str
) -> None:
    given = built_by(fp16, backend, version, asked=asked)
    verdict = judged(written(errata={"severity": "high"}, accepted=accepting(*accepted)), given)
    assert {r.state for r in verdict.requirements if r.kind == "errata"} - {"pass"} == {state} - {"pass"}
    assert verdict.verdict == ("accepted" if state == "pass" else "incomplete")


def test_errata_of_older_packs_and_errata_that_were_not_asked_are_open(
    deployment: Deployment, written: Written
) -> None:
    old = edited(deployment, "check", lambda record: record["errata"].update(read="2020-01-01"))
    found = judged(written(errata={}), old)
    assert (
        found.verdict == "incomplete" and found.unmet[0].state == "undecided" and "2020-01-01" in found.unmet[0].found
    )
    silent = edited(deployment, "check", lambda record: record.pop("errata"))
    assert judged(written(errata={}), silent).unmet[0].state == "not measured"
    beyond = edited(deployment, "check", lambda record: record["errata"].update(unknown=["nothing is known of it"]))
    assert judged(written(errata={}), beyond).unmet[0].found == "nothing is known of it"


@pytest.mark.parametrize(("asked", "state"), [(("fp16",), "pass"), (("fp32", "int8"), "undecided"), ((), "pass")])
def test_errata_of_other_precisions_than_the_engine_s_are_open(
    fp16: Deployment, written: Written, asked: tuple[str, ...], state: str
) -> None:
    given = built_by(fp16, "tensorrt", "10.3.0.26", asked="10.3")
    given = edited(given, "check", lambda record: record["errata"].update(precisions=list(asked)))
    verdict = judged(written(errata={"severity": "high"}), given)
    assert {r.state for r in verdict.requirements if r.kind == "errata"} - {"pass"} == {state} - {"pass"}


def test_an_accuracy_bound_is_held_against_its_interval(deployment: Deployment, written: Written) -> None:
    """The end of the interval by SciPy; a bound between it and what was measured is undecided."""
    assert deployment.results is not None
    candidate = next(c for c in deployment.results.candidates if c.label == "int8")
    (output,) = candidate.outputs
    agrees = np.array(output.columns["agrees"])
    agrees[:3] = 0
    changed = replace(candidate, outputs=(replace(output, columns={**output.columns, "agrees": agrees}),))
    deployment = replace(deployment, results=replace(deployment.results, candidates=(changed,)))
    low, share = float(beta.ppf(0.025, 197, 4)), 197 / 200
    for bound, state in ((low - 1e-6, "pass"), (low + 1e-6, "undecided"), (share, "undecided"), (share + 1e-6, "fail")):
        verdict = judged(written(budgets={"int8": {"top1_agreement": bound}}), deployment)
        assert only(verdict, "accuracy").state == state, bound


@pytest.mark.shows("MEA-45", "ERR-37")
def test_a_bound_on_the_engine_is_not_met_by_its_graph(deployment: Deployment, written: Written) -> None:
    budget = {"fp16": {"top1_agreement": 0.9}}
    assert judged(written(budgets=budget), deployment).verdict == "accepted"
    verdict = judged(written(budgets=budget, measured_on="engine"), deployment)
    (unmet,) = verdict.unmet
    assert unmet.state == "not measured" and verdict.verdict == "incomplete"


def test_a_file_that_is_named_like_the_graph_is_not_the_graph(deployment: Deployment, written: Written) -> None:
    """`verify fp16.onnx` beside a workspace whose own FP16 graph was not compared."""
    path = written(budgets={"fp16": {"snr_db": 0}})
    said = "fp16 was compared"
    assert said not in [item.name for item in judged(path, deployment).requirements]
    assert deployment.results is not None
    renamed = tuple(
        replace(one, label="fp16.onnx") if one.label == "fp16" else one for one in deployment.results.candidates
    )
    other = replace(deployment, results=replace(deployment.results, candidates=renamed))
    assert [item.state for item in judged(path, other).requirements if item.name == said] == ["not measured"]


@pytest.mark.parametrize("metric", ["mean_iou", "output.mean_iou", "map50_drop", "mean_iou_agreement"])
@pytest.mark.shows("MEA-45", "ERR-37")
def test_a_bound_on_a_metric_of_another_task_is_not_measured(
    deployment: Deployment, written: Written, metric: str
) -> None:
    """A classifier has no mean IoU: a policy that asks for it is not met."""
    verdict = judged(written(budgets={"int8": {metric: 0.5, "snr_db": 10}}), deployment)
    (unmet,) = verdict.unmet
    assert verdict.verdict == "incomplete" and unmet.state == "not measured"
    assert metric.rpartition(".")[2] in unmet.name


@pytest.mark.parametrize("lacking", ["results", "profile", "own_gates"])
@pytest.mark.shows("MEA-45", "MEA-30", "ERR-37")
def test_what_a_deployment_does_not_hold_is_not_measured(
    deployment: Deployment, written: Written, lacking: str
) -> None:
    path = written(budgets={"fp16": {"snr_db": 20}}, limits={"fp32": {"weights_mib": 10}})
    (unmet,) = judged(path, replace(deployment, **{lacking: None})).unmet
    assert unmet.state == "not measured"


@pytest.mark.shows("MEA-45")
def test_a_partial_comparison_decides_nothing(deployment: Deployment, written: Written) -> None:
    assert deployment.results is not None
    meta = {**deployment.results.meta, "total": len(deployment.results.ids) + 1}
    partial = replace(deployment, results=replace(deployment.results, meta=meta))
    verdict = judged(written(budgets={"fp16": {"snr_db": 20}}), partial)
    assert verdict.verdict == "incomplete" and verdict.unmet[0].name == "all samples were compared"


@pytest.mark.parametrize(("difference", "verdict"), [(0.5, "rejected"), (1e-9, "accepted")])
def test_a_sample_that_gives_something_else_in_another_batch(
    deployment: Deployment, written: Written, difference: float, verdict: str
) -> None:
    assert deployment.results is not None
    found = {"output": "output", "against": "batch 1", "sample": "3", "difference": difference, "rounding": 1e-6}
    meta = {**deployment.results.meta, "batch": {"fp16": {"batch": 4, "samples": 8, "differences": [found]}}}
    other = replace(deployment, results=replace(deployment.results, meta=meta))
    assert judged(written(budgets={"fp16": {"snr_db": 20}}), other).verdict == verdict


def test_limits(deployment: Deployment, written: Written) -> None:
    assert deployment.profile is not None
    latency = deployment.profile.latency["fp32"]
    low, high = latency.intervals_ms["50"]
    for bound, state in ((high, "pass"), ((low + high) / 2, "undecided"), (low * 0.999, "fail")):
        found = only(judged(written(limits={"fp32": {"p50_ms": bound}}), deployment), "limit")
        assert found.state == state and "ONNX Runtime" in found.evidence
    size = deployment.records["build"]["engines"]["fp16"]["engine_bytes"] / 2**20
    for bound, state in ((size, "pass"), (size * 0.999999, "fail")):
        assert only(judged(written(limits={"engine fp16": {"engine_mib": bound}}), deployment), "limit").state == state


def test_a_bundle_is_about_one_precision(deployment: Deployment, written: Written) -> None:
    fp16 = replace(deployment, precision="fp16")
    keys: dict[str, Any] = {"budgets": {"fp16": {"snr_db": 20}, "int8": {"snr_db": 1e9}}}
    keys["limits"] = {"engine int8": {"engine_mib": 1e-9}, "exported": {"weights_mib": 100}}
    verdict = judged(written(**keys), fp16)
    assert verdict.verdict == "accepted"
    assert [r.name for r in verdict.requirements if r.state == "not applicable"] == ["int8 budget", "engine int8"]
    assert judged(written(**keys), deployment).verdict == "rejected"


def test_the_own_gates_of_the_run(deployment: Deployment, written: Written) -> None:
    for asked, state, said in (
        ("pass", "pass", "accepted"),
        ("pass", "incomplete", "incomplete"),
        ("not failed", "incomplete", "accepted"),
        ("not failed", "fail", "rejected"),
    ):
        gates = replace(deployment, own_gates=Verdict(state, ("why",), ()))
        assert judged(written(own_gates=asked), gates).verdict == said, (asked, state)


def test_a_workspace_bears_no_signature(deployment: Deployment, written: Written, tmp_path: Path) -> None:
    path = written(signatures=[{"method": "ssh", "trusted": "signers"}])
    assert only(judged(path, deployment), "signature").state == "not measured"


def test_every_engine_of_a_workspace_is_held_against_a_scope(deployment: Deployment, written: Written) -> None:
    """The records of before are silent on the rules that leave the INT8 graph unknown, so nothing can accept them."""
    verdict = judged(written(scopes={"drive-os-6": {}}), deployment)
    found = {r.evidence.partition(",")[0]: r.state for r in verdict.requirements if r.kind == "scope"}
    assert found == {"static: engine fp16": "pass", "static: engine fp32": "pass", "static: engine int8": "undecided"}


def test_the_verb_and_its_forms(root: Path, deployment: Deployment, written: Written) -> None:
    good = written(budgets={"fp16": {"snr_db": 20}, "int8": {"snr_db": 1}})
    words = ["gate", str(good), "-w", str(root)]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    data = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert data["verdict"] == "accepted" and data["policy"] == "of the tests"
    bad = written(budgets={"fp16": {"snr_db": 1e6}, "int8": {"snr_db": 1}}, scopes={"drive-os-7": {}})
    failed = CliRunner().invoke(app, ["gate", str(bad), "-w", str(root), "--json", "--on", "2026-12-01"])
    assert failed.exception is not None and getattr(failed.exception, "exit_code", None) == 8
    told = json.loads(failed.stdout)
    assert (told["verdict"], told["error"]["exit_code"], told["judged_on"]) == ("rejected", 8, "2026-12-01")
    verdict = judged(bad, deployment)
    xml = ElementTree.fromstring(as_junit(verdict))
    assert (xml.get("tests"), xml.get("failures")) == (str(len(verdict.requirements)), str(len(verdict.unmet)))
    rows = [line for line in as_markdown(verdict).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(verdict.requirements) and "REJECTED" in as_markdown(verdict)
    assert rows[-1].count(" fail ") == 0 and sum(" fail " in row for row in rows) == 1
