"""What only a GPU can show: engines are loaded, run, compared and timed. Skipped, by reason, everywhere else."""

import json
import subprocess
import sys

import pytest

from csa_deploy.engine.device import cuda_state

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda_state().devices, reason=cuda_state().reason or "a CUDA device is there"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """csa_digits through the whole pipeline, with engines for this machine's device."""
    pytest.importorskip("polygraphy")
    root = tmp_path_factory.mktemp("gpu") / "csa_digits"
    command = [sys.executable, "-m", "csa_deploy", "run", "csa_digits", "--samples", "200", "--workspace", str(root)]
    done = subprocess.run([*command, "--compute-capability", "current"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((root / "report.json").read_text())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_engine_agrees_with_pytorch(report, precision):
    candidates = {c["label"]: c for c in report["records"]["verify"]["candidates"]}
    assert candidates[f"engine {precision}"]["verdict"] == "pass"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_engine_is_timed(report, precision):
    assert report["measurements"]["profile"]["latency"][f"engine {precision}"]["percentiles_ms"]["50"] > 0
