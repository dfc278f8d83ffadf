"""``optimize --extract``: the module that is named, in a file that computes what PyTorch's module computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from tests.conftest import NETS, Csa


def test_a_module_is_cut_out_and_computes_what_pytorch_s_module_computes(csa: Csa, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    done = csa(tmp_path, "optimize", "nets.py:tiny", "--extract", "3")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "deploy" / "nets-tiny" / "onnx"
    path = folder / "nets-tiny.3.onnx"
    assert str(path.relative_to(tmp_path)) in done.stdout
    spec = importlib.util.spec_from_file_location("nets", tmp_path / "nets.py")
    assert spec and spec.loader
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    values = np.random.default_rng(0).standard_normal((1, 8, 1, 1)).astype("f4")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: values})
    with torch.no_grad():
        np.testing.assert_allclose(found, nets.tiny()[3](torch.from_numpy(values)).numpy(), rtol=1e-5, atol=1e-6)

    kept = sorted(folder.iterdir())
    wrong = csa(tmp_path, "optimize", "nets.py:tiny", "--extract", "4.conv")
    assert wrong.returncode == 2 and sorted(folder.iterdir()) == kept
    line = wrong.stderr.strip().splitlines()[-1]
    assert "no node came from a module '4.conv'" in line
