"""What is known to fail is said before anything is made: the user's mistake, in one line, with its exit code."""

from __future__ import annotations

import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from csa_deploy.cli.main import app
from csa_deploy.errors import CsaDeployError

SECONDS = 3.0  # of the processor
DATA = ("--data", "x.npz")
DRIVE = "host: orin.invalid\nplatform: drive-orin\ntensorrt: 8.6.12\n"

MISTAKES = {
    "a typo in the factory": (("run", "nets.py:tny"), 2, "there is no 'tny'"),
    "a typo in the factory, with data": (("run", "nets.py:tny", *DATA), 2, "there is no 'tny'"),
    "a typo in the file": (("run", "net.py:tiny"), 2, "net.py: no such file"),
    "a typo in the module": (("run", "netz:tiny"), 2, "no Python module is named netz"),
    "no such checkpoint": (("run", "nets.py:tiny", "--checkpoint", "nope.pth"), 2, "nope.pth: no such checkpoint"),
    "no such scope": (("run", "nets.py:tiny", "--scope", "drive-os-8"), 2, "no rule pack for scope 'drive-os-8'"),
    "no such scope to build for": (("build", "nets.py:tiny", "--scope", "drive-os-8"), 2, "no rule pack for scope"),
    "no such data": (("run", "nets.py:tiny", "--data", "pictures"), 2, "pictures: no such data set"),
    "no such archive": (("verify", "nets.py:tiny", "--data", "y.npz"), 2, "y.npz: no such data set"),
    "no data": (("run", "nets.py:tiny"), 2, "verify needs data"),
    "INT8 without images": (("run", "nets.py:tiny", *DATA, "--int8"), 2, "INT8 needs calibration images"),
    "INT8 without images, quantized": (("quantize", "nets.py:tiny", "--int8"), 2, "INT8 needs calibration images"),
    "no such images": (("run", "nets.py:tiny", *DATA, "--int8", "--calib", "pics"), 2, "pics: no such data set"),
    "no trtexec": (("run", "nets.py:tiny", *DATA, "--backend", "trtexec"), 3, "no trtexec on PATH"),
    "an option of trtexec": (("run", "nets.py:tiny", *DATA, "--builder-option", "dla_core=0"), 2, "is for trtexec"),
    "no such target": (("run", "nets.py:tiny", *DATA, "--target", "orin.yaml"), 2, "orin.yaml: no such target file"),
    "a target that reads no such opset": (
        ("run", "nets.py:tiny", *DATA, "--target", "drive.yaml", "--opset", "18"),
        2,
        "opset 18, TensorRT 8.6.12 takes",
    ),
    "no such GPU": (("run", "nets.py:tiny", *DATA, "--compute-capability", "Orin"), 2, "compute capability"),
    "no such candidate": (("verify", "nets.py:tiny", *DATA, "--candidate", "c.onnx"), 2, "c.onnx: no such graph"),
    "no such baseline": (("run", "nets.py:tiny", *DATA, "--baseline", "older"), 2, "older"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_said_at_once(lab: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    arguments, code, said = MISTAKES[name]
    (lab / "drive.yaml").write_text(DRIVE)
    monkeypatch.chdir(lab)
    if name == "no trtexec" and shutil.which("trtexec"):
        pytest.skip("trtexec is installed")
    before = sorted(lab.rglob("*"))
    began = time.process_time()
    with pytest.raises(CsaDeployError) as caught:
        app([*arguments, "-q"], standalone_mode=False)
    assert time.process_time() - began < SECONDS
    assert said in caught.value.message
    assert caught.value.exit_code == code
    assert [path for path in sorted(lab.rglob("*")) if "__pycache__" not in path.parts] == before


def test_the_whole_command_is_as_quick(lab: Path, csa: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports included; PyTorch is loaded only where reading the code does not tell whether the factory is there."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # counting the lines takes time too
    for arguments in (("run", "nets.py:tny"), ("run", "nets.py:tiny", "--scope", "drive-os-8")):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = csa(lab, *arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 2
        assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < SECONDS
