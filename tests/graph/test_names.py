"""Nodes without a name, or with another node's, get one of their own, and become INT8 as the others do."""

import numpy as np
import onnx
import pytest

import csa_deploy
from csa_deploy.graph.names import named

POINTWISE = {"w": (4, 3, 1, 1), "v": (4, 4, 1, 1)}
BODY = "a = Conv (x, w) r = Relu (a) b = Conv (r, v) s = Relu (b) y = Conv (s, v)"


def network(build, names: list[str]) -> onnx.ModelProto:
    draw = np.random.default_rng(0)
    weights = {name: draw.standard_normal(shape).astype("f4") for name, shape in POINTWISE.items()}
    model = build("(float[1,3,8,8] x) => (float[1,4,8,8] y)", BODY, **weights)
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    return model


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["", "", "", "", ""], ["Conv_a", "Relu_r", "Conv_b", "Relu_s", "Conv_y"]),
        (["c", "c", "c", "d", "c"], ["c", "Relu_r", "Conv_b", "d", "Conv_y"]),
        (["", "", "", "Conv_a", "x"], ["Conv_a_2", "Relu_r", "Conv_b", "Conv_a", "x"]),
        (["1", "2", "3", "4", "5"], ["1", "2", "3", "4", "5"]),
    ],
)
def test_every_layer_has_a_name_of_its_own_and_is_int8(build, tmp_path, given, expected):
    model = network(build, given)
    before = model.SerializeToString(deterministic=True)
    assert [node.name for node in named(model).graph.node] == expected
    assert model.SerializeToString(deterministic=True) == before
    images = np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype("f4")
    np.savez(tmp_path / "x.npz", x=images)
    found = csa_deploy.quantize(model, calib=tmp_path / "x.npz", search=False, techniques=[], threads=1)
    assert [layer.name for layer in found.report.int8.int8] == expected[::2]
