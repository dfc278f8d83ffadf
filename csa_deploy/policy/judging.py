"""Holds a deployment against a policy: one verdict, each requirement with what shows it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

from csa_deploy.bundle.archive import Archive
from csa_deploy.bundle.make import SUMS
from csa_deploy.bundle.model_signature import Trusted, check_model
from csa_deploy.bundle.signature import SIGNATURE, Signature, check
from csa_deploy.errors import UsageError
from csa_deploy.levels import is_at_least
from csa_deploy.policy.acceptance import Acceptances
from csa_deploy.policy.accuracy import accuracy_requirements, limit_requirements
from csa_deploy.policy.deployment import Deployment
from csa_deploy.policy.schema import ErrataWanted, Policy, ScopeWanted, SignatureWanted, read_policy
from csa_deploy.policy.verdict import PolicyVerdict, Requirement
from csa_deploy.records.build import BuildRecord, EngineRecord, JudgedScope
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.errata import SEVERITIES, ErrataReport, KnownProblem
from csa_deploy.restricted.errata.schema import errata_packs
from csa_deploy.restricted.errata.versions import is_of
from csa_deploy.restricted.explain import NOT_ASKED_OF_RTX
from csa_deploy.restricted.schema import load_pack
from csa_deploy.workspace import sha256_of

_VERDICTS = {"allowed": ("allowed",), "with GPU fallback": ("allowed", "with GPU fallback")}


def judge_policy(
    path: Path, deployment: Deployment, *, metric: tuple[str, ...] = (), today: datetime.date | None = None
) -> PolicyVerdict:
    """Hold a deployment against a policy.

    Args:
        deployment: of :mod:`csa_deploy.policy.deployment`.
        metric: metrics of the user's that budgets may name; the deployment's where none is given.
        today: the day on which what expires is judged; None is today, in UTC.

    Raises:
        UsageError: the policy is not valid, asks for nothing, or names a file that is not there.
    """
    policy = read_policy(path, metric=metric or tuple(deployment.config.get("metric", ())))
    day = today or datetime.datetime.now(datetime.UTC).date()
    found = tuple(_requirements(policy, path.parent, deployment, day))
    return PolicyVerdict(policy.name, sha256_of(path), str(deployment.path), deployment.network, day.isoformat(), found)


def _requirements(policy: Policy, folder: Path, deployment: Deployment, day: datetime.date) -> Iterator[Requirement]:
    if deployment.intact is not None:
        problems = "; ".join(deployment.intact.problems) or deployment.intact.verdict
        intact = deployment.intact.verdict != "damaged"
        state, said = ("pass", f"{deployment.intact.files} files") if intact else ("fail", problems)
        yield Requirement("bundle", "nothing was changed", state, said, "SHA-256 of every file")  # type: ignore[arg-type]
        if not intact:
            return  # nothing in it can be trusted
    acceptances = Acceptances(policy, deployment.network, day)
    yield _own_gates(policy, deployment)
    for scope, wanted in policy.scopes.items():
        yield from _scope(scope, wanted, deployment, acceptances)
    if policy.errata is not None:
        yield from _errata(policy.errata, deployment, acceptances)
    yield from accuracy_requirements(policy, deployment)
    yield from limit_requirements(policy, deployment)
    for signature in policy.signatures:
        yield _signature(signature, folder, deployment)
    yield from acceptances.requirements()


def _own_gates(policy: Policy, deployment: Deployment) -> Requirement:
    name, gates = f"the run's own gates: {policy.own_gates}", deployment.own_gates
    if gates is None:
        return Requirement(
            "own gates",
            name,
            "not measured",
            "not stated; an older csa-deploy made the bundle: run `csa-deploy bundle` again",
        )
    met = ("pass",) if policy.own_gates == "pass" else ("pass", "incomplete")
    state = "pass" if gates.state in met else "fail" if gates.state == "fail" else "undecided"
    said = ": ".join(filter(None, (gates.state, "; ".join(gates.reasons))))
    return Requirement("own gates", name, state, said, "verdict of the run")  # type: ignore[arg-type]


def _scope(scope: str, wanted: ScopeWanted, deployment: Deployment, acceptances: Acceptances) -> Iterator[Requirement]:
    """The scope's verdict on each engine, by its own graph; without engines on the graph of the check stage."""
    name = f"{scope} {wanted.verdict} (at least {wanted.level})"
    built, checked = deployment.find(BuildRecord), deployment.find(CheckRecord)
    engines = {p: e for p, e in (built.engines if built else {}).items() if deployment.has(p)}
    judged = [(f"engine {p}", engine, s) for p, engine in engines.items() for s in engine.scopes if s.scope == scope]
    for label, engine, said in judged:
        unknown = said.unknown_by if said.verdict == "unknown" else ()
        what = f"{label}, {said.graph}{f' ({said.of})' if said.of else ''}"
        level, why_not = _level(said, engine)
        yield _scope_met(name, wanted, acceptances, (said.verdict, level, why_not, unknown, what))
    report = next((s for s in checked.scopes if s.scope == scope), None) if checked else None
    for precision in (p for p, engine in engines.items() if scope not in {s.scope for s in engine.scopes}):
        beside = f" (the {checked.of} graph: {report.verdict})" if checked and report else ""
        found = f"the graph of engine {precision} was not judged{beside}: build it with --restricted --scope {scope}"
        yield Requirement("scope", name, "not measured", found)
    if engines:
        return
    if checked is None or report is None:
        yield Requirement("scope", name, "not measured", f"not judged: repeat `csa-deploy run` with --scope {scope}")
        return
    rules = tuple(dict.fromkeys(f.rule for f in report.findings if f.verdict == "unknown"))
    what = f"the {checked.of} graph {checked.judged}".rstrip()
    yield _scope_met(name, wanted, acceptances, (report.verdict, report.level, report.why_not_next, rules, what))


