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
        ("(uint8[2,4,8,8] x) => (int32[2,6,6,6] y)", "y = ConvInteger(x, w)",
         {"w": (6, 4, 3, 3)}, 2 * 6 * 36 * 36, 216),
        ("(uint8[7,5] x) => (int32[7,3] y)", "y = MatMulInteger(x, w)", {"w": (5, 3)}, 105, 15),
        ("(float[9,2,5] x) => (float[9,1,2,4] y)", "y = LSTM<hidden_size=4>(x, w, r)",
         {"w": (1, 16, 5), "r": (1, 16, 4)}, 9 * 2 * (16 * 5 + 16 * 4), 144),
        ("(float[2,9,5] x) => (float[2,9,1,4] y)", "y = GRU<hidden_size=4, layout=1>(x, w, r)",
         {"w": (1, 12, 5), "r": (1, 12, 4)}, 18 * (60 + 48), 108),
        ("(float[7,2,5] x) => (float[7,2,3] y)", 'y = Einsum<equation="abc,cd->abd">(x, w)', {"w": (5, 3)}, 210, 15),
        ("(float[2,3] x) => (float[3,2] y)", "y = Reshape(x, s)", {"s": np.array([3, 2])}, 0, 0),
    ],
    ids=["conv", "conv back", "gemm", "matmul", "integer conv", "integer matmul", "lstm", "gru", "einsum", "reshape"],
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


@pytest.mark.parametrize("body", ["y = com.Attention(x)", "y = com.DynamicQuantizeLSTM(x)", "y = com.FusedConv(x)"])
def test_another_domains_product_is_not_free(build, body):
    statistics = graph_statistics(build("(float[1,3,4,4] x) => (float[1,3,4,4] y)", body, domains=', "com" : 1'))
    assert statistics.macs is None and len(statistics.macs_unknown) == 1
