"""Help pages are short, in groups, and hide nothing."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from csa_deploy.cli.main import app
from csa_deploy.options import BY_VERB, GROUPS, OPTIONS

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
AT_MOST = 60


def page(verb: str, flag: str, columns: int = 80) -> str:
    done = CliRunner().invoke(app, [verb, flag], env={"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"})
    assert done.exit_code == 0, done.output
    return done.output


def flags_of(verb: str) -> list[str]:
    return [max(p.opts, key=len) for p in COMMANDS[verb].params if p.param_type_name == "option"]


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_help_page_is_short_and_names_every_flag(verb: str) -> None:
    said = page(verb, "--help")
    assert said.count("\n") < AT_MOST
    words = said.replace(",", " ").split()
    assert {*flags_of(verb), "--help", "--help-all"} <= set(words)
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_whole_page_explains_every_flag(verb: str) -> None:
    said = " ".join(page(verb, "--help-all", 200).split())
    for name in BY_VERB.get(verb, ()):
        start = OPTIONS[name].help.split("-")[0][:30].strip()
        assert start in said, name
    assert "More options" not in said


def test_run_has_seven_groups_and_five_flags_first() -> None:
    whole, short = page("run", "--help-all"), page("run", "--help")
    titles = [f"{group.capitalize()}:" for group in GROUPS]
    assert [line for line in whole.splitlines() if line in titles] == titles and len(GROUPS) == 7
    first = [name for name in BY_VERB["run"] + ("workspace",) if OPTIONS[name].first]
    assert len(first) == 5
    explained = short[: short.index("More options")]
    assert all(f"--{name}" in explained for name in first) and "--iterations" not in explained
    assert {option.group for option in OPTIONS.values()} <= set(GROUPS)


def test_train_still_understands_the_published_command_lines() -> None:
    done = CliRunner().invoke(
        app, ["train", "--model", "csa_digits", "--dry-run", "--batch_size", "8", "--images", "64"]
    )
    assert done.exit_code == 0, done.output
