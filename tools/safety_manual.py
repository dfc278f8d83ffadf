"""Writes docs/safety-manual.md from the facts of the tool-confidence kit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from csa_deploy.confidence.schema import ToolConfidence, tool_confidence
from csa_deploy.levels import LEVELS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "safety-manual.md"


def page(c: ToolConfidence) -> str:
    """The page."""
    return "\n".join(_lines(c)) + "\n"


def _lines(c: ToolConfidence) -> Iterator[str]:
    yield "# Safety manual"
    yield ""
    yield "Made from `csa_deploy/confidence/facts/` by `python -m tools.safety_manual`. The same facts, with the tests"
    yield "that show them and their results, are in the [tool-confidence kit](kit.md)."
    yield ""
    yield from c.manual.tool
    yield ""
    yield f"**{c.manual.no_claim}**"
    yield from ("", "## In short", "", "It promises:", "")
    yield from (f"- {line}" for line in c.manual.promises)
    yield from ("", "It does not promise:", "")
    yield from (f"- {line}" for line in c.manual.promises_not)
    for section in c.manual.sections:
        yield from ("", f"## {section.title}", "", *section.text, *([""] if section.text else []))
        yield from (f"- {item}" for item in section.items)
    yield from ("", "## Words", "")
    yield from _table(("word", "it means"), ((term.word, term.means) for term in c.manual.terms))
    yield from ("", "## What each use case promises, and what not", "")
    for use_case in c.use_cases:
        verbs = ", ".join(f"`{verb}`" for verb in use_case.verbs)
        yield from (f"**{use_case.id}: {use_case.title}** ({verbs}; {c.confidence_of(use_case)} is proposed)", "")
        yield from (f"- {line}" for line in use_case.promises)
        yield from (
            f"- Not: {line if line[:2].isupper() else line[0].lower() + line[1:]}" for line in use_case.promises_not
        )
        yield ""
    yield from ("## Duties of the user", "")
    yield "The confidence that is proposed rests on them. Each leaves a record to file."
    yield ""
    yield from _table(
        ("id", "duty", "what to file", "against"),
        (
            (m.id, m.title, m.record, ", ".join(error.id for error in c.errors_against(m)))
            for m in c.measures
            if m.kind == "duty"
        ),
    )
    yield from ("", "## How to read each level of evidence", "", "For a safety scope, from the weakest:", "")
    yield from _table(("level", "what was done"), ((f"`{level}`", meaning) for level, meaning in LEVELS.items()))
    yield from (
        "",
        "[restricted.md](restricted.md#levels-of-evidence) tells what to type for each. Words of verdicts:",
        "",
    )
    readings = ((f"{r.word} ({r.by})", r.means, r.means_not, r.do) for r in c.manual.readings)
    yield from _table(("word", "it means", "it does not mean", "what to do"), readings)
    yield from ("", "## What could go wrong without anyone noticing", "")
    yield "Tool impact (TI), tool error detection (TD) and confidence level (TCL) by ISO 26262-8:2018, clause 11, as a"
    yield "proposal. The argument for each is in the kit."
    yield ""
    errors = ((e.id, f"the tool {e.title}", f"{e.impact}, {e.detection}: {e.confidence}", e.left) for e in c.errors)
    yield from _table(("id", "error", "levels", "what is left"), errors)
    yield from ("", "## Known problems", "")
    still = [problem for problem in c.problems.problems if not problem.corrected]
    corrected = len(c.problems.problems) - len(still)
    yield f"Of csa-deploy as of {c.problems.read}: {len(still)} open, {corrected} corrected;"
    yield "[known-problems.md](known-problems.md) lists all. Of TensorRT: [errata.md](errata.md). Open:"
    yield ""
    yield from (
        f"- {problem.title}. To notice it: {problem.detect}. Instead: {problem.workaround}." for problem in still
    )
    yield from ("", "## Gaps", "")
    yield from (f"- **{gap.title}.** {gap.text}" for gap in c.manual.gaps)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(tool_confidence()), encoding="utf-8")
