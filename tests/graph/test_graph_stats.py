"""Counts against numbers worked out by hand."""

import itertools

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

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


INTEGER = {"s": np.float32(0.1), "z": np.uint8(3)}


@pytest.mark.parametrize(
    ("signature", "body", "weights"),
    [
        ("(uint8[2,4,6,6] x) => (int32[2,6,4,4] y)", "y = ConvInteger<group=2>(x, w)",
         {"w": np.ones((6, 2, 3, 3), np.uint8)}),
        ("(uint8[1,3,6,6] x) => (uint8[1,5,3,3] y)",
         "y = QLinearConv<strides=[2,2], pads=[1,1,1,1]>(x, s, z, w, s, z, s, z)",
         {"w": np.ones((5, 3, 3, 3), np.uint8), **INTEGER}),
        ("(uint8[3,2,4] x) => (int32[3,2,5] y)", "y = MatMulInteger(x, w)", {"w": np.ones((4, 5), np.uint8)}),
        ("(uint8[2,4] x) => (uint8[2,5] y)", "y = QLinearMatMul(x, s, z, w, s, z, s, z)",
         {"w": np.ones((4, 5), np.uint8), **INTEGER}),
        ("(float[2,3,4] x) => (float[2,5,3] y)", 'y = Einsum<equation="bij,jk->bki">(x, w)', {"w": (4, 5)}),
    ],
    ids=["ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul", "Einsum"],
)  # fmt: skip
def test_products_are_counted_as_they_would_be_one_by_one(build, signature, body, weights):
    """Every product that a loop over all indices forms once, padded ones included."""
    model = build(signature, body, **weights)
    weight, out = weights["w"], [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    shape = weight.shape if isinstance(weight, np.ndarray) else weight
    inner = shape[1:] if "Conv" in body else (shape[0],)  # what is summed over for one element of the output
    one_by_one = sum(1 for _ in itertools.product(*map(range, (*out, *inner))))
    assert graph_statistics(model).macs == one_by_one


@pytest.mark.parametrize(
    ("signature", "body", "weights", "named"),
    [
        ("(float[2,3] x, bool c) => (float[2,3] y)",
         "y = If (c) <then_branch = g () => (float[2,3] p) { p = MatMul(x, w) },"
         " else_branch = h () => (float[2,3] q) { q = Identity(x) }>", {"w": (3, 3)}, "If"),
        ("(float[2,3] a, float[3,4] b, float[4,2] c) => (float[2,2] y)",
         'y = Einsum<equation="ij,jk,kl->il">(a, b, c)', {}, "Einsum"),
        ("(float[2,3] x) => (float[2,4] y)", "y = com.microsoft.DynamicQuantizeMatMul(x, w, s)",
         {"w": np.ones((3, 4), np.uint8), "s": np.ones(1, "f4")}, "DynamicQuantizeMatMul"),
    ],
    ids=["body", "Einsum of three", "of another domain"],
)  # fmt: skip
def test_what_is_not_counted_is_unknown_and_not_zero(build, signature, body, weights, named):
    statistics = graph_statistics(build(signature, body, domains=', "com.microsoft" : 1', **weights))
    assert statistics.macs is None and len(statistics.macs_unknown) == 1
    assert "unknown for 1 node" in statistics.work and named in statistics.ops


def test_a_body_without_products_is_no_work(build):
    body = (
        "y = If (c) <then_branch = g () => (float[2,3] p) { p = Relu(x) },"
        " else_branch = h () => (float[2,3] q) { q = Identity(x) }>"
    )
    assert graph_statistics(build("(float[2,3] x, bool c) => (float[2,3] y)", body)).macs == 0


def test_unknown_shapes_are_named_not_guessed(build):
    model = build(
        "(float[1,3,4,4] x) => (float[1,8,4,4] y)",
        "h = own.Thing(x) y = Conv(h, w)",
        domains=', "own" : 1',
        w=(8, 3, 1, 1),
    )
    statistics = graph_statistics(model)
    assert (statistics.macs, statistics.macs_unknown) == (None, ("n0", "n1"))
    assert statistics.work == "- multiply-accumulates (unknown for 2 nodes)"
    assert statistics.weight_bytes == 8 * 3 * 4


@pytest.mark.parametrize("body", ["y = com.Attention(x)", "y = com.DynamicQuantizeLSTM(x)", "y = com.FusedConv(x)"])
def test_another_domains_product_is_not_free(build, body):
    statistics = graph_statistics(build("(float[1,3,4,4] x) => (float[1,3,4,4] y)", body, domains=', "com" : 1'))
    assert statistics.macs is None and len(statistics.macs_unknown) == 1


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d", "Conv1d", "Conv3d"])
def test_convolutions_cost_what_torch_counts(kind, groups):
    """torch.utils.flop_counter counts two operations for a multiply-accumulate."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    rank = int(kind[-2])
    module = getattr(torch.nn, kind)(4, 6, 3, stride=2, padding=1, groups=groups).eval()
    x = torch.zeros(2, 4, *[7, 6, 5][:rank])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        y = module(x)
    weight, bias = (
        numpy_helper.from_array(p.detach().numpy(), n) for n, p in (("w", module.weight), ("b", module.bias))
    )
    layer = {"strides": [2] * rank, "pads": [1] * 2 * rank, "group": groups}
    node = helper.make_node(kind[:-2], ["x", "w", "b"], ["y"], **layer)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(t.shape)) for n, t in (("x", x), ("y", y))]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight, bias]))
    assert graph_statistics(model).macs == counter.get_total_flops() // 2 > 0


@pytest.mark.parametrize("shapes", [((5, 3), (3, 4)), ((2, 5, 3), (2, 3, 4)), ((2, 1, 5, 3), (1, 6, 3, 4))])
def test_products_cost_what_torch_counts(shapes):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    a, b = (torch.zeros(shape) for shape in shapes)
    with FlopCounterMode(display=False) as counter:
        y = a @ b
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, list(t.shape))
        for n, t in zip("aby", (a, b, y), strict=True)
    ]
    model = helper.make_model(
        helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "g", ends[:2], ends[2:])
    )
    assert graph_statistics(model).macs == counter.get_total_flops() // 2 > 0
