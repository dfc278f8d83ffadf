"""Every rewrite on graphs where it is exact, and on graphs where it would not be."""

from collections import Counter

import numpy as np
import onnx
import pytest

from csa_deploy.graph.optimize import optimize

IMAGE = "float[1,4,6,6]"
BN = {"g": (4,), "o": (4,), "m": (4,), "v": (4,)}


def ops(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph.node))


FOLDED = {
    "conv, BatchNorm": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv<pads=[1,1,1,1]>(x, w, b) y = BatchNormalization(a, g, o, m, v)",
        {"w": (4, 4, 3, 3), "b": (4,), **BN},
        {"Conv": 1},
    ),
    "conv without bias, BatchNorm with epsilon": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w) y = BatchNormalization<epsilon=0.5>(a, g, o, m, v)",
        {"w": (4, 4, 1, 1), **BN},
        {"Conv": 1},
    ),
    "grouped transposed conv, BatchNorm": (
        f"({IMAGE} x) => (float[1,4,12,12] y)",
        "a = ConvTranspose<group=2, strides=[2,2]>(x, w, b) y = BatchNormalization(a, g, o, m, v)",
        {"w": (4, 2, 2, 2), "b": (4,), **BN},
        {"ConvTranspose": 1},
    ),
    "Gemm with alpha and beta, BatchNorm": (
        "(float[2,3] x) => (float[2,4] y)",
        "a = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b) y = BatchNormalization(a, g, o, m, v)",
        {"w": (4, 3), "b": (4,), **BN},
        {"Gemm": 1},
    ),
    "BatchNorm, grouped unpadded conv": (
        f"({IMAGE} x) => (float[1,6,4,4] y)",
        "a = BatchNormalization(x, g, o, m, v) y = Conv<group=2>(a, w, b)",
        {"w": (6, 2, 3, 3), "b": (6,), **BN},
        {"Conv": 1},
    ),
    "BatchNorm, Gemm": (
        "(float[2,4] x) => (float[2,3] y)",
        "a = BatchNormalization(x, g, o, m, v) y = Gemm<alpha=0.5>(a, w, b)",
        {"w": (4, 3), "b": (3,), **BN},
        {"Gemm": 1},
    ),
    "scale, padded conv": (
        f"({IMAGE} x) => (float[1,2,6,6] y)",
        "a = Mul(s, x) y = Conv<pads=[1,1,1,1]>(a, w)",
        {"s": (1, 4, 1, 1), "w": (2, 4, 3, 3)},
        {"Conv": 1},
    ),
    "layer scale and a shift": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w, b) c = Mul(s, a) y = Sub(c, t)",
        {"w": (4, 4, 1, 1), "b": (4,), "s": (1, 4, 1, 1), "t": (4, 1, 1)},
        {"Conv": 1},
    ),
    "zero Pad": (
        f"({IMAGE} x) => (float[1,2,6,6] y)",
        "a = Pad(x, p) y = Conv(a, w)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": (2, 4, 3, 3)},
        {"Conv": 1},
    ),
    "reshapes and transposes": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Reshape(x, r) b = Reshape(a, s) c = Transpose<perm=[0,2,1,3]>(b) d = Transpose<perm=[0,2,1,3]>(c)"
        " y = Relu(d)",
        {"r": np.array([4, 36]), "s": np.array([1, 4, 6, 6])},
        {"Relu": 1},
    ),
    "shape arithmetic": (
        f"({IMAGE} x) => (float[1,144] y)",
        "s = Shape(x) n = Gather(s, i) u = Unsqueeze(n, z) q = Concat<axis=0>(u, m) y = Reshape(x, q)",
        {"i": np.array(0), "z": np.array([0]), "m": np.array([-1])},
        {"Reshape": 1},
    ),
    "identities": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Identity(x) b = Dropout(a) c = Mul(b, one) d = Relu(c) y = Identity(d)",
        {"one": np.float32(1)},
        {"Relu": 1},
    ),
    "no padding, no crop, same place": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Pad(x, p) b = Slice(a, s, e) c = Relu(b) y = Cast<to=1>(c)",
        {"p": np.zeros(8, "i8"), "s": np.array([0, 0, 0, 0]), "e": np.array([1, 4, 6, 6])},
        {"Relu": 1},
    ),
}


