"""The restricted-mode gate: rule packs and NVIDIA's validator side by side, one verdict with its level of evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from csa_deploy.errors import OperationRejectedError
from csa_deploy.levels import why_not
from csa_deploy.records.check import (
    CrossCheck,
    Finding,
    Inspected,
    RuleReport,
    ScopeRecord,
    ScopeReport,
    ValidatorVerdict,
    Verdict,
)
from csa_deploy.records.errata import ErrataReport
from csa_deploy.restricted.check import check
from csa_deploy.restricted.crosscheck import crosscheck
from csa_deploy.restricted.fallback import within
from csa_deploy.restricted.folded import fold_file
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.schema import load_pack, scopes
from csa_deploy.restricted.scopes import Platform, choose_gates
from csa_deploy.restricted.validator import validate
from csa_deploy.restricted.vocabulary import NETWORK

if TYPE_CHECKING:
    from csa_deploy.restricted.errata.finding import Question

VALIDATED_SCOPE = "drive-os-7"  # NVIDIA's validator is that of TensorRT 10


@dataclass(frozen=True)
class ScopeVerdict:
    """One scope: what the rules say, and what NVIDIA's validator says where it speaks for the scope.

    Attributes:
        validator: the validator's answer; None for a scope it does not speak for.
    """

    report: ScopeReport
    validator: ValidatorVerdict | None = None

    @property
    def combined(self) -> ScopeReport:
        """The rules' report with what the validator adds: findings of its own, doubts that it clears."""
        if self.validator is None:
            return self.report
        findings = self.report.findings
        if self.validator.is_pass:
            findings = tuple(_cleared(f) if f.verdict == "unknown" else f for f in findings)
        return replace(self.report, findings=_of_validator(self.validator, self.report.verdict) + findings)

    @property
    def verdict(self) -> Verdict:
        """Denied if either denies; allowed if the validator accepts what the rules do not deny; else the worse."""
        return self.combined.verdict

    @property
    def level(self) -> str:
        """Level of evidence that the verdict rests on."""
        answer = self.validator.answer if self.validator else ""
        decided = answer == "refused" or (answer == "accepted" and self.report.verdict != "denied")
        return "validator" if decided else self.report.level

    @property
    def differs(self) -> str:
        """Where rules and validator contradict each other, in one line; empty otherwise."""
        if self.validator is None:
            return ""
        pair = (self.report.verdict, self.validator.answer)
        if pair in (("allowed", "refused"), ("denied", "accepted")):
            return (
                f"the rule pack says {pair[0]}, NVIDIA's validator says {pair[1]}: counted as denied, please report it"
            )
        return ""

    @property
    def why_not_next(self) -> str:
        """Why the evidence is not of the next level."""
        if self.level == "validator":
            return why_not(self.level, "needs a TensorRT version on which the flag acts")
        if self.validator is not None:
            reason = f"{self.validator.answer} ({_line(self.validator.reason) or 'against the rules'})"
            return why_not(self.level, reason)
        pack = load_pack(self.report.scope)
        usual = "NVIDIA's validator does not speak for this scope"
        return why_not(self.level, pack.next_level(self.level, usual), pack.out_of_reach)

    @property
    def record(self) -> ScopeRecord:
        """The verdict with all that it rests on; the verdict is the combined one, the rules' own ``static``."""
        combined = self.combined
        return ScopeRecord(
            **{field.name: getattr(combined, field.name) for field in fields(combined) if field.name != "level"},
            level=self.level,
            static=self.report.verdict,
            why_not_next=self.why_not_next,
            differs=self.differs,
            validator=self.validator,
        )


