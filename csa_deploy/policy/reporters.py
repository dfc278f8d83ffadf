"""A policy's verdict as JUnit XML, a case per requirement, and as Markdown."""

from __future__ import annotations

from csa_deploy import junit
from csa_deploy.policy.verdict import PolicyVerdict, Requirement
from csa_deploy.tables import markdown_table

_HEADINGS = ("requirement", "state", "found", "evidence")


def as_junit(verdict: PolicyVerdict) -> str:
    """A suite per kind of requirement; what is open fails, as the gate does."""
    kinds = dict.fromkeys(r.kind for r in verdict.requirements)
    about = {"policy_sha256": verdict.policy_sha256, "judged_on": verdict.judged_on}
    suites = [
        junit.Suite(
            kind, [_case(r) for r in verdict.requirements if r.kind == kind], {**about, "verdict": verdict.verdict}
        )
        for kind in kinds
    ]
    return junit.document(f"csa-deploy gate: {verdict.policy}", suites)


def _case(requirement: Requirement) -> junit.JUnitCase:
    if requirement.state == "pass":
        return junit.JUnitCase(requirement.name)
    outcome = "skipped" if requirement.state == "not applicable" else "failure"
    return junit.JUnitCase(requirement.name, outcome, f"{requirement.state}: {requirement.found}")  # type: ignore[arg-type]


def as_markdown(verdict: PolicyVerdict) -> str:
    """The verdict, and a table of all requirements."""
    rows = [(f"{r.kind}: {r.name}", r.state, r.found, r.evidence) for r in verdict.requirements]
    lines = [f"### {verdict.deployment}: {verdict.verdict.upper()}", "", f"{verdict.summary}.", ""]
    lines += markdown_table(_HEADINGS, rows, right=())
    lines += ["", f"Policy file SHA-256 {verdict.policy_sha256}, judged on {verdict.judged_on}."]
    return "\n".join(lines) + "\n"
