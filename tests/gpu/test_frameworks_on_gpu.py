"""PyTorch and ONNX Runtime on the device give what they give on the CPU."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.profile.roofline import measure_ceilings
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.source import load_source

torch = pytest.importorskip("torch")
needs_torch = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")


@needs_torch
def test_pytorch_agrees_with_itself_on_the_cpu():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    outputs = {}
    for device in ("cpu", "cuda"):
        network = load_source("csa_digits").make_network()
        specs = network.input_specs
        feeds = random_feeds(specs, 0)
        with TorchRunner(network.module, specs, network.output_names, device=device) as runner:
            outputs[device] = runner.run(feeds)
            assert runner.describe()["provider"] == ("CPU" if device == "cpu" else torch.cuda.get_device_name())
    for name, expected in outputs["cpu"].items():
        np.testing.assert_allclose(outputs["cuda"][name], expected, atol=1e-4 * np.abs(expected).max())


def test_onnx_runtime_on_cuda_agrees_with_the_cpu(make_tiny, tmp_path):
    path = tmp_path / "tiny.onnx"
    onnx.save(make_tiny(), path)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype("f4")}
    try:
        runner = OnnxRuntimeRunner(path, provider="CUDAExecutionProvider")
    except EnvironmentLacksError as error:
        pytest.skip(error.message)
    with runner, OnnxRuntimeRunner(path) as cpu:
        np.testing.assert_allclose(runner.run(feeds)["y"], cpu.run(feeds)["y"], rtol=1e-2, atol=1e-2)  # TF32


@needs_torch
def test_ceilings_are_a_gpus():
    ceilings = measure_ceilings()
    assert not isinstance(ceilings, str), ceilings
    speeds = ceilings.operations_per_second
    assert speeds["fp16"] > 1.5 * speeds["fp32"] > 1e11
    assert speeds.get("int8", speeds["fp16"]) > speeds["fp32"]
    assert 2e10 < ceilings.bytes_per_second < 2e13