@dataclass(frozen=True)
class GateResult:
    """All scopes of one network.

    Attributes:
        scopes: one verdict per scope, in the report's order.
        parsed: the mapping to layers held against what NVIDIA's parser builds; None when that was not asked.
        errata: known problems of TensorRT that it meets; None when that was not asked.
    """

    report: RuleReport
    scopes: tuple[ScopeVerdict, ...]
    parsed: CrossCheck | None = None
    errata: ErrataReport | None = None

    @property
    def notes(self) -> list[str]:
        """Contradictions between sources of evidence, one line each."""
        found = [f"{s.report.scope}: {s.differs}" for s in self.scopes if s.differs]
        for d in self.parsed.differences if self.parsed else ():
            found.append(
                f"layer mapping: {d.where}: {d.mapped} {d.layer} by the mapping, {d.built} in the network that "
                f"TensorRT-RTX {self.parsed.version if self.parsed else ''} parsed"
            )
        return found

    def only(self, names: Sequence[str]) -> GateResult:
        """The same result for some of the scopes."""
        return replace(self, scopes=tuple(s for s in self.scopes if s.report.scope in names))

    def allowing(self, bounds: Mapping[str, int]) -> GateResult:
        """The same result where so much may fall back from DLA to the GPU; see :func:`.fallback.within`."""
        report = replace(self.report, scopes=tuple(within(scope, bounds) for scope in self.report.scopes))
        return replace(
            self, report=report, scopes=tuple(replace(s, report=within(s.report, bounds)) for s in self.scopes)
        )

    def rejected(self, strict: bool) -> list[ScopeVerdict]:
        """Scopes that deny the network; with ``strict`` also those that are unknown."""
        return [s for s in self.scopes if s.verdict == "denied" or (strict and s.verdict == "unknown")]

    @property
    def inspected(self) -> Inspected:
        """All verdicts with what they rest on."""
        return Inspected(**self.said())

    def said(self) -> dict[str, Any]:
        """The fields of that."""
        done = "validator" if self._validated else None
        return {
            "model": self.report.model,
            "scopes": tuple(scope.record for scope in self.scopes),
            "strict": self.report.strict,
            "notes": tuple(self.notes),
            "not_done": tuple(line for line in self.report.not_done if not (done and line.startswith(done))),
            "parsed": self.parsed,
            "errata": self.errata,
        }

    @property
    def _validated(self) -> bool:
        return any(s.validator for s in self.scopes)


