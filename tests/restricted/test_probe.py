"""The committed probes: the pack follows from them, and agrees with every one of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csa_deploy.errors import OperationRejectedError, UsageError
from csa_deploy.restricted.judge import Judge
from csa_deploy.restricted.mapping.recorder import TrtLayer
from csa_deploy.restricted.schema import load_pack
from csa_deploy.restricted.validator import ValidatorSession, validator_status
from tools.probe import __main__ as program
from tools.probe import evidence, pack, run
from tools.probe.derive import DerivationError, derive, verdict_of
from tools.probe.evidence import Evidence, Finding
from tools.probe.probe import distinct, probe

needs_validator = pytest.mark.skipif(not validator_status().installed, reason="NVIDIA's validator is not installed")


@pytest.fixture(scope="module")
def committed() -> Evidence:
    return evidence.load()


@pytest.mark.slow
def test_plan_is_stable_and_large():
    first, second = run.plan(), run.plan()
    assert first == second
    assert len(first) >= 2500


def test_two_probes_of_one_name_are_a_mistake():
    with pytest.raises(ValueError, match="two probes"):
        list(distinct([probe("a", 1), probe("a", 1)]))


def test_evidence_belongs_to_the_plan(committed):
    assert [finding.id for finding in committed.findings] == [item.id for item in run.plan()]
    assert sum(finding.has_verdict for finding in committed.findings) >= 1500


def test_evidence_survives_writing_and_reading(committed, tmp_path):
    file = tmp_path / "evidence.json"
    file.write_text(evidence.EVIDENCE_FILE.read_text(encoding="utf-8"), encoding="utf-8")
    assert evidence.load(file) == committed
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"evidence\.json"):
        evidence.load(file)


def test_pack_follows_from_the_evidence(committed):
    assert program.pack_text(committed) == pack.PACK_FILE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_pack_agrees_with_every_probe(committed):
    judge = Judge(load_pack("drive-os-7"))
    order = ["denied", "unknown", "allowed"]
    wrong = []
    for finding in committed.findings:
        if finding.has_verdict:
            verdicts = {_verdict(judge, facts) for facts in finding.layers}
            verdict = min(verdicts, key=order.index)
            if verdict != verdict_of(finding):
                wrong.append((finding.id, verdict, finding.answer))
    assert wrong == []


def test_pack_denies_exactly_the_refused_layers(committed):
    judge = Judge(load_pack("drive-os-7"))
    for finding in committed.findings:
        if finding.answer == "refused":
            denied = {i for i, facts in enumerate(finding.layers) if _verdict(judge, facts) == "denied"}
            assert denied == set(finding.refused), finding.id


_OF_A_FILE = {"opset": 18, "opset_known": True}  # a network that was built through the API has none


def _verdict(judge: Judge, facts: dict) -> str:
    return judge.judge(TrtLayer(facts["layer"], {**_OF_A_FILE, **facts})).verdict


def test_every_rule_names_probes_that_exist(committed):
    known = {finding.id for finding in committed.findings}
    for rule in load_pack("drive-os-7").rules:
        if rule.evidence == "validator-probe":
            assert rule.probes, rule.id
            assert set(rule.probes) <= known, rule.id


def test_a_contradiction_is_refused(committed):
    """One probe inside the limits that is refused all the same must not give a pack."""
    changed = [
        replace(finding, answer="refused", refused={1: ("LayerKernelLimit",)})
        if finding.id == "convolution.2d.kernel.3"
        else finding
        for finding in committed.findings
    ]
    with pytest.raises(DerivationError, match="CONVOLUTION"):
        derive(replace(committed, findings=tuple(changed)))


def test_a_limit_that_no_probe_pins_down_is_refused(committed):
    fewer = tuple(
        finding for finding in committed.findings if ".kernel.19" not in finding.id and "uneven" not in finding.id
    )
    fewer = tuple(finding for finding in fewer if ".random" not in finding.id and "kernel-19" not in finding.id)
    with pytest.raises(DerivationError, match="no probe fails at 19"):
        derive(replace(committed, findings=fewer))


def test_an_unexplained_limit_is_refused(committed):
    passed = next(finding for finding in committed.findings if finding.id == "type.pooling.max.float32")
    odd = Finding("odd", "refused", passed.layers, {1: ("LayerNewLimit",)})
    with pytest.raises(DerivationError, match="LayerNewLimit"):
        derive(replace(committed, findings=(*committed.findings, odd)))


class _KilledError(Exception):
    pass


class _Session:
    """Answers as a child process would, until it is killed."""

    version, compute_capability = "0", "8.6"

    def __init__(self, lives: int) -> None:
        self.lives = lives
        self.asked = 0

    def exchange(self, request: dict) -> dict:
        if self.asked == self.lives:
            raise _KilledError
        self.asked += 1
        return {"parsed": True, "reached_build": True, "rows": [], "names": [], "facts": [{"layer": "NETWORK"}]}


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    probes, kept = run.plan()[:6], tmp_path / "partial.jsonl"
    with pytest.raises(_KilledError):
        run.ask(probes, _Session(4), kept=kept)
    with kept.open("a", encoding="utf-8") as stream:
        stream.write('["cut off in the mid')
    second = _Session(100)
    resumed = run.ask(probes, second, kept=kept)
    assert second.asked == 2
    assert resumed == run.ask(probes, _Session(100))


def test_a_crash_is_a_finding():
    found = run.finding("x", {"end": "crashed", "reason": "signal SIGSEGV"})
    assert (found.answer, found.has_verdict, found.layers) == ("crashed", False, ())


@needs_validator
def test_a_sample_of_the_probes_gives_the_committed_answers():
    assert program.check(sample=300, seed=7) == 300


@needs_validator
def test_a_changed_answer_is_reported(monkeypatch, committed):
    findings = tuple(
        replace(finding, answer="accepted", refused={}) if finding.id == "lrn.window.3" else finding
        for finding in committed.findings
    )
    monkeypatch.setattr(evidence, "load", lambda: replace(committed, findings=findings))
    monkeypatch.setattr(program, "pack_text", lambda _: pack.PACK_FILE.read_text(encoding="utf-8"))
    monkeypatch.setattr(run, "plan", lambda: [item for item in plan if item.id.startswith("lrn")])
    with pytest.raises(OperationRejectedError, match=r"lrn\.window\.3"):
        program.check()


plan = run.plan()


@needs_validator
def test_the_full_build_refuses_nothing_that_was_accepted():
    """The verdict is taken when the build starts; going on with the build must not change it."""
    chosen = [item for item in plan if item.id in _BUILT]
    assert len(chosen) == len(_BUILT)
    with ValidatorSession(child=run.WORKER, timeout=60) as session:
        for item in chosen:
            reply = session.exchange({"statements": list(item.statements), "full": True})
            assert reply["built"], item.id
            assert run.finding(item.id, reply).answer == "accepted"


_BUILT = {
    "type.convolution.float16",
    "type.softmax.float32",
    "type.matrix-multiply.float32",
    "axis.top-k.1",
    "resize.linear.scale.2.0",
    "type.reduce.avg.float32",
}
