"""Generated graphs at the edges of every rule and repair, held against ONNX Runtime and ONNX's own reference.

The comparison in ``rewrite_cases`` shares nothing with the proof: it has inputs of its own, from several families.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from rewrite_cases import FAST, OPSETS, SLOW, hold, model

from csa_deploy.graph.optimize import RULES
from csa_deploy.graph.repair import REPAIRS

pads4 = st.lists(st.integers(0, 2), min_size=4, max_size=4)


@st.composite
def poolings(draw: Any) -> tuple[onnx.ModelProto | None, tuple[int, ...]]:
    height, width = draw(st.sampled_from([(8, 8), (9, 12), (12, 9), (16, 10), (7, 7), (13, 13), (14, 1), (20, 18)]))
    shape, opset, kind = (1, 2, height, width), draw(OPSETS), draw(st.sampled_from(["AveragePool", "MaxPool"]))
    whole = draw(st.booleans())
    window = [height, width] if whole else [draw(st.integers(1, height)), draw(st.integers(1, width))]
    attributes: dict[str, Any] = {"kernel_shape": window}
    if draw(st.booleans()):
        attributes["strides"] = draw(st.sampled_from([[1, 1], window, [height, width], [2, 3]]))
    padding = draw(st.sampled_from(["none", "pads", "auto"]))
    if padding == "pads":
        attributes["pads"] = draw(pads4)
    elif padding == "auto":
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"]))
    if opset >= 10 and draw(st.booleans()):
        attributes["ceil_mode"] = 1
    if kind == "AveragePool" and draw(st.booleans()):
        attributes["count_include_pad"] = 1
    if (kind == "MaxPool" and opset >= 10) or opset >= 19:
        attributes["dilations"] = draw(st.sampled_from([[1, 1], [1, 1], [2, 1]]))
    if kind == "MaxPool" and opset >= 8 and draw(st.booleans()):
        attributes["storage_order"] = 1
    return model([helper.make_node(kind, ["x"], ["y"], **attributes)], shape, {}, opset), shape


@st.composite
def reductions(draw: Any) -> tuple[onnx.ModelProto | None, tuple[int, ...]]:
    shape, opset = (2, 3, *draw(st.sampled_from([(4, 4), (12, 96), (22, 5), (23, 2), (1, 1)]))), draw(OPSETS)
    kind = draw(st.sampled_from(["ReduceMean", "ReduceMax", "GlobalAveragePool", "GlobalMaxPool"]))
    if kind.startswith("Global"):
        return model([helper.make_node(kind, ["x"], ["y"])], shape, {}, opset), shape
    axes = draw(st.sampled_from([[2, 3], [-1, -2], [1, 2], [3], [2, -1], []]))
    attributes: dict[str, Any] = {"keepdims": draw(st.integers(0, 1))}
    if opset < 18:
        attributes |= {"axes": axes} if axes else {}
        return model([helper.make_node(kind, ["x"], ["y"], **attributes)], shape, {}, opset), shape
    attributes["noop_with_empty_axes"] = draw(st.integers(0, 1))
    node = helper.make_node(kind, ["x", "a"], ["y"], **attributes)
    return model([node], shape, {"a": np.array(axes, np.int64)}, opset), shape


@st.composite
def activations(draw: Any) -> tuple[onnx.ModelProto | None, tuple[int, ...]]:
    shape, opset = draw(st.sampled_from([(1, 3, 5, 5), (2, 4), (1, 2, 7), (5,)])), draw(OPSETS)
    bounds = st.sampled_from([None, -200.0, -6.0, -0.3, 0.0, 1.0, 6.0, 0.1, 127.0, 20000.0, 3.4028234663852886e38])
    kind = draw(st.sampled_from(["Clip", "Clip", "HardSigmoid", "HardSwish"]))
    if kind != "Clip":
        given_alpha = {"alpha": draw(st.sampled_from([0.2, 1 / 6, -0.5])), "beta": draw(st.sampled_from([0.5, -0.1]))}
        attributes = given_alpha if kind == "HardSigmoid" and draw(st.booleans()) else {}
        return model([helper.make_node(kind, ["x"], ["y"], **attributes)], shape, {}, max(opset, 14)), shape
    low, high = draw(bounds), draw(bounds)
    both = {"min": low, "max": high}
    if opset < 11:
        node = helper.make_node("Clip", ["x"], ["y"], **{k: v for k, v in both.items() if v is not None})
        return model([node], shape, {}, opset), shape
    weights = {key: np.float32(value) for key, value in both.items() if value is not None}
    node = helper.make_node("Clip", ["x", *(key if key in weights else "" for key in both)], ["y"])
    return model([node], shape, weights, opset), shape


@st.composite
def resizes(draw: Any) -> tuple[onnx.ModelProto | None, tuple[int, ...]]:
    height, width = draw(st.sampled_from([(8, 8), (12, 6), (9, 15), (7, 7), (6, 1)]))
    shape, opset = (1, 3, height, width), draw(st.sampled_from([10, 11, 13, 18, 19, 22, 23]))
    target = [1, 3, *(draw(st.sampled_from([1, 2, 3, size // 2 or 1, size, 2 * size, 7])) for size in shape[2:])]
    mode = draw(st.sampled_from(["linear", "linear", "nearest", "cubic"]))
    attributes: dict[str, Any] = {"mode": mode}
    scales = np.array([b / a for a, b in zip(shape, target, strict=True)], "f4")
    after = draw(st.booleans())
    weights: dict[str, Any] = {"w": np.random.default_rng(1).standard_normal((4, 3, 1, 1)).astype("f4")}
    if opset == 10:
        resize, weights["s"] = (["r", "s"] if after else ["x", "s"]), scales
    else:
        modes = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
        if draw(st.booleans()):
            attributes["coordinate_transformation_mode"] = draw(st.sampled_from(modes))
        if mode == "nearest" and draw(st.booleans()):
            attributes["nearest_mode"] = draw(st.sampled_from(["floor", "ceil", "round_prefer_ceil"]))
        if opset >= 18 and mode != "nearest" and draw(st.booleans()):
            attributes["antialias"] = 1
        first = "r" if after else "x"
        if draw(st.booleans()):
            weights["z"] = np.array([target[0], 4 if after else 3, *target[2:]], np.int64)
            resize = [first, "", "", "z"]
        else:
            weights["s"], resize = scales, [first, "", "s"]
    conv = helper.make_node("Conv", ["x" if after else "r", "w"], ["r" if after else "y"])
    made = helper.make_node("Resize", resize, ["y" if after else "r"], **attributes)
    return model([conv, made] if after else [made, conv], shape, weights, opset), shape


constants = st.sampled_from([(4, 1, 1), (1, 4, 1, 1), (), (1,), (4, 1, 6), (1, 6)])


@st.composite
def affines(draw: Any) -> tuple[onnx.ModelProto | None, tuple[int, ...]]:
    """A convolution between affine nodes: shared weights, groups, padding, constants on either side."""
    shape, opset, seed = (2, 4, 6, 6), draw(OPSETS), np.random.default_rng(draw(st.integers(0, 9)))
    group = draw(st.sampled_from([1, 2, 4]))
    kernel = draw(st.sampled_from([1, 3]))
    attributes: dict[str, Any] = {"group": group}
    padding = draw(st.sampled_from([{}, {"pads": draw(pads4)}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "VALID"}]))
    weights: dict[str, Any] = {
        "w": seed.standard_normal((4, 4 // group, kernel, kernel)).astype("f4"),
        "b": seed.standard_normal(4).astype("f4"),
        "c": seed.uniform(0.5, 2, draw(constants)).astype("f4"),
        **{key: seed.uniform(0.5, 2, 4).astype("f4") for key in "gomv"},
    }  # fmt: skip
    nodes, value = [], "x"
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["Conv", "Conv", "BatchNormalization", "Mul", "Add", "Sub", "Div", "Pad", "Relu"]))
        out = f"v{number}"
        if kind == "Conv":
            nodes.append(
                helper.make_node("Conv", [value, "w", "b"][: draw(st.integers(2, 3))], [out], **attributes, **padding)
            )
        elif kind == "BatchNormalization":
            nodes.append(helper.make_node(kind, [value, *"gomv"], [out], epsilon=draw(st.sampled_from([1e-5, 0.1]))))
        elif kind == "Pad" and opset >= 11:
            weights["p"] = np.array(
                draw(st.sampled_from([[0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 2, 0, 0, 1, 0], [0] * 8]))
            )
            nodes.append(helper.make_node("Pad", [value, "p"], [out]))
        elif kind == "Pad":
            nodes.append(helper.make_node("Pad", [value], [out], pads=[0, 0, 1, 1, 0, 0, 1, 1]))
        elif kind == "Relu":
            nodes.append(helper.make_node("Relu", [value], [out]))
        else:
            operands = [value, "c"] if draw(st.booleans()) else ["c", value]
            nodes.append(helper.make_node(kind, operands, [out]))
        value = out
    if draw(st.booleans()) and len(nodes) > 1:  # read in the middle, too
        nodes.append(helper.make_node("Add", [value, nodes[-2].output[0]], ["y"]))
    else:
        nodes.append(helper.make_node("Identity", [value], ["y"]))
    return model(nodes, shape, weights, opset), shape


@st.composite
def gemms(draw: Any) -> tuple[onnx.ModelProto | None, tuple[int, ...]]:
    """Gemm of every form behind and in front of reshapes and constants."""
    opset, seed = draw(OPSETS), np.random.default_rng(3)
    trans_a, trans_b = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    shape = (3, 4) if trans_a else (4, 3)
    weights: dict[str, Any] = {
        "w": seed.standard_normal((5, 3) if trans_b else (3, 5)).astype("f4"),
        "b": seed.standard_normal(draw(st.sampled_from([(5,), (1, 5), (), (4, 1), (4, 5)]))).astype("f4"),
        "k": seed.uniform(0.5, 2, draw(st.sampled_from([(), (5,), (1, 5), (4, 1)]))).astype("f4"),
        "j": seed.uniform(0.5, 2, draw(st.sampled_from([(), (shape[1],), (1, shape[1])]))).astype("f4"),
    }
    numbers = st.sampled_from([0.25, 1.0, -2.0, 0.0])
    operands = ["h", "w", "b"] if opset < 11 or draw(st.booleans()) else ["h", "w"]
    nodes = [
        helper.make_node(draw(st.sampled_from(["Mul", "Add", "Sub"])), ["x", "j"], ["h"]),
        helper.make_node(
            "Gemm", operands, ["m"], transA=trans_a, transB=trans_b, alpha=draw(numbers), beta=draw(numbers)
        ),
        helper.make_node(draw(st.sampled_from(["Mul", "Add", "Div"])), ["m", "k"], ["y"]),
    ]
    return model(nodes, shape, weights, opset), shape


def body(name: str, nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any]) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, inputs, outputs)


def control_flow(kind: str, captured: str, also: str) -> list[onnx.NodeProto]:
    """An If on the input, or a Loop, whose bodies read two values of the network around them; it makes ``m``."""
    scalar, switch = (helper.make_tensor_value_info(name, code, []) for name, code in (("o", 1), ("on", 9)))
    if kind == "If":
        sides = []
        for side, op in (("then", "Neg"), ("else", "Relu")):
            out = helper.make_tensor_value_info(f"{side}_out", TensorProto.FLOAT, [])
            nodes = [
                helper.make_node(op, [captured], [f"{side}_a"]),
                helper.make_node("ReduceMax", [f"{side}_a"], [f"{side}_b"], keepdims=0),
                helper.make_node("ReduceMax", [also], [f"{side}_c"], keepdims=0),
                helper.make_node("Add", [f"{side}_b", f"{side}_c"], [f"{side}_out"]),
            ]
            sides.append(body(side, nodes, [], [out]))
        return [
            helper.make_node("ReduceMin", ["x"], ["least"], keepdims=0),
            helper.make_node("Greater", ["least", "minus_one"], ["condition"]),
            helper.make_node("If", ["condition"], ["m"], then_branch=sides[0], else_branch=sides[1]),
        ]
    number = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    carried = helper.make_tensor_value_info("acc", TensorProto.FLOAT, [])
    nodes = [
        helper.make_node("Identity", ["on"], ["still"]),
        helper.make_node("ReduceMax", [captured], ["most"], keepdims=0),
        helper.make_node("ReduceMin", [also], ["fewest"], keepdims=0),
        helper.make_node("Sub", ["most", "fewest"], ["step"]),
        helper.make_node("Add", ["acc", "step"], ["o"]),
    ]
    still = helper.make_tensor_value_info("still", TensorProto.BOOL, [])
    loop = body("turn", nodes, [number, switch, carried], [still, scalar])
    return [helper.make_node("Loop", ["twice", "", "minus_one"], ["m"], body=loop)]


PIECES = {
    "layer": ["Conv w", "BatchNormalization g b mean v"],
    "constant before": ["Mul k", "Conv w"],
    "padded": ["Pad p", "Conv w5"],
    "nothing": ["Identity", "Relu"],
    "turned": ["Transpose", "Transpose"],
    "flat": ["Reshape flat", "Relu", "Reshape full"],
    "bounded": ["Clip low high"],
    "constant": ["Add k"],
}


@st.composite
def captures(draw: Any) -> tuple[onnx.ModelProto | None, tuple[int, ...]]:
    """Chains that every rule knows, any value or weight of which the body of an If or a Loop reads as well."""
    shape, opset, seed = (1, 4, 6, 6), draw(st.sampled_from([11, 13, 17, 18, 21, 22, 23])), np.random.default_rng(5)
    weights: dict[str, Any] = {
        "w": seed.standard_normal((4, 4, 1, 1)).astype("f4"),
        "w5": seed.standard_normal((4, 4, 3, 3)).astype("f4"),
        "k": seed.uniform(0.5, 2, (1, 4, 1, 1)).astype("f4"),
        "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "flat": np.array([1, -1]),
        "full": np.array(shape),
        "low": np.float32(0),
        "high": np.float32(6),
        "minus_one": np.float32(-1),
        "twice": np.array(2),
        "one": np.array([1]),
        **{key: seed.uniform(0.5, 2, 4).astype("f4") for key in ("g", "b", "mean", "v")},
    }
    nodes, values = [], ["x"]
    for piece in draw(st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=3)):
        for number, text in enumerate(PIECES[piece]):
            op, *operands = text.split()
            more = {"perm": [[0, 2, 3, 1], [0, 3, 1, 2]][number]} if op == "Transpose" else {}
            nodes.append(helper.make_node(op, [values[-1], *operands], [f"h{len(values)}"], **more))
            values.append(f"h{len(values)}")
    captured, also = draw(st.sampled_from(values)), draw(st.sampled_from([*values, "w", "k", "g"]))
    nodes += control_flow(draw(st.sampled_from(["If", "Loop"])), captured, also)
    nodes.append(helper.make_node("Reshape", ["m", "one"], ["scalar"]))  # a Loop's result has no known shape
    nodes.append(helper.make_node("Add", [values[-1], "scalar"], ["y"]))
    return model(nodes, shape, weights, opset), shape


# With what each generator has to make fire: one that never does tests nothing.
GENERATORS: dict[str, tuple[Any, set[str]]] = {
    "poolings": (poolings, {"pool_to_chain", "pool_stride_to_one"}),
    "reductions": (reductions, {"global_pool_to_pool", "reduce_to_layers"}),
    "activations": (activations, {"hard_activation_to_relu"}),
    "resizes": (resizes, {"resize_down_to_conv", "resize_to_convs", "conv_across_resize"}),
    "affines": (affines, {"fold_affine_after", "fold_affine_before", "constant_to_scale", "drop_identities"}),
    "gemms": (gemms, {"gemm_to_conv", "fold_affine_before"}),
    "captures": (captures, {"fold_affine_after", "fold_affine_before", "fold_pad", "merge_reshapes"}),
}


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.shows("MEA-13")
def test_every_rewrite_at_its_edges(kind, run):
    @FAST
    @given(GENERATORS[kind][0]())
    def check(case):
        hold(case[0], run, case[1])

    check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", GENERATORS)
def test_every_rewrite_at_many_edges(kind, run):
    generator, wanted = GENERATORS[kind]
    fired = set[str]()

    @SLOW
    @given(generator())
    def check(case):
        fired.update(hold(case[0], run, case[1]))

    check()
    assert wanted <= fired <= {*REPAIRS, *(rule.name for rule in RULES)}
