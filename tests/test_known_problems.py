"""The page of csa-deploy's own known problems is what its file says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from csa_deploy.confidence.schema import FACTS_FOLDER, own_problems
from tools.known_problems import DOCS, page

ROOT = DOCS.parent


def test_the_page_is_made_from_the_file() -> None:
    assert (DOCS / "known-problems.md").read_text(encoding="utf-8") == page(own_problems()), (
        "run `python -m tools.known_problems`"
    )


def test_ids_are_unique_and_states_agree() -> None:
    problems = own_problems().problems
    assert len({problem.id for problem in problems}) == len(problems) > 15
    assert all(bool(problem.until) is problem.corrected for problem in problems)


def test_commits_are_of_this_history() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    for commit in {problem.until for problem in own_problems().problems if problem.until}:
        found = subprocess.run(["git", "cat-file", "-t", commit], cwd=ROOT, capture_output=True, text=True, check=False)
        if "shallow" in found.stderr:
            pytest.skip("a shallow checkout")
        assert found.stdout.strip() == "commit", commit


def test_a_problem_that_the_page_lacks_is_noticed(tmp_path: Path) -> None:
    text = (FACTS_FOLDER / "known_problems.toml").read_text(encoding="utf-8")
    other = text.replace('title = "', 'title = "Not ', 1)
    (tmp_path / "known_problems.toml").write_text(other, encoding="utf-8")
    assert page(own_problems(tmp_path)) != page(own_problems())