@pytest.mark.parametrize("case", FOLDED, ids=list(FOLDED))
@pytest.mark.shows("MEA-13")
def test_rewrites_are_exact(build, case, check_equal):
    signature, body, weights, expected = FOLDED[case]
    model = build(signature, body, **weights)
    original = model.SerializeToString()
    result = optimize(model)
    assert ops(result.model) == expected
    assert model.SerializeToString() == original
    assert result.steps and all(step.kept and step.error is not None for step in result.steps)
    check_equal(model, result)


KEPT = {
    "BatchNorm, padded conv": (
        f"({IMAGE} x) => (float[1,2,6,6] y)",
        "a = BatchNormalization(x, g, o, m, v) y = Conv<pads=[1,1,1,1]>(a, w)",
        {"w": (2, 4, 3, 3), **BN},
    ),
    "conv read by two": (
        f"({IMAGE} x) => (float[1,4,6,6] y, float[1,4,6,6] z)",
        "a = Conv(x, w) y = BatchNormalization(a, g, o, m, v) z = Relu(a)",
        {"w": (4, 4, 1, 1), **BN},
    ),
    "conv is an output too": (
        f"({IMAGE} x) => (float[1,4,6,6] a, float[1,4,6,6] y)",
        "a = Conv(x, w) y = BatchNormalization(a, g, o, m, v)",
        {"w": (4, 4, 1, 1), **BN},
    ),
    "scale that differs by position": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Conv(x, w) y = Mul(a, s)",
        {"w": (4, 4, 1, 1), "s": (1, 1, 6, 1)},
    ),
    "epsilon that guards a division": (
        f"({IMAGE} x) => (float[1,4,6,6] y)",
        "a = Abs(x) b = Add(a, e) y = Div(x, b)",
        {"e": np.float32(1e-9)},
    ),
    "weights that are an input": (
        f"({IMAGE} x, float[4,4,1,1] w) => (float[1,4,6,6] y)",
        "a = Conv(x, w) y = BatchNormalization(a, g, o, m, v)",
        BN,
    ),
    "input passed through": (f"({IMAGE} x) => (float[1,4,6,6] y)", "y = Identity(x)", {}),
}


@pytest.mark.parametrize("case", KEPT, ids=list(KEPT))
def test_what_is_not_exact_is_left_alone(build, case, check_equal):
    signature, body, weights = KEPT[case]
    model = build(signature, body, **weights)
    result = optimize(model)
    assert ops(result.model) == ops(model)
    check_equal(model, result)


def resize_then_conv(build, scale: float, out: int, mode: str = "linear"):
    return build(
        f"(float[1,2,8,8] x) => (float[1,3,{out},{out}] y)",
        f'a = Resize<mode="{mode}">(x, , s) y = Conv(a, w, b)',
        s=np.array([1, 1, scale, scale], "f4"),
        w=(3, 2, 1, 1),
        b=(3,),
    )


@pytest.mark.parametrize(("scale", "out", "order"), [(2, 16, "CR"), (0.5, 4, "RC")])
def test_conv_moves_to_the_smaller_side_of_a_resize(build, scale, out, order, check_equal):
    model = resize_then_conv(build, scale, out)
    result = optimize(model)
    assert "".join(node.op_type[0] for node in result.model.graph.node) == order
    assert result.after.macs == 3 * 2 * min(64, out * out)
    check_equal(model, result)


def test_conv_moves_behind_a_shrinking_resize_by_sizes(build, check_equal):
    model = build(
        "(float[1,2,8,8] x) => (float[1,3,4,5] y)",
        'a = Conv(x, w, b) y = Resize<mode="linear">(a, , , z)',
        z=np.array([1, 3, 4, 5]),
        w=(3, 2, 1, 1),
        b=(3,),
    )
    result = optimize(model)
    assert [node.op_type for node in result.model.graph.node] == ["Resize", "Conv"]
    check_equal(model, result)


def test_conv_does_not_cross_a_cubic_or_cropping_resize(build):
    assert not optimize(resize_then_conv(build, 2, 16, "cubic")).steps
