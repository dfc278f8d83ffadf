"""Flags, YAML keys and configuration fields are one list."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import csa_deploy
from csa_deploy.cli.main import app
from csa_deploy.cli.options import flags
from csa_deploy.config import Config
from csa_deploy.options import BY_VERB, EVERY_VERB, OPTIONS

VERBS = [str(command.name) for command in app.registered_commands]
# `workspace` says where, and a shorthand such as --fp16 becomes a value of another key.
STORED = {name for name, option in OPTIONS.items() if not option.shorthand} - {"workspace"}


def test_every_setting_is_a_field_of_the_configuration() -> None:
    assert STORED | {"network"} == set(Config.model_fields)


def test_every_setting_is_a_flag_of_run() -> None:
    assert set(BY_VERB["run"]) | set(EVERY_VERB) == set(OPTIONS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str) -> None:
    answer = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert answer.exit_code == 0, answer.output
    assert "Usage:" in answer.output
    for name in BY_VERB.get(verb, ()):
        assert f"--{name.replace('_', '-')}" in answer.output


def test_a_flag_that_is_no_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BY_VERB, "report", ("seed", "hue"))
    with pytest.raises(LookupError, match=r"gives report what is no row of OPTIONS: {'hue'}"):
        flags("report")


def test_every_list_of_flags_belongs_to_a_verb() -> None:
    assert set(BY_VERB) <= set(VERBS)


def test_the_help_names_every_scope() -> None:
    packs = Path(csa_deploy.__file__).parent / "restricted" / "packs"
    scopes = {tomllib.loads(file.read_text())["scope"] for file in packs.glob("[!_]*.toml")}
    assert scopes == set(re.findall(r"[a-z]+-[\w.-]*\w", OPTIONS["scope"].help.partition(":")[2].partition(";")[0]))