def _level(said: JudgedScope, engine: EngineRecord) -> tuple[str, str]:
    """Level of evidence, and why not the next: a build with the flag adds to a scope of its own TensorRT."""
    flag, own = engine.restricted, load_pack(said.scope).tensorrt.split(".")[:2] == engine.version.split(".")[:2]
    if flag.level and own and not said.of and not is_at_least(said.level, flag.level):
        return flag.level, flag.why_not_next
    return said.level, said.why_not_next


def _scope_met(
    name: str, wanted: ScopeWanted, acceptances: Acceptances, found: tuple[str, str, str, tuple[str, ...], str]
) -> Requirement:
    verdict, level, why_not, unknown, what = found
    accepted = acceptances.rest_on(unknown)
    left = [rule for rule in unknown if rule not in accepted]
    said = f"{verdict}, {level}{f': {chr(44).join(left)}' if left else ''}"
    evidence = f"{level}: {what}"
    if verdict == "denied" or (verdict not in _VERDICTS[wanted.verdict] and verdict != "unknown"):
        return Requirement("scope", name, "fail", said, evidence, accepted)
    if verdict == "unknown" and (left or not unknown):
        return Requirement("scope", name, "undecided", said, evidence, accepted)
    if not is_at_least(level, wanted.level):
        return Requirement("scope", name, "fail", f"{said}; {why_not}".rstrip("; "), evidence, accepted)
    return Requirement("scope", name, "pass", said, evidence, accepted)


