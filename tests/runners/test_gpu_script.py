"""The script for a machine with a GPU: it runs from a source tree, and says when nothing ran."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from csa_deploy.engine.device import cuda_state

SCRIPT = Path(__file__).parents[1] / "gpu" / "run.py"


def test_a_source_tree_offers_the_networks_of_an_installation(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("gpu_run", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.write_metadata(tmp_path)
    (made,) = metadata.distributions(path=[str(tmp_path)])
    assert {p.name for p in made.entry_points} == {p.name for p in metadata.entry_points(group="csa_deploy.models")}
    assert (tmp_path / "csa_models" / "registry.py").is_file()


@pytest.mark.skipif(bool(cuda_state().devices), reason="a CUDA device is there")
def test_where_nothing_runs_the_exit_code_says_so() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "-k", "nvml"], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "no CUDA device" in done.stdout and "nothing ran: 1 tests were skipped" in done.stdout
