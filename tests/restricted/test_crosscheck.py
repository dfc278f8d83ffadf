import sys
import textwrap

import numpy as np
import onnx
import pytest
from restricted_networks import constant, model, node, resize, single, weights

from csa_deploy.restricted import crosscheck as module
from csa_deploy.restricted.crosscheck import compare, crosscheck
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.mapping.network import map_graph

rtx = pytest.mark.rtx


@pytest.fixture
def parser():
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def save(network, folder):
    path = folder / "network.onnx"
    onnx.save(network, path)
    return path


SCALE_BIAS = [constant("s", np.ones(8)), constant("b", np.ones(8))]
NETWORKS = {
    "convolution": single("Conv", [weights(4, 8, 3, 3)]),
    "convolution 1-D": single("Conv", [weights(4, 8, 3)], shape=[1, 8, 14]),
    "global pool": single("GlobalAveragePool"),
    "resize": resize([1, 1, 2, 2]),
    "gemm": single("Gemm", [constant("w", np.zeros((8, 3))), constant("b", np.zeros(3))], shape=[1, 8]),
    "matrix product": single("MatMul", [constant("w", np.zeros((14, 3)))]),
    "softmax": single("Softmax"),
    "hard swish": single("HardSwish"),
    "layer norm": single("LayerNormalization", [constant("s", np.ones(14))]),
    "instance norm": single("InstanceNormalization", SCALE_BIAS),
    "batch norm of a vector": single("BatchNormalization", [*SCALE_BIAS, *SCALE_BIAS], shape=[2, 8]),
    "pad": single("Pad", [constant("p", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)]),
    "depth to space": single("DepthToSpace", blocksize=2),
    "shape arithmetic": model(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "a", "b"], ["n"]), node("Expand", ["x", "s"], ["y"])],
        constants=[constant("a", [0], np.int64), constant("b", [1], np.int64)],
    ),
}
for name in ("batch norm of a vector",):  # four different names for its four parameters
    for index, tensor in enumerate(NETWORKS[name].graph.initializer):
        tensor.name = f"p{index}"
    NETWORKS[name].graph.node[0].input[1:] = [f"p{index}" for index in range(4)]


@rtx
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.shows("MEA-03", "ERR-05", needs="TensorRT-RTX")
def test_the_mapping_agrees_with_the_network_that_the_parser_built(parser, tmp_path, name):
    result = crosscheck(save(NETWORKS[name], tmp_path))
    assert result.differences == ()
    assert (result.answer, result.layers > 0, bool(result.version)) == ("agrees", True, True)


@rtx
def test_what_the_parser_refuses_is_told_with_its_reason(parser, tmp_path):
    network = model([node("Foo", ["x"], ["y"], domain="mine")], domains=["mine"])
    result = crosscheck(save(network, tmp_path))
    assert result.answer == "not-parsed"
    assert result.reason


def test_a_disagreement_is_named_by_node_and_over_the_network():
    mapped = list(map_graph(load_graph(single("GlobalAveragePool")), (11,)))[:-1]
    assert compare(mapped, [("REDUCE", "globalaveragepool_node")]) == []
    found = compare(mapped, [("POOLING", "globalaveragepool_node")])
    assert [(entry.where, entry.layer, entry.mapped, entry.built) for entry in found] == [
        ("globalaveragepool_node", "POOLING", 0, 1),
        ("the network", "POOLING", 0, 1),
        ("the network", "REDUCE", 1, 0),
    ]


@pytest.mark.parametrize(
    ("body", "answer"),
    [("import os; os.abort()", "crashed"), ("import time; time.sleep(60)", "timed-out")],
)
def test_a_parser_that_crashes_or_hangs_is_an_answer(monkeypatch, tmp_path, body, answer):
    child = tmp_path / "child.py"
    child.write_text(textwrap.dedent(body))
    monkeypatch.setattr(module.crosscheck_child, "__file__", str(child))
    monkeypatch.setattr(module, "find_spec", lambda name: sys)
    result = crosscheck(save(single("Relu"), tmp_path), timeout=1)
    assert result.answer == answer
    assert result.reason


def test_without_tensorrt_rtx_nothing_is_claimed(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    result = crosscheck(save(single("Relu"), tmp_path))
    assert result.answer == "not-available"
    assert "install" in result.reason
