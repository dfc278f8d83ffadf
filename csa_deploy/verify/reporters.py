"""A judgement as JUnit XML, a case per bound, and as Markdown for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from csa_deploy import junit, units
from csa_deploy.records.verify import HeldBound, JudgedCandidate
from csa_deploy.tables import markdown_table, plain
from csa_deploy.verify.judging import Judgement

BOUND_NUMBERS = ("measured", "95 % sure of", "budget")
BOUND_HEADINGS = ("candidate", "output", "metric", *BOUND_NUMBERS, "verdict")
_OF_BATCH: dict[str, Literal["passed", "failure", "skipped"]] = {
    "pass": "passed",
    "fail": "failure",
    "not measured": "skipped",
}


def as_junit(judged: Judgement, *, strict: bool) -> str:
    """A judgement as JUnit: what is undecided is skipped, or fails when judged strictly."""
    suites = [_suite(candidate, strict) for candidate in judged.candidates]
    about = list(_reference(judged, strict))
    if about or not suites:
        suites.append(junit.Suite("reference and data", about))
    return junit.document("csa-deploy accuracy", suites)


def _suite(candidate: JudgedCandidate, strict: bool) -> junit.Suite:
    cases = [_case(check, strict) for check in candidate.checks]
    for name, (ours, theirs) in candidate.preprocessing_differs.items():
        cases.append(junit.JUnitCase(f"preprocessing: {name}", "failure", f"{theirs}, the network's is {ours}"))
    both = (candidate.non_finite, "output"), (candidate.reference_non_finite, "the reference's output")
    for non_finite, whose in both:
        for name, ids in non_finite.items():
            cases.append(junit.JUnitCase(f"finite: {name}", "failure", f"{whose} is not finite on sample {ids[0]}"))
    if batch := candidate.batch:
        name = f"the same in every batch of {batch.batch}"
        cases.append(junit.JUnitCase(name, _OF_BATCH[batch.verdict], batch.statement))
    return junit.Suite(candidate.label, cases, {"verdict": candidate.verdict})


def _case(check: HeldBound, strict: bool) -> junit.JUnitCase:
    name = f"{check.metric} of {check.output} {check.limit}"
    if check.state == "pass":
        return junit.JUnitCase(name)
    message = f"{check.state}: measured {check.measured}" + (f"; {check.reason}" if check.reason else "")
    counts = check.state == "undecided" or check.asked
    failed = check.state == "fail" or (strict and counts)
    return junit.JUnitCase(name, "failure" if failed else "skipped", message)


def _reference(judged: Judgement, strict: bool) -> Iterator[junit.JUnitCase]:
    open_ended = "failure" if strict else "skipped"
    if judged.accuracy:
        verdict, said = judged.accuracy.verdict, judged.accuracy.statement
        outcome = {"pass": "passed", "fail": "failure", "undecided": open_ended}.get(verdict, "skipped")
        yield junit.JUnitCase("the reference is better than chance", outcome, said)  # type: ignore[arg-type]
    if judged.partial:
        yield junit.JUnitCase("all samples were compared", open_ended, judged.partial)  # type: ignore[arg-type]


def as_markdown(judged: Judgement, title: str) -> str:
    """A judgement as Markdown."""
    rows = [
        (candidate.label, c.output, c.metric, c.measured, units.metric(c.sure, c.metric), c.limit, c.state)
        for candidate in judged.candidates
        for c in candidate.checks
    ]
    lines = [f"### {title}: {judged.verdict.upper()}", "", *markdown_table(BOUND_HEADINGS, rows, right=BOUND_NUMBERS)]
    if judged.notes:
        lines += ["", *(f"- {plain(note)}" for note in judged.notes)]
    return "\n".join(lines) + "\n"