def _errata(wanted: ErrataWanted, deployment: Deployment, acceptances: Acceptances) -> Iterator[Requirement]:
    name = f"no known problem of severity {wanted.severity} or worse that is not accepted"
    checked = deployment.find(CheckRecord)
    report = checked.errata if checked else None
    if report is None:
        said = "errata were not asked: repeat `csa-deploy run` with --errata"
        yield Requirement("errata", name, "not measured", said)
        return
    evidence = f"errata packs read on {report.read}"
    newest = str(max(pack.read for pack in errata_packs()))
    if report.read < newest:
        said = f"judged by packs of {report.read}, those here are of {newest}: repeat `csa-deploy run`"
        yield Requirement("errata", "errata packs as new as those here", "undecided", said, evidence)
    for said in report.unknown:
        yield Requirement("errata", "the version is known", "undecided", said, evidence)
    yield from _not_asked(report, deployment, acceptances, evidence)
    counting = [p for p in report.problems if _counts(p, wanted)]
    for problem in counting:
        accepted = acceptances.rest_on((problem.id,))
        told = f"{problem.title} ({problem.severity}, {problem.state}); {problem.workaround}"
        yield Requirement("errata", problem.id, "pass" if accepted else "fail", told, evidence, accepted)
    if not counting:
        yield Requirement("errata", name, "pass", report.summary, evidence)


def _not_asked(
    report: ErrataReport, deployment: Deployment, acceptances: Acceptances, evidence: str
) -> Iterator[Requirement]:
    """Engines of another builder, or in another precision, than was asked about."""
    built = deployment.find(BuildRecord)
    for precision, engine in (built.engines if built else {}).items():
        name = f"engine {precision} is of the TensorRT that was asked about"
        if not deployment.has(precision):
            continue
        if engine.backend == "tensorrt-rtx":
            accepted = acceptances.rest_on((NOT_ASKED_OF_RTX,))
            said = f"{NOT_ASKED_OF_RTX}: TensorRT-RTX {engine.version} built it, and the packs hold nothing about that"
            yield Requirement("errata", name, "pass" if accepted else "undecided", said, evidence, accepted)
        elif report.tensorrt and not is_of(engine.version, report.tensorrt):
            said = f"TensorRT {engine.version} built it, asked was {report.tensorrt}"
            said += f": repeat `csa-deploy run` with --errata --tensorrt {'.'.join(engine.version.split('.')[:3])}"
            yield Requirement("errata", name, "undecided", said, evidence)
        elif report.precisions and precision not in report.precisions:
            said = f"asked was of {', '.join(report.precisions)}: repeat `csa-deploy run` with --precision {precision}"
            yield Requirement("errata", f"engine {precision} was asked about", "undecided", said, evidence)


def _counts(problem: KnownProblem, wanted: ErrataWanted) -> bool:
    severe = SEVERITIES.index(problem.severity) <= SEVERITIES.index(wanted.severity)
    return severe and (wanted.not_ruled_out or problem.state == "affected")


def _signature(wanted: SignatureWanted, folder: Path, deployment: Deployment) -> Requirement:
    name = f"{wanted.method} by {wanted.signer or 'one who is trusted'}"
    if deployment.kind == "workspace":
        return Requirement(
            "signature", name, "not measured", "a workspace is not signed: run `csa-deploy bundle`, and judge that"
        )
    trusted = folder / wanted.trusted
    if not trusted.is_file():
        raise UsageError(f"{trusted}: no such file, which signatures.trusted names", fix="correct it in the policy")
    said = _checked(wanted.method, deployment.path, trusted)
    by = f"{said.state}: {said.who}" if said.who else said.state
    met = said.state == "valid" and wanted.signer in (None, said.signer)
    state = "pass" if met else "not measured" if said.state == "not checked" else "fail"
    return Requirement("signature", name, state, by, wanted.trusted)  # type: ignore[arg-type]


def _checked(method: str, bundle: Path, trusted: Path) -> Signature:
    with Archive(bundle) as archive:
        if method == "ssh":
            signature = archive.read(SIGNATURE) if SIGNATURE in archive.names else None
            return check(archive.read(SUMS), signature, trusted)
        return check_model(archive, Trusted(trusted) if method.endswith("-key") else Trusted(None, (trusted,)))
