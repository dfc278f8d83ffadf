"""The report as JUnit XML, for build servers: a suite per scope, a case per finding.

Denied fails its case. Unknown is skipped, or fails when the check was strict. A scope without findings has one case
that passes; the suite names the level of evidence. Known problems of TensorRT are skipped cases of the suite
``errata``.
"""

from __future__ import annotations

from csa_deploy import junit
from csa_deploy.records.check import Finding, Inspected, ScopeRecord
from csa_deploy.restricted.reporters.grouping import errata_findings, validator_line


def render(data: Inspected) -> str:
    """The report as one ``testsuites`` element."""
    suites = [_suite(scope, data.strict) for scope in data.scopes]
    if data.errata is not None:
        said = [_case(finding, strict=False) for finding in errata_findings(data.errata)]
        suites.append(junit.Suite("errata", said or [junit.JUnitCase(data.errata.summary)]))
    return junit.document(f"csa-deploy check {data.model}", suites)


def _suite(scope: ScopeRecord, strict: bool) -> junit.Suite:
    words = {
        "verdict": scope.verdict,
        "level": scope.level,
        "tensorrt": scope.tensorrt,
        "limits": scope.limits,
        "fallback": scope.fallback,
        "validator": validator_line(scope),
        "differs": scope.differs,
    }
    cases = [_case(finding, strict=strict) for finding in scope.findings if finding.verdict != "note"]
    without = junit.JUnitCase(f"{scope.layers} layers {scope.said} (evidence: {scope.level})")
    return junit.Suite(scope.scope, cases or [without], {key: value for key, value in words.items() if value})


def _case(finding: Finding, *, strict: bool) -> junit.JUnitCase:
    return junit.JUnitCase(
        f"{finding.rule}: {finding.node or 'network'}",
        "failure" if finding.verdict == "denied" or strict else "skipped",
        f"{finding.verdict}: {finding.message}",
        f"{finding.layer}; instead: {finding.instead or 'nothing known'}; source: {finding.source}",
        finding.module,
    )
