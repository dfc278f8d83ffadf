"""Repairs that heads need, on generated graphs and on numbers at their edges, by ONNX Runtime and ONNX's reference."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator
from rewrite_cases import FAST, OPSETS, SLOW, hold, model

from csa_deploy.graph.repair import repair
from csa_deploy.graph.repairs.pooling import Limits, steps
from csa_deploy.graph.repairs.resize_convs import interpolation
from csa_deploy.graph.repairs.shuffle_rank import steps as turns

Case = tuple[onnx.ModelProto | None, tuple[int, ...]]


def one(op: str, inputs: list[str], **attributes: Any) -> list[onnx.NodeProto]:
    return [helper.make_node(op, inputs, ["y"], **attributes)]


@st.composite
def shuffles(draw: Any) -> Case:
    block, opset = draw(st.integers(1, 4)), draw(OPSETS)
    batch, depth, height, width = (draw(st.integers(1, 3)) for _ in range(4))
    kind = draw(st.sampled_from(["DepthToSpace", "SpaceToDepth", "Transpose"]))
    if kind == "SpaceToDepth":
        shape = (batch, depth, height * block, width * block)
        return model(one(kind, ["x"], blocksize=block), shape, {}, opset), shape
    if kind == "DepthToSpace":
        shape = (batch, depth * block * block, height, width)
        modes = {"mode": draw(st.sampled_from(["DCR", "CRD"]))} if opset >= 11 else {}
        return model(one(kind, ["x"], blocksize=block, **modes), shape, {}, opset), shape
    wide = (batch, *(draw(st.integers(1, 4)) for _ in range(draw(st.integers(3, 6)))))
    shape = (batch, int(np.prod(wide[1:])))
    order = [0, *draw(st.permutations(range(1, len(wide))))] if draw(st.integers(0, 4)) else [*range(len(wide))][::-1]
    nodes = [
        helper.make_node("Reshape", ["x", "wide"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=order),
        helper.make_node("Reshape", ["b", "flat"], ["y"]),
    ]
    return model(nodes, shape, {"wide": np.array(wide), "flat": np.array([-1, 2, depth])}, opset), shape


@st.composite
def gathers(draw: Any) -> Case:
    shape, opset = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))), draw(OPSETS)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    dims = draw(st.lists(st.integers(1, 3), max_size=2))
    length = shape[axis]
    low = -length - 1 if opset >= 11 else 0
    values = [draw(st.integers(low, length - (draw(st.integers(0, 9)) > 0))) for _ in range(int(np.prod(dims)))]
    indices = np.array(values, draw(st.sampled_from([np.int32, np.int64]))).reshape(dims)
    return model(one("Gather", ["x", "i"], axis=axis), shape, {"i": indices}, opset), shape


@st.composite
def wheres(draw: Any) -> Case:
    shape, opset = (
        draw(st.sampled_from([(2, 3, 4, 5), (1, 3, 1, 4), (2, 3), (1, 3, 7)])),
        draw(OPSETS.filter(lambda n: n > 8)),
    )
    channels = [(3, *(1,) * (len(shape) - 2)), (1, 3, *(1,) * (len(shape) - 2)), (1,), (), shape, shape[-1:]]
    seed = np.random.default_rng(draw(st.integers(0, 99)))
    condition = seed.integers(0, 2, draw(st.sampled_from(channels))).astype(bool)
    constant = seed.standard_normal(draw(st.sampled_from(channels))).astype("f4")
    if draw(st.booleans()):
        constant = np.full_like(constant, draw(st.sampled_from([0.0, -1e9, 65504.0])))
    operands = draw(st.permutations(["x", draw(st.sampled_from(["v", "r"]))]))
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Where", ["c", *operands], ["y"])]
    return model(nodes, shape, {"c": condition, "v": constant}, opset), shape


@st.composite
def pads(draw: Any) -> Case:
    shape, opset = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))), draw(OPSETS)
    axes = draw(st.lists(st.sampled_from(range(len(shape))), unique=True, min_size=1))
    axes = axes if opset >= 18 else [*range(len(shape))]
    amounts = [draw(st.integers(-1, shape[axis])) if draw(st.booleans()) else 0 for _ in range(2) for axis in axes]
    mode = {"mode": draw(st.sampled_from(["reflect", "edge"] if opset < 19 else ["reflect", "edge", "wrap"]))}
    if opset < 11:
        return model(one("Pad", ["x"], pads=amounts, **mode), shape, {}, opset), shape
    given_axes = (
        {"a": np.array([axis - draw(st.sampled_from([0, len(shape)])) for axis in axes])} if opset >= 18 else {}
    )
    inputs = ["x", "p", "", "a"] if given_axes else ["x", "p"]
    return model(one("Pad", inputs, **mode), shape, {"p": np.array(amounts), **given_axes}, opset), shape


@st.composite
def axis_reductions(draw: Any) -> Case:
    sizes = st.sampled_from([1, 2, 3, 5, 8, 9, 13, 29])
    shape, opset = (
        tuple(draw(st.lists(sizes, min_size=1, max_size=5).filter(lambda s: np.prod(s) < 3000))),
        draw(OPSETS),
    )
    kind = draw(st.sampled_from(["ReduceMean", "ReduceSum", "ReduceMax"]))
    chosen = draw(st.lists(st.sampled_from(range(len(shape))), unique=True))
    axes = [axis - draw(st.sampled_from([0, len(shape)])) if opset >= 11 else axis for axis in chosen]
    attributes: dict[str, Any] = {"keepdims": draw(st.integers(0, 1))}
    if opset < (13 if kind == "ReduceSum" else 18):
        attributes |= {"axes": axes} if axes else {}
        return model(one(kind, ["x"], **attributes), shape, {}, opset), shape
    attributes["noop_with_empty_axes"] = draw(st.integers(0, 1))
    return model(one(kind, ["x", "a"], **attributes), shape, {"a": np.array(axes, np.int64)}, opset), shape


GENERATORS: dict[str, tuple[Any, set[str]]] = {
    "shuffles": (shuffles, {"shuffle_to_four_dimensions"}),
    "gathers": (gathers, {"gather_to_conv"}),
    "wheres": (wheres, {"where_to_scale"}),
    "pads": (pads, {"pad_to_conv"}),
    "axis reductions": (axis_reductions, {"reduce_to_layers"}),
}


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.shows("MEA-13")
def test_every_repair_at_its_edges(kind, run):
    @FAST
    @given(GENERATORS[kind][0]())
    def check(case):
        hold(case[0], run, case[1])

    check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", GENERATORS)
def test_every_repair_at_many_edges(kind, run):
    generator, wanted = GENERATORS[kind]
    fired = set[str]()

    @SLOW
    @given(generator())
    def check(case):
        fired.update(hold(case[0], run, case[1]))

    check()
    assert wanted <= fired


EDGES = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-42, -3e38, 65504, 1], "f4")
MAP = "float[1,4,6,9]"

MOVING = {
    "DepthToSpace": ("shuffle_to_four_dimensions", "float[1,1,12,18]", "y = DepthToSpace<blocksize=2>(x)", {}),
    "SpaceToDepth": ("shuffle_to_four_dimensions", "float[1,36,2,3]", "y = SpaceToDepth<blocksize=3>(x)", {}),
    "reflecting Pad": (
        "pad_to_slices", "float[1,4,11,10]", 'y = Pad<mode="reflect">(x, p)', {"p": np.array([0, 0, 5, 1, 0, 0, 0, 0])},
    ),
    "repeating Pad": (
        "pad_to_slices", "float[1,4,6,14]", 'y = Pad<mode="edge">(x, p)', {"p": np.array([0, 0, 0, 2, 0, 0, 0, 3])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVING)
def test_what_only_moves_keeps_every_bit(build, run, case):
    """NaN, infinities, the sign of a zero and subnormal numbers come out where ONNX's reference has them."""
    name, made, body, weights = MOVING[case]
    before = build(f"({MAP} x) => ({made} y)", body, **weights)
    result = repair(before, [name])
    assert name in [step.rule for step in result.steps if step.kept]
    x = np.random.default_rng(4).choice(EDGES, (1, 4, 6, 9))
    expected = ReferenceEvaluator(before).run(None, {"x": x})[0]
    assert run(result.model, x=x)[0].tobytes() == expected.astype("f4").tobytes()


