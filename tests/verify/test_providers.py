"""Graphs on another execution provider: offered, and refused in one line where ONNX Runtime lacks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from csa_deploy.config import make_config
from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.runners.onnxruntime_runner import CPU, PROVIDERS, OnnxRuntimeRunner
from csa_deploy.verify.candidates import graph_runner

HERE = onnxruntime.get_available_providers()


@pytest.mark.parametrize("provider", [name for name, full in PROVIDERS.items() if full not in HERE])
def test_a_provider_that_is_not_installed_is_named_before_anything_runs(lab: Path, csa: Any, provider: str) -> None:
    for verb in ("verify", "evaluate"):
        done = csa(lab, verb, "tiny.onnx", "--data", "x.npz", "--provider", provider, "-w", "w")
        assert done.returncode == 3 and f"has no {PROVIDERS[provider]}; it has " in done.stderr, done.stderr
        assert "onnxruntime-gpu" in done.stderr and "Traceback" not in done.stderr
    assert not (lab / "w/onnx").exists()


def test_an_unknown_provider_is_a_usage_error(lab: Path, csa: Any) -> None:
    done = csa(lab, "verify", "tiny.onnx", "--data", "x.npz", "--provider", "gpu")
    assert done.returncode == 2 and "'cpu', 'cuda' or 'tensorrt'" in done.stderr


@pytest.mark.skipif(PROVIDERS["cuda"] in HERE, reason="this ONNX Runtime has the CUDA provider")
def test_a_provider_that_does_not_start_is_no_silent_fall_back(make_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would warn and execute on the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [PROVIDERS["cuda"], CPU])
    with pytest.warns(UserWarning), pytest.raises(EnvironmentLacksError, match="does not start here"):
        OnnxRuntimeRunner(make_tiny().SerializeToString(), provider=PROVIDERS["cuda"])


@pytest.mark.parametrize(("precision", "executes"), [("fp32", "optimised"), ("fp16", "node by node")])
def test_the_cpu_is_the_default(make_tiny: Any, tmp_path: Path, precision: str, executes: str) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(make_tiny(), path)
    with graph_runner(path, onnx.load(path), precision, make_config({"threads": 1}), name="tiny") as runner:
        assert runner.describe()["provider"] == CPU and executes in runner.describe()["executes"]
