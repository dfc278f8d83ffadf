"""The report as JUnit XML, for build servers: a suite per scope, a case per finding.

Denied fails its case. Unknown is skipped, or fails when the check was strict. A scope without findings has one case
that passes; the suite names the level of evidence. Known problems of TensorRT are skipped cases of the suite
``errata``.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from csa_deploy.records.check import Finding, Inspected, ScopeRecord
from csa_deploy.restricted.reporters.grouping import errata_findings, validator_line

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(data: Inspected) -> str:
    """The report as one ``testsuites`` element."""
    root = Element("testsuites", name=_clean(f"csa-deploy check {data.model}"))
    for scope in data.scopes:
        _suite(root, scope, data.strict)
    if data.errata is not None:
        suite = SubElement(root, "testsuite", name="errata", errors="0", failures="0")
        said = [_case(suite, "errata", finding, strict=False) for finding in errata_findings(data.errata)]
        if not said:
            SubElement(suite, "testcase", classname="errata", name=_clean(data.errata.summary))
        suite.attrib.update(tests=str(len(said) or 1), skipped=str(len(said)))
    totals = {key: sum(int(suite.get(key, "0")) for suite in root) for key in ("tests", "failures", "skipped")}
    root.attrib.update({key: str(value) for key, value in totals.items()}, errors="0")
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _suite(root: Element, scope: ScopeRecord, strict: bool) -> None:
    suite = SubElement(root, "testsuite", name=_clean(scope.scope), errors="0")
    properties = SubElement(suite, "properties")
    words = {
        "verdict": scope.verdict,
        "level": scope.level,
        "tensorrt": scope.tensorrt,
        "limits": scope.limits,
        "fallback": scope.fallback,
        "validator": validator_line(scope),
        "differs": scope.differs,
    }
    for key, value in words.items():
        if value:
            SubElement(properties, "property", name=key, value=_clean(value))
    findings = [finding for finding in scope.findings if finding.verdict != "note"]
    outcomes = [_case(suite, scope.scope, finding, strict) for finding in findings]
    if not findings:
        name = f"{scope.layers} layers {scope.said} (evidence: {scope.level})"
        SubElement(suite, "testcase", classname=_clean(scope.scope), name=name)
    suite.set("tests", str(len(findings) or 1))
    suite.set("failures", str(outcomes.count("failure")))
    suite.set("skipped", str(outcomes.count("skipped")))


def _case(suite: Element, scope: str, finding: Finding, strict: bool) -> str:
    classname = ".".join(part for part in (scope, finding.module) if part)
    name = f"{finding.rule}: {finding.node or 'network'}"
    case = SubElement(suite, "testcase", classname=_clean(classname), name=_clean(name))
    outcome = "failure" if finding.verdict == "denied" or strict else "skipped"
    detail = SubElement(case, outcome, message=_clean(f"{finding.verdict}: {finding.message}"))
    detail.text = _clean(f"{finding.layer}; instead: {finding.instead or 'nothing known'}; source: {finding.source}")
    return outcome


def _clean(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return _NOT_XML.sub("?", text)
