"""The report for a pull request: the verdicts as a table, the reasons of each scope folded under it."""

from __future__ import annotations

from html import escape

from csa_deploy.records.check import Inspected, ScopeRecord
from csa_deploy.restricted.reporters.grouping import grouped, some, validator_line

_ICONS = {"allowed": "✅", "with GPU fallback": "⚠️", "denied": "❌", "unknown": "⚠️"}
_PLACES = 3


def render(data: Inspected) -> str:
    """The report as GitHub's and GitLab's Markdown."""
    lines = [f"### csa-deploy check: {_safe(data.model)}", ""]
    lines += ["| scope | verdict | evidence | denied | unknown |", "|---|---|---|---|---|"]
    for scope in data.scopes:
        said, counts = f"{_ICONS[scope.verdict]} {_safe(scope.said)}", scope.counts
        numbers = f"{counts['denied']} | {counts['unknown']}"
        lines.append(f"| `{scope.scope}` | {said} | {scope.level} | {numbers} |")
    differing = [scope for scope in data.scopes if scope.differs]
    lines += [f"\n**They differ** (`{scope.scope}`): {_safe(scope.differs)}" for scope in differing]
    for scope in data.scopes:
        lines += _reasons(scope)
    if errata := data.errata:
        lines += ["", f"**Known problems of TensorRT:** {_safe(errata.summary)}", ""]
        lines += [
            f"- **{problem.severity}** `{problem.id}`: {_safe(problem.title)}. {_safe(problem.workaround)}"
            for problem in errata.affected
        ]
    lines += [f"\nNot done: {_safe(line)}" for line in data.not_done]
    return "\n".join(lines) + "\n"


def _reasons(scope: ScopeRecord) -> list[str]:
    found = [group for group in grouped(scope.findings) if group.first.verdict != "note"]
    lines = []
    for group in found:
        first = group.first
        (message, places), *_ = group.messages.items()
        lines.append(f"- **{first.verdict}** `{first.rule}` x{group.count}: {_safe(message)}")
        lines.append(f"  - at {_safe(some(places, _PLACES))}")
        lines += [f"  - instead: {_safe(first.instead)}"] if first.instead else []
        lines += [f"  - repair: {_safe(first.repair)} (`--fix`)"] if first.repair else []
    if validator := validator_line(scope):
        lines.append(f"- NVIDIA's validator: {_safe(validator)}")
    if not lines:
        return []
    return ["", f"<details><summary>{scope.scope}: why</summary>", "", *lines, "", "</details>"]


def _safe(text: str) -> str:
    """Words of the model without what Markdown or HTML would act on."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    for mark in "\\`*_[]|#":
        shown = shown.replace(mark, f"\\{mark}")
    return escape(shown, quote=False)
