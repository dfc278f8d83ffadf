"""Counts against numbers worked out by hand."""

import numpy as np
import pytest

from csa_deploy.graph.stats import graph_statistics


@pytest.mark.parametrize(
    ("signature", "body", "weights", "macs", "parameters"),
    [
        ("(float[2,4,8,8] x) => (float[2,6,4,4] y)", "y = Conv<group=2, strides=[2,2], pads=[1,1,1,1]>(x, w, b)",
         {"w": (6, 2, 3, 3), "b": (6,)}, 2 * 6 * 16 * 2 * 9, 6 * 18 + 6),
        ("(float[1,4,5,5] x) => (float[1,6,10,10] y)", "y = ConvTranspose<strides=[2,2], group=2>(x, w)",
         {"w": (4, 3, 2, 2)}, 100 * 3 * 4, 48),
        ("(float[5,2] x) => (float[2,3] y)", "y = Gemm<transA=1>(x, w)", {"w": (5, 3)}, 2 * 3 * 5, 15),
        ("(float[7,2,5] x) => (float[7,2,3] y)", "y = MatMul(x, w)", {"w": (5, 3)}, 7 * 2 * 3 * 5, 15),
        ("(float[2,3] x) => (float[3,2] y)", "y = Reshape(x, s)", {"s": np.array([3, 2])}, 0, 0),
    ],
    ids=["conv", "transposed conv", "gemm", "matmul", "reshape"],
)  # fmt: skip
def test_counts(build, signature, body, weights, macs, parameters):
    statistics = graph_statistics(build(signature, body, **weights))
    assert (statistics.macs, statistics.parameters, statistics.macs_unknown) == (macs, parameters, ())
    assert statistics.nodes == 1 and statistics.to_json()["nodes"] == 1


def test_unknown_shapes_are_named_not_guessed(build):
    model = build(
        "(float[1,3,4,4] x) => (float[1,8,4,4] y)",
        "h = own.Thing(x) y = Conv(h, w)",
        domains=', "own" : 1',
        w=(8, 3, 1, 1),
    )
    statistics = graph_statistics(model)
    assert (statistics.macs, statistics.macs_unknown) == (None, ("n1",))
    assert statistics.work == "- multiply-accumulates (unknown for 1 nodes)"
    assert statistics.weight_bytes == 8 * 3 * 4
