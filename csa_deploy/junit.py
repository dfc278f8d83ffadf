"""JUnit XML, as build servers read it: suites of cases that passed, failed or were skipped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class JUnitCase:
    """One thing that was tested.

    Attributes:
        message: in a line, of what did not pass.
        detail: more of that; empty where the message says all.
        part: what of the suite it is about; empty where that is all of it.
    """

    name: str
    outcome: Literal["passed", "failure", "skipped"] = "passed"
    message: str = ""
    detail: str = ""
    part: str = ""


@dataclass(frozen=True)
class Suite:
    """Cases that belong together; several build servers show a suite without cases as an error, so there is one."""

    name: str
    cases: Sequence[JUnitCase]
    properties: Mapping[str, str] = field(default_factory=dict)


def document(name: str, suites: Sequence[Suite]) -> str:
    """One ``testsuites`` element, with its totals."""
    root = Element("testsuites", name=_clean(name))
    for suite in suites:
        _add(root, suite)
    totals = {key: sum(int(suite.get(key, "0")) for suite in root) for key in ("tests", "failures", "skipped")}
    root.attrib.update({key: str(value) for key, value in totals.items()}, errors="0")
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _add(root: Element, suite: Suite) -> None:
    cases = suite.cases or [JUnitCase("nothing to test")]
    element = SubElement(root, "testsuite", name=_clean(suite.name), errors="0", tests=str(len(cases)))
    for outcome in ("failure", "skipped"):
        count = str(sum(case.outcome == outcome for case in cases))
        element.set("failures" if outcome == "failure" else outcome, count)
    if suite.properties:
        properties = SubElement(element, "properties")
        for key, value in suite.properties.items():
            SubElement(properties, "property", name=_clean(key), value=_clean(value))
    for case in cases:
        where = ".".join(filter(None, (suite.name, case.part)))
        shown = SubElement(element, "testcase", classname=_clean(where), name=_clean(case.name))
        if case.outcome != "passed":
            message = _clean(case.message)
            SubElement(shown, case.outcome, message=message).text = _clean(case.detail) or message


def _clean(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return _NOT_XML.sub("?", text)