PICKING = {
    "Gather": ("gather_to_conv", "float[1,2,6,9]", "y = Gather<axis=1>(x, i)", {"i": np.array([3, 0])}),
    "Where": (
        "where_to_scale", MAP, "y = Where(c, x, v)",
        {"c": np.array([1, 0, 1, 1], bool).reshape(4, 1, 1), "v": np.float32(-np.inf)},
    ),
    "reflecting Pad": (
        "pad_to_conv", "float[1,4,11,10]", 'y = Pad<mode="reflect">(x, p)', {"p": np.array([0, 0, 5, 1, 0, 0, 0, 0])},
    ),
    "Neg": ("constant_to_scale", MAP, "y = Neg(x)", {}),
    "ReduceMax": ("reduce_to_layers", "float[1,1,6,9]", "y = ReduceMax<axes=[1]>(x)", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKING)
def test_what_picks_numbers_gives_the_same_finite_ones(build, run, case):
    """Equal, but that a zero may lose its sign: from the smallest number to the largest."""
    name, made, body, weights = PICKING[case]
    before = build(f"({MAP} x) => ({made} y)", body, opset=17, **weights)
    result = repair(before, [name])
    assert name in [step.rule for step in result.steps if step.kept]
    draw = np.random.default_rng(4)
    x = np.where(
        draw.random((1, 4, 6, 9)) < 0.5, draw.choice(EDGES[3:], (1, 4, 6, 9)), draw.standard_normal((1, 4, 6, 9))
    )
    x = x.astype("f4")
    np.testing.assert_array_equal(run(result.model, x=x)[0], ReferenceEvaluator(before).run(None, {"x": x})[0])


@pytest.mark.parametrize("case", ["Gather", "Where", "reflecting Pad"])
def test_what_may_be_infinite_is_not_multiplied_by_zero(build, case):
    name, made, body, weights = PICKING[case]
    grown = "e = Exp(x) " + body.replace("x,", "e,").replace("(x", "(e")
    before = build(f"({MAP} x) => ({made} y)", grown, opset=17, **weights)
    result = repair(before, [name])
    assert not result.steps and "infinite, behind Exp" in result.declined[0].reason


DECLINED = {
    "crops": (
        "pad_to_slices", 'y = Pad<mode="edge">(x, p)', {"p": np.array([0, 0, -1, 0, 0, 0, 1, 0])}, "crops as well",
    ),
    "many Slices": (
        "pad_to_slices", 'y = Pad<mode="edge">(x, p)', {"p": np.array([0, 0, 40, 0, 0, 0, 0, 0])}, "needs 41 Slices",
    ),
    "condition by position": (
        "where_to_scale", "y = Where(c, x, v)", {"c": np.arange(9) % 2 == 0, "v": np.float32(0)},
        "its condition differs by position, not by channel alone",
    ),
    "constant by position": (
        "where_to_scale", "y = Where(c, x, v)",
        {"c": np.array([1, 0, 1, 1], bool).reshape(4, 1, 1), "v": np.arange(9, dtype="f4")},
        "a constant that it chooses differs by position",
    ),
    "computed condition": (
        "where_to_scale", "c = Greater(x, v) y = Where(c, x, v)", {"v": np.float32(0)}, "its condition is computed",
    ),
    "mean over a batch": ("reduce_to_layers", "y = ReduceMean<axes=[0, 1]>(x)", {}, "reduces over the batch"),
    "whole numbers": (
        "reduce_to_layers", "a = Cast<to=7>(x) b = ReduceMax<axes=[1]>(a) y = Cast<to=1>(b)", {}, "not floating point",
    ),
    "transposed batch": (
        "shuffle_to_four_dimensions", "a = Reshape(x, s) b = Transpose<perm=[1,0,2,3,4]>(a) y = Reshape(b, t)",
        {"s": np.array([2, 2, 2, 6, 9]), "t": np.array([2, 4, 6, 9])}, "the batch takes part",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DECLINED)
def test_what_cannot_be_repaired_says_why_in_one_line(build, case):
    name, body, weights, reason = DECLINED[case]
    batch = 2 if "batch" in case else 1
    found = repair(build(f"(float[{batch},4,6,9] x) => (float[a,b,c,d] y)", body, opset=17, **weights), [name])
    assert name not in [step.rule for step in found.steps]
    (note,) = {note.reason for note in found.declined if note.rule == name}
    assert reason in note and "\n" not in note


@pytest.mark.parametrize("case", ["pad_to_slices", "pad_to_conv"])
@pytest.mark.parametrize("amount", [6, 7, 20])
def test_a_reflection_beyond_the_map_has_no_meaning(build, case, amount):
    """ONNX Runtime refuses it, so there is nothing to prove by."""
    body, pads = 'y = Pad<mode="reflect">(x, p)', np.array([0, 0, amount, 0, 0, 0, 0, 0])
    found = repair(build("(float[1,4,6,9] x) => (float[a,b,c,d] y)", body, p=pads), [case])
    assert not found.steps and "Pad reflect" in found.not_proved and "\n" not in found.not_proved


@pytest.mark.parametrize("size", range(1, 200))
def test_windows_of_a_maximum_reach_every_position(size):
    """By walking through them: each position of the map is in some window of each step."""
    reached = [{position} for position in range(size)]
    for (window, _), (stride, _) in steps("MaxPool", size, 1, Limits()):
        assert window <= 8 and stride <= 6
        reached = [set().union(*reached[at : at + window]) for at in range(0, len(reached) - window + 1, stride)]
    assert reached == [set(range(size))]


@pytest.mark.parametrize("count", [3, 4, 5, pytest.param(6, marks=pytest.mark.slow)])
def test_turns_bring_blocks_into_any_order(count):
    """By NumPy's own transpose, of which each is one of four dimensions at most."""
    sizes = [2, 3, 1, 4, 2, 3][:count]
    for order in itertools.islice(itertools.permutations(range(count)), 0, None, 7):
        x = np.arange(2 * int(np.prod(sizes))).reshape(2, *sizes)
        got = x
        for blocks, turned in turns(sizes, order):
            got = got.reshape(2, *blocks).transpose(0, *(place + 1 for place in turned))
        np.testing.assert_array_equal(got.reshape(-1), x.transpose(0, *(place + 1 for place in order)).reshape(-1))


def test_turns_keep_dimensions_short():
    """19 classes from 304 channels at 64 x 128: one way, a dimension is 155,648 long; this way, none is above 8192."""
    found = turns((4, 4, 19, 64, 128), (2, 3, 0, 4, 1))
    assert max(max(blocks) for blocks, _ in found) <= 8192 and len(found) == 2


@pytest.mark.parametrize(("size", "target"), [(14, 128), (128, 14), (7, 16), (5, 3), (3, 1), (1, 4)])
def test_weights_of_interpolation_against_onnx(size, target):
    """ONNX's reference resizes unit vectors: the columns of the matrix."""
    node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear")
    x = helper.make_tensor_value_info("x", 1, [1, size, size])
    graph = helper.make_graph(
        [node], "g", [x], [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(np.array([1, size, target]), "s")],
    )  # fmt: skip
    resize = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    columns = ReferenceEvaluator(resize).run(None, {"x": np.eye(size, dtype="f4")[None]})[0][0]
    np.testing.assert_allclose(interpolation(size, target, target / size), columns.T, atol=2e-6)