def inspect(
    model: Path,
    names: Sequence[str] = (),
    *,
    strict: bool = False,
    folded: bool = False,
    errata: Question | None = None,
    parsed: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> GateResult:
    """Check a graph against scopes (none: all that have a pack).

    NVIDIA's validator is asked where it speaks for one of them, and the layer mapping is held against NVIDIA's parser
    where TensorRT-RTX is installed.

    Args:
        strict: count unknown as denied.
        folded: judge it with its constants folded, as `optimize` folds them: an exporter's arithmetic about weights and
            shapes is nothing that an engine would compute.
        errata: what is asked about known problems of TensorRT; None: nothing.
        parsed: hold the layer mapping against NVIDIA's parser; no verdict rests on that.
        progress: called with (scopes done, scopes).
    """
    if not folded:
        return _inspect(model, model.name, names, strict, errata, parsed, progress)
    with TemporaryDirectory(prefix="csa-deploy-") as scratch:
        path, name = fold_file(model, Path(scratch))
        return _inspect(path, name, names, strict, errata, parsed, progress)


def _inspect(
    model: Path,
    name: str,
    names: Sequence[str],
    strict: bool,
    errata: Question | None,
    parsed: bool,
    progress: Callable[[int, int], None] | None,
) -> GateResult:
    graph = load_graph(model)
    with ThreadPoolExecutor(2) as pool:  # NVIDIA's two programs run beside the rules
        rules = pool.submit(check, graph, names, strict=strict, name=name, progress=progress)
        parser = pool.submit(crosscheck, model, graph=graph) if parsed else None
        answer = validate(model) if VALIDATED_SCOPE in (names or scopes()) else None
        known = None
        if errata is not None:
            from csa_deploy.restricted.errata.finding import known_problems

            known = known_problems(graph, errata)
        report, built = rules.result(), parser.result() if parser else None
    found = tuple(ScopeVerdict(s, answer if s.scope == VALIDATED_SCOPE else None) for s in report.scopes)
    return GateResult(report, found, built, known)


def gate_scopes(asked: Sequence[str], platform: Platform | None = None) -> list[str]:
    """Scopes that decide; see :func:`csa_deploy.restricted.scopes.choose_gates`, which says why, too."""
    return list(choose_gates(asked, platform).scopes)


def rejection(result: GateResult, strict: bool, what: str, *, fixed: bool = False) -> OperationRejectedError | None:
    """The error of a rejected network: the first reason, and how to go on; None when nothing is rejected.

    Args:
        strict: reject unknown as well.
        what: name of the network in the message.
        fixed: the repairs were applied already.
    """
    rejected = result.rejected(strict)
    if not rejected:
        return None
    scope = rejected[0]
    reasons = [f for f in scope.combined.findings if f.verdict in ("denied", "unknown")]
    first = reasons[0]
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    where = ", ".join(s.report.scope for s in rejected if s.verdict == scope.verdict)
    fix = [first.instead] if first.instead else []
    repairs = {f.repair for f in reasons if f.repair}
    if repairs and not fixed:
        fix.append("add --fix, which repairs exactly what can be")
    elif not fixed:
        fix.append("`csa-deploy check` shows all")
    more += f"; {scope.report.fallback}" if scope.report.fallback else ""
    place = first.module or first.node or "the network"
    return OperationRejectedError(
        f"{what}: {scope.verdict} in {where}: {first.rule}: {place}: {first.message}{more}", fix="; ".join(fix)
    )


def _cleared(finding: Finding) -> Finding:
    """A doubt of the rules about what the validator accepts."""
    return replace(finding, verdict="note", message=f"{finding.message} (NVIDIA's validator accepts it)")


def _of_validator(answer: ValidatorVerdict, static: Verdict) -> tuple[Finding, ...]:
    """What the validator says beyond the rules: layers that only it refuses, and that it could not judge at all."""
    if answer.answer == "refused" and static != "denied":
        return tuple(
            _finding(answer, "denied", f"NVIDIA's validator refuses it: {_line('; '.join(r.reasons))}", r.layer, r.name)
            for r in answer.refused
        ) or (_finding(answer, "denied", f"NVIDIA's validator refuses the network: {_line(answer.reason)}"),)
    if answer.answer == "skipped":
        return (_finding(answer, "unknown", f"NVIDIA's validator skips the network: {_line(answer.reason)}"),)
    if answer.answer in ("crashed", "timed-out", "not-parsed"):
        return (_finding(answer, "unknown", f"NVIDIA's validator could not judge the network: {_line(answer.reason)}"),)
    return ()


def _finding(
    answer: ValidatorVerdict, verdict: Literal["denied", "unknown"], message: str, layer: str = NETWORK, name: str = ""
) -> Finding:
    return Finding(
        rule=f"validator.{answer.answer}",
        verdict=verdict,
        node=name,
        op="",
        layer=layer,
        module="",
        message=message,
        since="",
        evidence="validator",
        source=f"NVIDIA's safety-scope validator in TensorRT-RTX {answer.version}",
        instead=_INSTEAD[answer.answer],
        repair="",
    )


_INSTEAD = {
    "refused": "other operators; `csa-deploy rules drive-os-7` lists what passes",
    "skipped": "static shapes throughout: no shape, size, axis or count that is known at run time only",
    "not-parsed": "operators and attributes that TensorRT's ONNX parser takes",
    "crashed": "find what ends the validator (`csa-deploy optimize --extract MODULE`), and write it differently",
    "timed-out": "check parts of the network one by one (`csa-deploy optimize --extract MODULE` cuts them out)",
}


def _line(text: str) -> str:
    return " ".join(text.split())
