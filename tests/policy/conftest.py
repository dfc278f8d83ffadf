"""A deployment of csa_digits as a workspace holds it, and a way to write policies about it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from csa_deploy.policy.deployment import Deployment, of_workspace

STORED = Path(__file__).parents[1] / "stored" / "csa_digits.zip"

Written = Callable[..., Path]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def deployment(root: Path) -> Deployment:
    return of_workspace(root)


@pytest.fixture(scope="session")
def fp16(deployment: Deployment) -> Deployment:
    """Of the same as a bundle of one precision has it: drive-os-6 does not know about the INT8 graph."""
    return replace(deployment, precision="fp16")


@pytest.fixture()
def written(tmp_path: Path) -> Written:
    """``written(scopes=...)`` is a policy file with these keys."""

    def write(**keys: Any) -> Path:
        path = tmp_path / "policy.yaml"
        path.write_text(yaml.safe_dump({"schema_version": 1, "name": "of the tests", **keys}))
        return path

    return write
