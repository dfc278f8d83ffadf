"""Writes docs/known-problems.md from the file of known problems that the package holds."""

from __future__ import annotations

from pathlib import Path

from csa_deploy.confidence.schema import OwnProblems, own_problems
from csa_deploy.records.errata import SEVERITIES

DOCS = Path(__file__).resolve().parents[1] / "docs"


def page(found: OwnProblems) -> str:
    """The page, open problems first, then by severity."""
    lines = [
        "# Known problems of csa-deploy",
        "",
        "What csa-deploy itself gets or got wrong, how to notice it, and what to do. Made from",
        "`csa_deploy/confidence/facts/known_problems.toml` by `python -m tools.known_problems`.",
        "What TensorRT gets wrong: [errata.md](errata.md).",
        f"As of {found.read}. Nothing was tagged yet: versions are 0.1.0 and a commit of its development.",
    ]
    for title, corrected in (("Open", False), ("Corrected", True)):
        chosen = [problem for problem in found.problems if problem.corrected is corrected]
        chosen.sort(key=lambda problem: SEVERITIES.index(problem.severity))
        lines += ["", f"## {title}", "", "| id | severity | versions | effect | how to notice | instead |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [
            f"| `{p.id}` | {p.severity}, {p.symptom} | {p.versions} | {p.title} | {p.detect} | {p.workaround} |"
            for p in chosen
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (DOCS / "known-problems.md").write_text(page(own_problems()), encoding="utf-8")
