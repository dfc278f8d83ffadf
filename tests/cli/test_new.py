"""``csa-deploy new``: the project that it writes, which is examples/my-network, runs as it is."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import csa_deploy
from csa_deploy.errors import UsageError
from csa_deploy.project.write import write_project

EXAMPLE = Path(csa_deploy.__file__).parents[1] / "examples" / "my-network"
needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")


def test_the_example_is_what_new_writes(tmp_path: Path) -> None:
    if not EXAMPLE.is_dir():
        pytest.skip("not a checkout")
    written = write_project(tmp_path / "p")
    there = sorted(path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*") if path.is_file())
    assert [path for path in there if "deploy" not in path.parts[:1] and "__pycache__" not in path.parts] == written
    for path in written:
        if path.suffix == ".npz":
            new, old = np.load(tmp_path / "p" / path), np.load(EXAMPLE / path)
            assert set(new) == set(old) == {"image", "labels"}
            assert all(np.array_equal(new[name], old[name]) for name in new)
            assert np.bincount(new["labels"]).tolist() == [400, 400]
        else:
            assert (tmp_path / "p" / path).read_bytes() == (EXAMPLE / path).read_bytes(), path


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write_project(tmp_path)
    with pytest.raises(UsageError):
        write_project(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and (tmp_path / "mine").read_text() == "mine"


@pytest.mark.slow
@needs_rtx
def test_the_project_passes_and_a_wrong_network_does_not(tmp_path: Path, typed: Any) -> None:
    """With the commands of its README, which are those of its CI file."""
    write_project(tmp_path / "p")
    readme = (tmp_path / "p" / "README.md").read_text()
    commands = [shlex.split(line.split("#")[0])[1:] for line in re.findall(r"(?m)^csa-deploy .*$", readme)]
    jobs = yaml.safe_load((tmp_path / "p" / ".github/workflows/deploy.yml").read_text())["jobs"]
    in_ci = [step.get("run", "") for step in jobs["deploy"]["steps"]]
    assert [words[0] for words in commands] == ["run", "gate"]
    assert all(any(" ".join(words) in step for step in in_ci) for words in commands)
    for words in commands:
        done = typed(tmp_path / "p", *words)
        assert done.code == 0, done.err
    assert "7 of 7 requirements met" in done.out
    report = json.loads((tmp_path / "p" / "deploy" / "nets-make" / "report.json").read_text())
    assert report["verdict"]["state"] == "pass"
    # An operation that the scopes deny, and that no repair cures: the gate is red.
    nets = tmp_path / "p" / "nets.py"
    nets.write_text(nets.read_text().replace("self.features(image).relu()", "nn.functional.gelu(self.features(image))"))
    assert typed(tmp_path / "p", *commands[0]).code == 4
