"""Installing the validator: pinned, atomic, and honest about what it lacks."""

from __future__ import annotations

import re

import pytest

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.restricted import validator_install
from csa_deploy.restricted.validator_install import (
    VERSION,
    install_validator,
    python_tag,
    requirements,
    validator_directory,
    validator_status,
)


def test_directory_is_the_argument_or_the_variable_or_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CSA_DEPLOY_VALIDATOR", str(tmp_path / "set"))
    assert validator_directory(tmp_path / "given") == tmp_path / "given"
    assert validator_directory() == tmp_path / "set"
    monkeypatch.delenv("CSA_DEPLOY_VALIDATOR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert validator_directory() == tmp_path / "csa-deploy" / f"validator-{VERSION}-{python_tag()}"


def test_status_names_the_command_that_installs(tmp_path):
    status = validator_status(tmp_path)
    assert not status.installed
    assert "install-validator" in status.detail
    assert status.to_json()["directory"] == str(tmp_path)


@pytest.mark.parametrize("tag", ["cp310", "cp311", "cp312", "cp313"])
def test_every_wheel_is_pinned_by_hash(tag):
    lines = requirements(tag).splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(rf"\S+=={re.escape(VERSION)} --hash=sha256:[0-9a-f]{{64}}", line) for line in lines)


def test_an_interpreter_without_wheel_is_told_which_have_one(tmp_path, monkeypatch):
    monkeypatch.setattr(validator_install, "python_tag", lambda: "cp399")
    with pytest.raises(EnvironmentLacksError, match="cp399") as caught:
        install_validator(tmp_path / "x")
    assert "cp312" in str(caught.value)


def test_a_failed_installation_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EnvironmentLacksError, match="pip could not install") as caught:
        install_validator(tmp_path / "cache" / "x")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacksError, match="cannot create"):
        install_validator(tmp_path / "file" / "x")


def test_an_installed_validator_is_left_alone(tmp_path):
    for part in ("libs", "bindings"):
        folder = tmp_path / f"tensorrt_rtx_cu13_{part}-{VERSION}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Name: x\n")
    before = sorted(tmp_path.rglob("*"))
    assert install_validator(tmp_path) == tmp_path
    assert sorted(tmp_path.rglob("*")) == before
