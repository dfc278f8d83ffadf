"""The table of verbs: each verb of a file has a row, and each row a verb."""

import ast
import importlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import csa_deploy.cli
from csa_deploy.cli.main import VERBS, app, command_line

FOLDER = Path(csa_deploy.cli.__file__).parent


def _verbs_of(source: str) -> set[str]:
    """Names given to the decorator ``flags`` in a module."""
    calls = [
        mark
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "flags"
    ]
    return {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}


def test_each_verb_of_a_file_has_a_row() -> None:
    found = {verb: file.stem for file in FOLDER.glob("*.py") for verb in _verbs_of(file.read_text())}
    assert found == VERBS


def test_the_help_lists_the_rows_in_their_order() -> None:
    assert [command.name for command in app.registered_commands] == list(VERBS)


def test_a_verb_that_the_table_forgets_is_the_only_one_missing() -> None:
    kept = [verb for verb in VERBS if verb != "judge"]
    assert [command.name for command in command_line(kept).registered_commands] == kept
    assert importlib.import_module("csa_deploy.cli.judge").judge


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_alone_is_what_it_is_among_all(verb: str) -> None:
    alone, among = (CliRunner().invoke(made, [verb, "--help"]) for made in (command_line([verb]), app))
    assert alone.output == among.output and f"Usage: csa-deploy {verb} " in alone.output
