"""A judgement as JUnit XML, a case per bound, and as Markdown for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from csa_deploy import junit, units

Row = Mapping[str, Any]


def as_junit(data: Row, *, strict: bool) -> str:
    """The JSON form of a judgement as JUnit: what is undecided is skipped, or fails when judged strictly."""
    suites = [_suite(candidate, strict) for candidate in data["candidates"]]
    about = list(_reference(data, strict))
    if about or not suites:
        suites.append(junit.Suite("reference and data", about))
    return junit.document("csa-deploy accuracy", suites)


def _suite(candidate: Row, strict: bool) -> junit.Suite:
    cases = [_case(check, strict) for check in candidate["checks"]]
    for name, (ours, theirs) in candidate["preprocessing_differs"].items():
        cases.append(junit.JUnitCase(f"preprocessing: {name}", "failure", f"{theirs}, the network's is {ours}"))
    for key, whose in (("non_finite", "output"), ("reference_non_finite", "the reference's output")):
        for name, ids in candidate[key].items():
            cases.append(junit.JUnitCase(f"finite: {name}", "failure", f"{whose} is not finite on sample {ids[0]}"))
    if batch := candidate["batch"]:
        outcome = {"pass": "passed", "fail": "failure"}.get(batch["verdict"], "skipped")
        cases.append(junit.JUnitCase(f"the same in every batch of {batch['batch']}", outcome, batch["statement"]))  # type: ignore[arg-type]
    return junit.Suite(candidate["label"], cases, {"verdict": candidate["verdict"]})


def _case(check: Row, strict: bool) -> junit.JUnitCase:
    name = f"{check['metric']} of {check['output']} {bound_of(check)}"
    if check["state"] == "pass":
        return junit.JUnitCase(name)
    message = f"{check['state']}: measured {measured_of(check)}" + (f"; {check['reason']}" if check["reason"] else "")
    counts = check["state"] == "undecided" or check["asked"]
    failed = check["state"] == "fail" or (strict and counts)
    return junit.JUnitCase(name, "failure" if failed else "skipped", message)


def _reference(data: Row, strict: bool) -> Iterator[junit.JUnitCase]:
    open_ended = "failure" if strict else "skipped"
    if data["accuracy"]:
        verdict, said = data["accuracy"]["verdict"], data["accuracy"]["statement"]
        outcome = {"pass": "passed", "fail": "failure", "undecided": open_ended}.get(verdict, "skipped")
        yield junit.JUnitCase("the reference is better than chance", outcome, said)  # type: ignore[arg-type]
    if data["partial"]:
        yield junit.JUnitCase("all samples were compared", open_ended, data["partial"])  # type: ignore[arg-type]


def as_markdown(data: Row, title: str) -> str:
    """The JSON form of a judgement as Markdown."""
    lines = [f"### {title}: {data['verdict'].upper()}", ""]
    lines += ["| candidate | output | metric | measured | 95 % sure of | budget | verdict |"]
    lines += ["|---|---|---|---:|---:|---:|---|"]
    for candidate in data["candidates"]:
        for check in candidate["checks"]:
            sure = units.metric(check["sure"], check["metric"])
            cells = (check["output"], check["metric"], measured_of(check), sure, bound_of(check), check["state"])
            lines.append("| " + " | ".join(map(_plain, (candidate["label"], *cells))) + " |")
    if data["notes"]:
        lines += ["", *(f"- {_plain(note)}" for note in data["notes"])]
    return "\n".join(lines) + "\n"


def measured_of(check: Row) -> str:
    """The measured value, with digits enough to tell it from its bound."""
    return units.beside(check["value"], check["bound"], check["metric"])


def bound_of(check: Row) -> str:
    """``≥ 40.0 dB``."""
    return f"{'≥' if check['side'] == 'min' else '≤'} {units.bound(check['bound'], check['metric'])}"


def _plain(text: str) -> str:
    """Text that cannot break out of a table or become markup."""
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'").replace("\n", " ")
