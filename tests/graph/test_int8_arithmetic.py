"""INT8 in integer arithmetic against loops over Python's integers, and against ONNX Runtime's integer kernels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from csa_deploy.graph.int8_arithmetic import LARGEST_EXACT, Rounding, to_integer
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.verify.localize.surgery import expose
from tests.small_models import model_of

ZERO = np.int8(0)


def pair(source: str, scale: str, zero: str = "zero", stem: str = "") -> list[NodeProto]:
    """Q and DQ behind a tensor: ``<stem>_q`` and ``<stem>_dq``."""
    stem = stem or source
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [f"{stem}_q"], name=f"{stem}_quantize"),
        helper.make_node("DequantizeLinear", [f"{stem}_q", scale, zero], [f"{stem}_dq"]),
    ]


def execute(model: ModelProto, feeds: Mapping[str, np.ndarray], tensors: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """ONNX Runtime, node by node."""
    model = expose(model, tensors) if tensors else model
    return OnnxRuntimeRunner(model.SerializeToString(), threads=1, optimize=False).run(feeds)


def integers(model: ModelProto, rounding: Rounding, feeds: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """An INT8 tensor of the graph in integer arithmetic."""
    return execute(to_integer(model, rounding).model, feeds, [name])[name].astype(int) - 128


def rounded(value: float, rounding: Rounding) -> int:
    """To the nearest integer by exact fractions, and saturated."""
    exact = Fraction(float(value))
    below, half = math.floor(exact), Fraction(1, 2)
    halves_up = below % 2 == 1 if rounding == "gpu" else exact > 0
    up = halves_up if exact - below == half else exact - below > half
    return max(-128, min(127, below + up))


def conv_sums(
    x: np.ndarray, w: np.ndarray, strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int], group: int
) -> np.ndarray:
    """A convolution of any number of dimensions, one product after another, in Python's integers."""
    rank = x.ndim - 2
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, w.shape[2:], strict=True)]
    extents = [(x.shape[2 + i] + pads[i] + pads[rank + i] - reach[i]) // strides[i] + 1 for i in range(rank)]
    found = np.zeros((x.shape[0], w.shape[0], *extents), object)
    per_group, channels = w.shape[0] // group, w.shape[1]
    for sample, out, *place in itertools.product(*(range(e) for e in found.shape)):
        total = 0
        for channel, *tap in itertools.product(range(channels), *(range(k) for k in w.shape[2:])):
            at = [
                p * s - pads[i] + t * d
                for i, (p, s, t, d) in enumerate(zip(place, strides, tap, dilations, strict=True))
            ]
            if all(0 <= a < e for a, e in zip(at, x.shape[2:], strict=True)):
                source = x[(sample, out // per_group * channels + channel, *at)]
                total += int(source) * int(w[(out, channel, *tap)])
        found[(sample, out, *place)] = total
    return found


def rescaled(sums: np.ndarray, scales: np.ndarray, bias: np.ndarray | None, axis: int) -> np.ndarray:
    """FP32: the sum is rounded, multiplied, and the bias added, each rounded; what they are made of is FP64."""
    shape = [-1 if i == axis else 1 for i in range(sums.ndim)]
    found = sums.astype(np.float64).astype(np.float32) * scales.astype(np.float32).reshape(shape)
    return found if bias is None else found + bias.astype(np.float32).reshape(shape)


def all_rounded(values: np.ndarray, rounding: Rounding) -> np.ndarray:
    return np.vectorize(lambda v: rounded(v, rounding), otypes=[int])(values)


CASES = [  # spatial shape of data, of the kernel, strides, pads, dilations, group, bias, behind it
    ((7, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, True, ""),
    ((9, 8), (3, 2), (2, 1), (1, 0, 2, 1), (1, 1), 1, False, ""),
    ((9, 9), (3, 3), (1, 2), (2, 2, 2, 2), (2, 2), 2, True, "Relu"),
    ((6, 6), (3, 3), (2, 2), (0, 1, 1, 0), (1, 1), 4, True, "Clip"),
    ((5, 5), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, True, "Relu"),
    ((11,), (4,), (3,), (2, 1), (1,), 1, True, ""),
    ((11,), (3,), (1,), (2, 2), (2,), 4, False, "Relu"),
    ((4, 5, 4), (2, 3, 2), (1, 2, 1), (0, 1, 1, 1, 0, 0), (1, 1, 1), 2, True, ""),
]


@pytest.mark.parametrize("rounding", ["gpu", "dla"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[5]}-{case[7]}")
@pytest.mark.parametrize("per_channel", [True, False])
def test_convolutions_are_what_loops_over_integers_say(
    case: tuple[Any, ...], per_channel: bool, rounding: Rounding
) -> None:
    data, kernel, strides, pads, dilations, group, biased, behind = case
    rng = np.random.default_rng(len(data) * 7 + group)
    channels, outs = 4, 8
    w = rng.integers(-127, 128, (outs, channels // group, *kernel)).astype(np.int8)
    s_x, s_y = np.float32(0.02), np.float32(0.031)
    s_w = rng.uniform(0.001, 0.01, outs).astype(np.float32) if per_channel else np.float32(0.004)
    bias = rng.normal(size=outs).astype(np.float32) if biased else None
    nodes = [*pair("x", "s_x"), helper.make_node("DequantizeLinear", ["w", "s_w", "w_zero"], ["w_dq"], axis=0)]
    given = ["x_dq", "w_dq", *(["b"] if biased else [])]
    shape = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    nodes.append(helper.make_node("Conv", given, ["c"], **shape))
    if behind:
        limits = ["low", "high"] if behind == "Clip" else []
        nodes.append(helper.make_node(behind, ["c", *limits], ["r"]))
    nodes += [*pair("r" if behind else "c", "s_y", stem="y")]
    constants = {"s_x": s_x, "s_w": s_w, "s_y": s_y, "zero": ZERO, "w": w, "w_zero": np.zeros(np.shape(s_w), np.int8)}
    constants |= {"b": bias} if biased else {}
    constants |= {"low": np.float32(-0.4), "high": np.float32(1.7)} if behind == "Clip" else {}
    model = model_of(nodes, {"x": (2, channels, *data)}, ["y_dq", "c"], constants)
    feeds = {"x": rng.normal(scale=1.5, size=(2, channels, *data)).astype(np.float32)}

    q_x = all_rounded(feeds["x"] / s_x, rounding)
    assert abs(q_x).max() >= 127, "the data saturate"
    sums = conv_sums(q_x, w, strides, pads, dilations, group)
    products = np.broadcast_to(np.float64(s_x) * s_w.astype(np.float64), outs)
    steps = rescaled(sums, products / np.float64(s_y), None if bias is None else bias / np.float64(s_y), 1)
    if behind == "Relu":
        steps = np.maximum(steps, 0)
    if behind == "Clip":
        steps = np.clip(steps, *(np.float32(np.float64(np.float32(v)) / np.float64(s_y)) for v in (-0.4, 1.7)))
    wanted = all_rounded(steps, rounding)

    assert (integers(model, rounding, feeds, "y_q") == wanted).all()
    found = to_integer(model, rounding)
    assert found.layers == found.fused and len(found.layers) == 1
    got = execute(found.model, feeds)
    np.testing.assert_array_equal(got["y_dq"], wanted.astype(np.float32) * s_y)
    np.testing.assert_array_equal(got["c"], rescaled(sums, products, bias, 1))  # who reads it in FP32


@pytest.mark.parametrize("rounding", ["gpu", "dla"])
@pytest.mark.parametrize(("op", "transposed"), [("Gemm", 0), ("Gemm", 1), ("MatMul", 0)])
def test_products_with_weights(op: str, transposed: int, rounding: Rounding) -> None:
    rng = np.random.default_rng(3)
    w = rng.integers(-127, 128, (20, 6)).astype(np.int8)
    s_w, bias = rng.uniform(0.001, 0.01, 6).astype(np.float32), rng.normal(size=6).astype(np.float32)
    s_x, s_y = np.float32(0.03), np.float32(0.05)
    stored = w.T.copy() if transposed else w
    axis = 0 if transposed else 1
    nodes = [*pair("x", "s_x"), helper.make_node("DequantizeLinear", ["w", "s_w", "w_zero"], ["w_dq"], axis=axis)]
    if op == "Gemm":
        nodes.append(helper.make_node("Gemm", ["x_dq", "w_dq", "b"], ["c"], transB=transposed))
    else:
        nodes += [helper.make_node("MatMul", ["x_dq", "w_dq"], ["m"]), helper.make_node("Add", ["m", "b"], ["c"])]
    nodes += pair("c", "s_y", stem="y")
    constants = {
        "s_x": s_x,
        "s_w": s_w,
        "s_y": s_y,
        "zero": ZERO,
        "w": stored,
        "w_zero": np.zeros(6, np.int8),
        "b": bias,
    }
    shape = (5, 20) if op == "Gemm" else (2, 5, 20)
    model = model_of(nodes, {"x": shape}, ["y_dq"], constants)
    feeds = {"x": rng.normal(size=shape).astype(np.float32)}
    q_x = all_rounded(feeds["x"] / s_x, rounding)
    sums = np.zeros((*shape[:-1], 6), object)
    for *row, column in itertools.product(*(range(e) for e in sums.shape)):
        sums[(*row, column)] = sum(int(q_x[(*row, k)]) * int(w[k, column]) for k in range(20))
    scales = np.float64(s_x) * s_w / np.float64(s_y)
    wanted = all_rounded(rescaled(sums, scales, bias / np.float64(s_y), sums.ndim - 1), rounding)
    assert (integers(model, rounding, feeds, "y_q") == wanted).all()
    assert len(to_integer(model, rounding).fused) == 1


@pytest.mark.parametrize("rounding", ["gpu", "dla"])
def test_products_of_two_tensors_one_of_them_moved(rounding: Rounding) -> None:
    """Attention: a transposition between DQ and the product leaves the integers as they are."""
    rng = np.random.default_rng(4)
    s_a, s_b, s_y = np.float32(0.02), np.float32(0.013), np.float32(0.07)
    nodes = [
        *pair("a", "s_a"),
        *pair("b", "s_b"),
        helper.make_node("Transpose", ["b_dq"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a_dq", "t"], ["c"]),
        *pair("c", "s_y", stem="y"),
    ]
    model = model_of(
        nodes, {"a": (2, 4, 9), "b": (2, 5, 9)}, ["y_dq"], {"s_a": s_a, "s_b": s_b, "s_y": s_y, "zero": ZERO}
    )
    feeds = {n: rng.normal(size=s).astype(np.float32) for n, s in {"a": (2, 4, 9), "b": (2, 5, 9)}.items()}
    q_a, q_b = (all_rounded(feeds[n] / s, rounding) for n, s in (("a", s_a), ("b", s_b)))
    sums = np.asarray(
        [[[sum(int(p) * int(q) for p, q in zip(a, b, strict=True)) for b in q_b[n]] for a in q_a[n]] for n in range(2)]
    )
    steps = rescaled(sums, np.full(5, np.float64(s_a) * s_b / np.float64(s_y)), None, 2)
    assert (integers(model, rounding, feeds, "y_q") == all_rounded(steps, rounding)).all()


@pytest.mark.parametrize("rounding", ["gpu", "dla"])
def test_a_residual_addition_joins_the_layer(rounding: Rounding) -> None:
    rng = np.random.default_rng(5)
    w = rng.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8)
    s_x, s_w, s_k, s_y = (np.float32(v) for v in (0.02, 0.006, 0.017, 0.04))
    nodes = [
        *pair("x", "s_x"),
        *pair("k", "s_k"),
        helper.make_node("DequantizeLinear", ["w", "s_w", "zero"], ["w_dq"]),
        helper.make_node("Conv", ["x_dq", "w_dq"], ["c"]),
        helper.make_node("Add", ["k_dq", "c"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        *pair("r", "s_y", stem="y"),
    ]
    constants = {"s_x": s_x, "s_w": s_w, "s_k": s_k, "s_y": s_y, "zero": ZERO, "w": w}
    model = model_of(nodes, dict.fromkeys("xk", (1, 4, 5, 5)), ["y_dq"], constants)
    feeds = {n: rng.normal(size=(1, 4, 5, 5)).astype(np.float32) for n in "xk"}
    q_x, q_k = (all_rounded(feeds[n] / s, rounding) for n, s in (("x", s_x), ("k", s_k)))
    sums = conv_sums(q_x, w, (1, 1), (0, 0, 0, 0), (1, 1), 1)
    steps = rescaled(sums, np.full(4, np.float64(s_x) * s_w / np.float64(s_y)), None, 1)
    steps = steps + q_k.astype(np.float32) * np.float32(np.float64(s_k) / np.float64(s_y))
    assert (integers(model, rounding, feeds, "y_q") == all_rounded(np.maximum(steps, 0), rounding)).all()


@pytest.mark.parametrize("rounding", ["gpu", "dla"])
def test_transposed_convolutions_up_to_what_fp32_holds(rounding: Rounding) -> None:
    rng = np.random.default_rng(6)
    w = rng.integers(-127, 128, (3, 2, 2, 2)).astype(np.int8)
    s_x, s_y = np.float32(0.03), np.float32(0.06)
    s_w = rng.uniform(0.001, 0.01, 2).astype(np.float32)
    model = transposed(w, s_x, s_w, s_y)
    feeds = {"x": rng.normal(size=(1, 3, 4, 4)).astype(np.float32)}
    q_x = all_rounded(feeds["x"] / s_x, rounding)
    sums = np.zeros((1, 2, 8, 8), object)
    for i, o, y, x, dy, dx in itertools.product(range(3), range(2), range(4), range(4), range(2), range(2)):
        sums[0, o, 2 * y + dy, 2 * x + dx] += int(q_x[0, i, y, x]) * int(w[i, o, dy, dx])
    wanted = all_rounded(rescaled(sums, np.float64(s_x) * s_w / np.float64(s_y), None, 1), rounding)
    assert (integers(model, rounding, feeds, "y_q") == wanted).all()


@pytest.mark.parametrize(("beyond", "layers"), [(0, 1), (1, 0)])
def test_a_transposed_convolution_whose_sums_fp32_may_not_hold_is_named(beyond: int, layers: int) -> None:
    """The weights of a channel sum up to 2^24 / 128 exactly, and to one more."""
    w = np.full((LARGEST_EXACT // 128 // 64, 1, 1, 1), 64, np.int8)
    w[0] += beyond
    found = to_integer(transposed(w, np.float32(1), np.ones(1, np.float32), np.float32(1)), "gpu")
    assert len(found.layers) == layers
    assert any("may exceed 2^24" in reason for reason in found.not_modelled) == (not layers)


def transposed(w: np.ndarray, s_x: Any, s_w: np.ndarray, s_y: Any) -> ModelProto:
    nodes = [
        *pair("x", "s_x"),
        helper.make_node("DequantizeLinear", ["w", "s_w", "w_zero"], ["w_dq"], axis=1),
        helper.make_node("ConvTranspose", ["x_dq", "w_dq"], ["c"], strides=w.shape[2:]),
        *pair("c", "s_y", stem="y"),
    ]
    constants = {"s_x": s_x, "s_w": s_w, "s_y": s_y, "zero": ZERO, "w": w, "w_zero": np.zeros(len(s_w), np.int8)}
    return model_of(nodes, {"x": (1, w.shape[0], 4, 4)}, ["y_dq"], constants)


def products(w: np.ndarray, s_y: float, *, s_w: float = 1.0, rows: int = 1) -> ModelProto:
    nodes = [
        *pair("x", "one"),
        helper.make_node("DequantizeLinear", ["w", "s_w", "zero"], ["w_dq"]),
        helper.make_node("MatMul", ["x_dq", "w_dq"], ["c"]),
        *pair("c", "s_y", stem="y"),
    ]
    constants = {"one": np.float32(1), "s_y": np.float32(s_y), "s_w": np.float32(s_w), "zero": ZERO, "w": w}
    return model_of(nodes, {"x": (rows, len(w))}, ["y_dq"], constants)


@pytest.mark.parametrize("rounding", ["gpu", "dla"])
def test_sums_that_end_on_halves_and_beyond_the_range(rounding: Rounding) -> None:
    """Every half from -128.5 to 127.5 and its neighbours, and what saturates."""
    sums = np.arange(-600, 601)  # of 4 steps of the sum, one of the result: every second even one is a half
    parts = np.stack(np.divmod(sums, 127), axis=1).astype(np.float32)  # one product of INT8 holds no 600
    model = products(np.asarray([[127], [1]], np.int8), 4, rows=len(sums))
    found = integers(model, rounding, {"x": parts}, "y_q").ravel().tolist()
    assert found == [rounded(value / 4, rounding) for value in sums]
    assert {-128, 127} <= set(found)


def numbers_around_halves() -> Iterator[float]:
    for whole in range(131):
        for half in (whole + 0.5, float(whole)):
            for ulps in range(-3, 4):
                value = np.float32(half)
                for _ in range(abs(ulps)):
                    value = np.nextafter(value, np.float32(np.inf if ulps > 0 else -np.inf))
                yield from (float(value), -float(value))


@pytest.mark.parametrize("rounding", ["gpu", "dla"])
def test_every_number_next_to_a_half_is_rounded_to_the_nearest(rounding: Rounding) -> None:
    """0.49999997 among them, to which 0.5 added in FP32 gives 1."""
    values = np.asarray([*numbers_around_halves(), 0.0, -0.0, 1e-45, 2.0**23 + 1, -3e38, np.inf, -np.inf], np.float32)
    model = model_of(pair("x", "one"), {"x": values.shape}, ["x_dq"], {"one": np.float32(1), "zero": ZERO})
    finite = np.clip(values, -1e30, 1e30)
    assert (integers(model, rounding, {"x": values}, "x_q") == all_rounded(finite, rounding)).all()


def test_sums_beyond_what_fp32_adds_exactly() -> None:
    """40,001 products of 127 by 127 and one of 1: FP32 loses it, INT32 does not; then one rounding to FP32."""
    w = np.full((40_002, 1), 127, np.int8)
    w[-1] = 1
    x = np.full((1, 40_002), 127, np.float32)
    x[0, -1] = 64.0
    total = 40_001 * 127 * 127 + 64
    got = execute(to_integer(expose(products(w, 2.0**24), ["c"]), "gpu").model, {"x": x})["c"].item()
    assert total > LARGEST_EXACT and got == float(np.float32(total))


def test_onnx_runtimes_own_integer_kernels_agree() -> None:
    """QLinearConv and QLinearMatMul round halves to even after one FP32 factor: the same where there is no bias."""
    rng = np.random.default_rng(7)
    w = rng.integers(-127, 128, (6, 3, 3, 3)).astype(np.int8)
    v = rng.integers(-127, 128, (12, 5)).astype(np.int8)
    q, p = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((1, 3, 8, 8), (400, 12)))
    s_x, s_v, s_y = np.float32(2.0**-5), np.float32(2.0**-7), np.float32(2.0**-4)
    s_w = (2.0 ** -rng.integers(6, 9, 6)).astype(np.float32)
    constants = {
        "s_x": s_x,
        "s_w": s_w,
        "s_v": s_v,
        "s_y": s_y,
        "zero": ZERO,
        "w": w,
        "v": v,
        "w_zero": np.zeros(6, np.int8),
    }
    shape = {"pads": [1, 1, 1, 1], "strides": [2, 1]}
    ours = model_of(
        [
            *pair("x", "s_x"),
            helper.make_node("DequantizeLinear", ["w", "s_w", "w_zero"], ["w_dq"], axis=0),
            helper.make_node("Conv", ["x_dq", "w_dq"], ["c"], **shape),
            *pair("c", "s_y", stem="y"),
            *pair("z", "s_x"),
            helper.make_node("DequantizeLinear", ["v", "s_v", "zero"], ["v_dq"]),
            helper.make_node("MatMul", ["z_dq", "v_dq"], ["m"]),
            *pair("m", "s_y", stem="n"),
        ],
        {"x": q.shape, "z": p.shape},
        ["y_dq", "n_dq"],
        constants,
    )
    theirs = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    "QLinearConv", ["q", "s_x", "zero", "w", "s_w", "w_zero", "s_y", "zero"], ["y"], **shape
                ),
                helper.make_node("QLinearMatMul", ["p", "s_x", "zero", "v", "s_v", "zero", "s_y", "zero"], ["n"]),
                helper.make_node("ConvInteger", ["q", "w"], ["sums"], **shape),
                helper.make_node("MatMulInteger", ["p", "v"], ["totals"]),
            ],
            "theirs",
            [helper.make_tensor_value_info(n, TensorProto.INT8, a.shape) for n, a in (("q", q), ("p", p))],
            [helper.make_tensor_value_info(n, TensorProto.INT8, None) for n in ("y", "n")]
            + [helper.make_tensor_value_info(n, TensorProto.INT32, None) for n in ("sums", "totals")],
            [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    wanted = execute(theirs, {"q": q, "p": p})
    feeds = {"x": q.astype(np.float32) * s_x, "z": p.astype(np.float32) * s_x}
    halves = np.abs(wanted["totals"] * (s_x * s_v / s_y) % 1) == 0.5
    assert halves.any()
    assert (integers(ours, "gpu", feeds, "y_q") == wanted["y"]).all()
    assert (integers(ours, "gpu", feeds, "n_q") == wanted["n"]).all()
    away = integers(ours, "dla", feeds, "n_q") != wanted["n"]
    assert away.any() and not away[~halves].any()
    sums = execute(to_integer(expose(ours, ["c", "m"]), "gpu").model, feeds)
    np.testing.assert_array_equal(sums["c"], wanted["sums"] * (s_x * s_w)[:, None, None])
    np.testing.assert_array_equal(sums["m"], wanted["totals"] * (s_x * s_v))


def test_looking_at_inner_tensors_does_not_change_them() -> None:
    rng = np.random.default_rng(8)
    w = rng.integers(-127, 128, (30, 30)).astype(np.int8)
    model = products(w, 300.0, s_w=0.37)
    feeds = {"x": rng.integers(-128, 128, (1, 30)).astype(np.float32)}
    plain = execute(to_integer(model, "dla").model, feeds)["y_dq"]
    for tensor in ("c", "x_dq"):
        seen = execute(to_integer(expose(model, [tensor]), "dla").model, feeds)
        np.testing.assert_array_equal(seen["y_dq"], plain)
        assert seen[tensor].dtype == np.float32


def test_a_result_in_fp16_is_quantized_before_it_is_rounded_to_fp16() -> None:
    """2049 is no FP16 number: fake quantization rounds it to 2048 and then to 512 steps' half, the engine does not."""
    half = np.float16
    nodes = [
        *pair("x", "one"),
        helper.make_node("DequantizeLinear", ["w", "one", "zero"], ["w_dq"]),
        helper.make_node("MatMul", ["x_dq", "w_dq"], ["c"]),
        *pair("c", "s_y", stem="y"),
    ]
    w = np.asarray([[127], [1]], np.int8)
    constants = {"one": half(1), "s_y": half(4096), "zero": ZERO, "w": w}
    model = model_of(nodes, {"x": (1, 2)}, ["y_dq", "c"], constants, kind=TensorProto.FLOAT16)
    feeds = {"x": np.asarray([[16, 17]], half)}  # 16 * 127 + 17 = 2049
    got = execute(to_integer(model, "gpu").model, feeds, ["y_q"])
    assert got["c"].item() == 2048 and got["c"].dtype == half
    assert got["y_q"].item() - 128 == 1 and execute(model, feeds)["y_dq"].item() == 0


REFUSED = {
    "zero point": ({"zero": np.int8(3)}, "a zero point is not 0"),
    "floating": ({"w": None}, "one operand is in floating point"),
    "input channels": ({"s_w": np.ones(2, np.float32), "w_zero": np.zeros(2, np.int8)}, "not those of output channels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_modelled_stays_and_is_named(case: str) -> None:
    changed, reason = REFUSED[case]
    axis = 0 if case == "input channels" else 1
    nodes = [
        *pair("x", "one"),
        helper.make_node("DequantizeLinear", ["w", "s_w", "w_zero"], ["w_dq"], axis=axis),
        helper.make_node("MatMul", ["x_dq", "f" if case == "floating" else "w_dq"], ["y"]),
    ]
    constants = {"one": np.float32(1), "zero": ZERO, "w": np.asarray([[3, 5], [-7, 9]], np.int8)}
    constants |= {"s_w": np.asarray([2, 3], np.float32), "w_zero": np.zeros(2, np.int8)}
    constants |= {"f": np.eye(2, dtype=np.float32)} if case == "floating" else {}
    constants |= {name: array for name, array in changed.items() if array is not None}
    model = model_of(nodes, {"x": (1, 2)}, ["y"], constants)
    found, feeds = to_integer(model, "gpu"), {"x": np.asarray([[11, -4]], np.float32)}
    assert found.layers == () and any(reason in said for said in found.not_modelled), found.not_modelled
    np.testing.assert_array_equal(execute(found.model, feeds)["y"], execute(model, feeds)["y"])


@pytest.mark.parametrize(("kind", "reason"), [("rows", "first operand has several scales"), ("int32", "in INT32")])
def test_weights_that_stand_first_or_are_wider_stay(kind: str, reason: str) -> None:
    """One scale per row is none per column; numbers beyond INT8 have no place in an INT8 product."""
    rows = kind == "rows"
    w = np.asarray([[3, 5], [-7, 9]], np.int8) if rows else np.asarray([[3000, 5], [-7, 9]], np.int32)
    constants = {
        "one": np.float32(1),
        "zero": ZERO,
        "w": w,
        "s_w": np.asarray([2, 3], np.float32) if rows else np.float32(2),
    }
    nodes = [
        *pair("x", "one"),
        helper.make_node("DequantizeLinear", ["w", "s_w"], ["w_dq"], axis=0),
        helper.make_node("MatMul", ["w_dq", "x_dq"] if rows else ["x_dq", "w_dq"], ["y"]),
    ]
    model = model_of(nodes, {"x": (2, 2)}, ["y"], constants)
    found, feeds = to_integer(model, "gpu"), {"x": np.asarray([[11, -4], [1, 2]], np.float32)}
    assert found.layers == () and any(reason in said for said in found.not_modelled), found.not_modelled
    np.testing.assert_array_equal(execute(found.model, feeds)["y"], execute(model, feeds)["y"])


GEMMS = {"transA": 1, "alpha": 0.0, "beta": 0.0, "transB": 1}


@pytest.mark.parametrize("rounding", ["gpu", "dla"])
@pytest.mark.parametrize("named", [(), *[(one,) for one in GEMMS], ("transA", "transB"), ("alpha", "beta")])
def test_no_attribute_of_a_product_is_dropped(named: tuple[str, ...], rounding: Rounding) -> None:
    """All values are whole steps, so the graph gives in every arithmetic what it gives in floating point."""
    nodes = [
        *pair("x", "one"),
        helper.make_node("DequantizeLinear", ["w", "one"], ["w_dq"]),
        helper.make_node("Gemm", ["x_dq", "w_dq", "b"], ["y"], **{name: GEMMS[name] for name in named}),
        *pair("y", "one"),
    ]
    constants = {"one": np.float32(1), "zero": ZERO, "w": np.asarray([[3, 5], [-7, 9]], np.int8)}
    model = model_of(nodes, {"x": (2, 2)}, ["y_dq"], constants | {"b": np.asarray([1, 2], np.float32)})
    found, feeds = to_integer(model, rounding), {"x": np.asarray([[2, -4], [1, 3]], np.float32)}
    np.testing.assert_array_equal(execute(found.model, feeds)["y_dq"], execute(model, feeds)["y_dq"])
    assert len(found.layers) == (not {*named} - {"transB"})


def test_scales_along_the_one_axis_of_a_vector_are_not_those_of_columns() -> None:
    nodes = [
        *pair("x", "one"),
        helper.make_node("DequantizeLinear", ["w", "s_w"], ["w_dq"], axis=0),
        helper.make_node("MatMul", ["x_dq", "w_dq"], ["y"]),
    ]
    constants = {"one": np.float32(1), "zero": ZERO, "w": np.asarray([3, 5], np.int8)}
    model = model_of(nodes, {"x": (2, 2)}, ["y"], constants | {"s_w": np.asarray([2, 3], np.float32)})
    found, feeds = to_integer(model, "gpu"), {"x": np.asarray([[2, -4], [1, 3]], np.float32)}
    np.testing.assert_array_equal(execute(found.model, feeds)["y"], np.asarray([-48, 51], np.float32))
    assert found.layers == ()


@pytest.mark.parametrize("rounding", ["gpu", "dla"])
def test_limits_that_are_attributes_limit(rounding: Rounding) -> None:
    """Until opset 10 a Clip has them so."""
    nodes = [
        *pair("x", "one"),
        helper.make_node("DequantizeLinear", ["w", "one"], ["w_dq"]),
        helper.make_node("Conv", ["x_dq", "w_dq"], ["y"]),
        helper.make_node("Clip", ["y"], ["c"], min=0.0, max=6.0),
        *pair("c", "one"),
    ]
    constants = {"one": np.float32(1), "zero": ZERO, "w": np.full((1, 1, 1), 3, np.int8)}
    model = model_of(nodes, {"x": (1, 1, 3)}, ["c_dq"], constants, opset=10)
    got = execute(to_integer(model, rounding).model, {"x": np.asarray([[[-1, 1, 9]]], np.float32)})
    np.testing.assert_array_equal(got["c_dq"], np.asarray([[[0, 3, 6]]], np.float32))


@pytest.mark.filterwarnings("error")
def test_the_largest_number_as_a_limit_limits_nothing() -> None:
    largest = np.finfo(np.float32).max
    nodes = [
        *pair("x", "half"),
        helper.make_node("DequantizeLinear", ["w", "half"], ["w_dq"]),
        helper.make_node("Conv", ["x_dq", "w_dq"], ["y"]),
        helper.make_node("Clip", ["y", "low", "high"], ["c"]),
        *pair("c", "half"),
    ]
    constants = {"half": np.float32(0.5), "zero": ZERO, "w": np.full((1, 1, 1), 2, np.int8)}
    model = model_of(nodes, {"x": (1, 1, 3)}, ["c_dq"], constants | {"low": -largest, "high": largest})
    got = execute(to_integer(model, "gpu").model, {"x": np.asarray([[[-1, 1, 9]]], np.float32)})
    np.testing.assert_array_equal(got["c_dq"], np.asarray([[[-1, 1, 9]]], np.float32))


def test_a_quantization_that_does_not_round_as_asked_is_named() -> None:
    """One with a zero point stays ONNX Runtime's, which rounds halves to even: as a GPU does, not as DLA."""
    constants = {"one": np.float32(1), "three": np.uint8(3)}
    model = model_of(pair("x", "one", "three"), {"x": (1, 2)}, ["x_dq"], constants)
    said = {rounding: to_integer(model, rounding).not_modelled for rounding in ("gpu", "dla")}  # type: ignore[arg-type]
    assert "'x_quantize' rounds halves to even" in said["dla"][0] and "QuantizeLinear" not in str(said["gpu"])


def test_what_computes_in_floating_point_and_what_no_source_states_is_said() -> None:
    nodes = [*pair("x", "one"), helper.make_node("Sigmoid", ["x_dq"], ["y"])]
    model = model_of(nodes, {"x": (1, 2)}, ["y"], {"one": np.float32(1), "zero": ZERO})
    said = {rounding: to_integer(model, rounding).not_modelled for rounding in ("gpu", "dla")}  # type: ignore[arg-type]
    assert all(reasons[0].startswith("1 Sigmoid: in floating point") for reasons in said.values())
    assert any("3009" in reason for reason in said["gpu"]) and any("NVDLA" in reason for reason in said["dla"])
