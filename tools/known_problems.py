"""Writes docs/known-problems.md from docs/known-problems.toml, a file of the kind of the errata packs."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from csa_deploy.records.errata import SEVERITIES
from csa_deploy.restricted.errata.schema import KnownFault
from csa_deploy.restricted.schema import Strict

DOCS = Path(__file__).resolve().parents[1] / "docs"


class OwnProblem(KnownFault):
    """A problem of csa-deploy.

    Attributes:
        until: last commit that is known to have it ('' still there).
        corrected: whether it is.
    """

    until: Annotated[str, Field(pattern=r"^([0-9a-f]{7,40})?$")] = ""
    corrected: bool

    @property
    def versions(self) -> str:
        """``0.1.0 up to commit a37ed06``."""
        return f"0.1.0 up to commit {self.until}" if self.until else "0.1.0, and still there"


class OwnProblems(Strict):
    """All of them."""

    schema_version: Literal[1]
    read: date
    problems: tuple[OwnProblem, ...]


def own_problems(path: Path = DOCS / "known-problems.toml") -> OwnProblems:
    """Read and validate the file."""
    return OwnProblems.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def page(found: OwnProblems) -> str:
    """The page, open problems first, then by severity."""
    lines = [
        "# Known problems of csa-deploy",
        "",
        "What csa-deploy itself gets or got wrong, how to notice it, and what to do. Made from",
        "`known-problems.toml` by `python -m tools.known_problems`. What TensorRT gets wrong: [errata.md](errata.md).",
        f"As of {found.read}. Nothing was released yet: versions are 0.1.0 and a commit of its development.",
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
