"""Cutting one module out of a graph gives a graph that computes what the module computes."""

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from csa_deploy.errors import UsageError
from csa_deploy.export.exporter import export_module
from csa_deploy.graph.extract import extract
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.conv(x)) + x


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), Block(), Block(), torch.nn.Flatten()).eval()


@pytest.fixture(scope="module")
def model(network):
    return export_module(network, {"input": torch.zeros(1, 3, 8, 8)}, ["output"]).model


def test_a_module_alone_computes_what_it_computes_in_the_network(network, model):
    cut = extract(model, "1")
    onnx.checker.check_model(cut, full_check=True)
    assert [n.op_type for n in cut.graph.node] == ["Conv", "Relu", "Add"]
    x = torch.randn(1, 4, 8, 8)
    with OnnxRuntimeRunner(cut.SerializeToString()) as runner:
        assert len(runner.input_specs) == 1
        (got,) = runner.run({runner.input_specs[0].name: x.numpy()}).values()
    np.testing.assert_allclose(got, network[1](x).detach().numpy(), atol=1e-5)


def test_what_leaves_the_module_is_an_output(model):
    cut = extract(model, "1.conv")
    x = np.ones((1, 4, 8, 8), np.float32)
    (got,) = ReferenceEvaluator(cut).run(None, {cut.graph.input[0].name: x})
    assert got.shape == (1, 4, 8, 8)


def test_an_unknown_module_is_refused_with_the_nearest(model):
    with pytest.raises(UsageError, match="no node came from") as error:
        extract(model, "1.con")
    assert "1.conv" in str(error.value)
