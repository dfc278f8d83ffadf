"""The fine-tuning module against ONNX Runtime: the same function for any batch, or a refusal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from csa_deploy.errors import UsageError
from csa_deploy.train.graph_module import GraphModule
from csa_deploy.train.operators import OPERATORS, OPSETS

Draw = Callable[..., Any]
IR = 10


def graph_of(
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """A graph from ``x`` to ``y``; the output's shape is not stated, so that the module has to find it."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR)


def oracle(model: onnx.ModelProto) -> Callable[[np.ndarray], np.ndarray] | None:
    """ONNX Runtime, or ONNX's own reference for what that does not execute; None for an invalid graph."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    with contextlib.suppress(Exception):  # its errors share no base class
        session = ort.InferenceSession(model.SerializeToString(), options)
        return lambda x: session.run(None, {"x": x})[0]
    with contextlib.suppress(Exception):
        onnx.checker.check_model(model, full_check=True)
        reference = ReferenceEvaluator(model)
        return lambda x: reference.run(None, {"x": x})[0]
    return None


def compare(model: onnx.ModelProto, *, accepted: bool | None = None) -> bool:
    """Whether the module takes the graph; where it does, it has to be the graph, batch by batch."""
    run = oracle(model)
    assume(run is not None)
    assert run is not None
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    batches = np.random.RandomState(0).standard_normal((3, *shape)).astype(np.float32) * 3
    try:
        wanted = [run(batch) for batch in batches]
    except Exception:  # a graph that fails when it runs has no values to compare with
        assume(False)
    try:
        module = GraphModule(model, [], {})
    except UsageError as error:
        assert "\n" not in str(error)
        assert accepted is not True, error
        return False
    assert accepted is not False
    with torch.no_grad():
        many = module(torch.from_numpy(np.concatenate(list(batches)))).numpy()
        one = module(torch.from_numpy(batches[0][:1])).numpy()
    whole = np.concatenate(wanted)
    assert many.shape == whole.shape
    np.testing.assert_allclose(many, whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one, wanted[0][:1], rtol=1e-4, atol=1e-4)
    return True


def weights(*shape: int) -> np.ndarray:
    return np.random.RandomState(sum(shape)).standard_normal(shape).astype(np.float32)


# --- generated graphs: an operator with attributes at their edges, between nodes that hide a wrong shape ----------


def some(draw: Draw, **choices: st.SearchStrategy[Any]) -> dict[str, Any]:
    """Each attribute, or its default."""
    return {name: value for name, choice in choices.items() if (value := draw(st.none() | choice)) is not None}


@st.composite
def windows(draw: Draw, op: str) -> tuple[onnx.NodeProto, dict[str, np.ndarray], tuple[int, ...]]:
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    pair, pads = st.lists(st.integers(1, 3), min_size=2, max_size=2), st.integers(0, 2)
    symmetric = st.tuples(pads, pads).map(lambda p: [*p, *p])
    attributes = some(
        draw,
        strides=pair,
        pads=st.one_of(symmetric, st.lists(pads, min_size=4, max_size=4)),
        dilations=pair if draw(st.booleans()) else st.just([1, 1]),
        auto_pad=st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER"]),
    )
    if attributes.get("auto_pad", "NOTSET") != "NOTSET":
        attributes.pop("pads", None)
    shape = (draw(st.integers(1, 2)), 4, draw(st.integers(5, 9)), draw(st.integers(5, 9)))
    if op == "Conv":
        group = draw(st.sampled_from([1, 2, 4]))
        attributes |= {"group": group} | some(draw, kernel_shape=st.just(kernel))
        constants = {"w": weights(4, 4 // group, *kernel)}
        if draw(st.booleans()):
            constants["b"] = weights(4)
        return helper.make_node(op, ["x", *constants], ["m"], **attributes), constants, shape
    attributes |= some(draw, count_include_pad=st.integers(0, 1), ceil_mode=st.integers(0, 1))
    return helper.make_node(op, ["x"], ["m"], kernel_shape=kernel, **attributes), {}, shape


@st.composite
def resizes(draw: Draw) -> tuple[onnx.NodeProto, dict[str, np.ndarray], tuple[int, ...]]:
    shape = (draw(st.integers(1, 2)), 2, draw(st.integers(2, 9)), draw(st.integers(2, 9)))
    attributes = {"mode": draw(st.sampled_from(["linear", "linear", "linear", "nearest", "cubic"]))} | some(
        draw,
        antialias=st.integers(0, 1),
        coordinate_transformation_mode=st.sampled_from(
            ["half_pixel", "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
        ),
        exclude_outside=st.integers(0, 1),
        cubic_coeff_a=st.just(-0.5),
        extrapolation_value=st.just(7.0),
        nearest_mode=st.just("floor"),
    )
    axes = draw(st.sampled_from([[0, 1, 2, 3], [0, 1, 2, 3], [2, 3], [3, 2], [-1], [1, 2, 3]]))
    if axes != [0, 1, 2, 3]:
        attributes["axes"] = axes
    if draw(st.booleans()):
        sizes = [draw(st.integers(1, 12)) if axis in (2, 3, -1) else shape[axis] for axis in axes]
        constants, inputs = {"s": np.array(sizes, np.int64)}, ["x", "", "", "s"]
        attributes |= some(draw, keep_aspect_ratio_policy=st.sampled_from(["stretch", "not_larger"]))
    else:
        factor = st.sampled_from([0.5, 1.0, 2.0, 1.5, 27 / 14, 4 / 7, 1 / 3])
        scales = [draw(factor) if axis in (2, 3, -1) else draw(st.sampled_from([1.0, 1.0, 2.0])) for axis in axes]
        constants, inputs = {"s": np.array(scales, np.float32)}, ["x", "", "s"]
    return helper.make_node("Resize", inputs, ["m"], **attributes), constants, shape


@st.composite
def shapes(draw: Draw, op: str) -> tuple[onnx.NodeProto, dict[str, np.ndarray], tuple[int, ...]]:
    shape = (draw(st.integers(1, 3)), *draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    rank = len(shape)
    if op == "Transpose":
        order = st.permutations(range(rank)).map(list)
        within = st.permutations(range(1, rank)).map(lambda order: [0, *order])
        attributes = some(draw, perm=st.one_of(within, within, order))
        return helper.make_node(op, ["x"], ["m"], **attributes), {}, shape
    if op == "Flatten":
        return helper.make_node(op, ["x"], ["m"], **some(draw, axis=st.integers(-rank, rank))), {}, shape
    if op == "GlobalAveragePool":
        return helper.make_node(op, ["x"], ["m"]), {}, shape
    target = draw(
        st.one_of(
            st.just([shape[0], -1]),
            st.lists(st.sampled_from([0, -1, 1, 2, shape[0], shape[-1]]), min_size=1, max_size=4),
            st.permutations(shape).map(list),
            st.just([0] * rank),
            st.just([-1]),
        )
    )
    attributes = some(draw, allowzero=st.integers(0, 1))
    return helper.make_node(op, ["x", "s"], ["m"], **attributes), {"s": np.array(target, np.int64)}, shape


@st.composite
def products(draw: Draw, op: str) -> tuple[onnx.NodeProto, dict[str, np.ndarray], tuple[int, ...]]:
    batch, k, m = (draw(st.integers(1, 3)) for _ in range(3))
    if op == "Gemm":
        attributes = some(
            draw,
            alpha=st.sampled_from([0.5, -2.0]),
            beta=st.sampled_from([0.0, 3.0]),
            transA=st.integers(0, 1),
            transB=st.integers(0, 1),
        )
        rows, inner = (k, batch) if attributes.get("transA") else (batch, k)
        constants = {"w": weights(m, inner) if attributes.get("transB") else weights(inner, m)}
        if draw(st.booleans()):
            constants["b"] = weights(*draw(st.sampled_from([(m,), (1, m), (rows, m), (rows, 1), (1,), ()])))
        return helper.make_node(op, ["x", *constants], ["m"], **attributes), constants, (batch, k)
    shape = (batch, *draw(st.lists(st.integers(1, 3), max_size=2)), k)
    left = draw(st.booleans())
    summed = shape[-2] if left and len(shape) > 1 else k
    leading = draw(st.sampled_from([(), (1,), (batch,), (2,), (1, shape[min(1, len(shape) - 1)])]))
    matrix = (m, summed) if left else (summed, m)
    vector = draw(st.booleans()) and not leading
    constants = {"w": weights(summed) if vector else weights(*leading, *matrix)}
    return helper.make_node(op, ["w", "x"] if left else ["x", "w"], ["m"]), constants, shape


@st.composite
def pointwise(draw: Draw, op: str) -> tuple[onnx.NodeProto, dict[str, np.ndarray], tuple[int, ...]]:
    shape = (draw(st.integers(1, 3)), *draw(st.lists(st.integers(1, 3), max_size=3)))
    if op in ("Relu", "Sigmoid"):
        return helper.make_node(op, ["x"], ["m"]), {}, shape
    if draw(st.booleans()):
        return helper.make_node(op, ["x", "x"], ["m"]), {}, shape
    other = [draw(st.sampled_from([1, n])) for n in shape][draw(st.integers(0, len(shape))) :]
    other = [2] * draw(st.integers(0, 1)) + other if len(other) == len(shape) else other
    inputs = ["x", "w"] if draw(st.booleans()) else ["w", "x"]
    return helper.make_node(op, inputs, ["m"]), {"w": weights(*other)}, shape


GENERATED: dict[str, st.SearchStrategy[Any]] = {
    "Resize": resizes(),
    **{op: windows(op) for op in ("Conv", "AveragePool")},
    **{op: shapes(op) for op in ("Transpose", "Flatten", "GlobalAveragePool", "Reshape")},
    **{op: products(op) for op in ("Gemm", "MatMul")},
    **{op: pointwise(op) for op in ("Add", "Mul", "Relu", "Sigmoid")},
}


def test_every_operator_is_generated() -> None:
    assert set(GENERATED) == set(OPERATORS)


@pytest.mark.parametrize("op", sorted(OPERATORS))
@pytest.mark.shows("MEA-38")
def test_a_generated_graph_is_computed_or_refused(op: str) -> None:
    taken = [0, 0]

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=GENERATED[op], opset=st.sampled_from(list(OPSETS)))
    def check(case: tuple[onnx.NodeProto, dict[str, np.ndarray], tuple[int, ...]], opset: int) -> None:
        node, constants, shape = case
        model = graph_of([node, helper.make_node("Sigmoid", ["m"], ["y"])], shape, constants, opset)
        taken[compare(model)] += 1

    check()
    assert taken[True] >= 10, f"of the graphs made only {taken[True]} were compared"


# --- the boundary of what is accepted, case by case --------------------------------------------------------------

NODE = helper.make_node
HALF = np.array([1, 1, 0.5, 0.5], np.float32)
POOLED = {"kernel_shape": [3, 3], "strides": [2, 2]}


@pytest.mark.parametrize(
    ("accepted", "node", "constants", "size"),
    [
        (True, NODE("AveragePool", ["x"], ["m"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), {}, 8),
        (True, NODE("AveragePool", ["x"], ["m"], **POOLED, ceil_mode=1), {}, 9),
        (False, NODE("AveragePool", ["x"], ["m"], **POOLED, ceil_mode=1), {}, 8),
        (True, NODE("AveragePool", ["x"], ["m"], **POOLED, dilations=[1, 1]), {}, 9),
        (False, NODE("AveragePool", ["x"], ["m"], **POOLED, dilations=[2, 1]), {}, 9),
        (True, NODE("AveragePool", ["x"], ["m"], kernel_shape=[4, 4], pads=[2, 2, 2, 2]), {}, 8),
        (False, NODE("AveragePool", ["x"], ["m"], kernel_shape=[3, 3], pads=[2, 2, 2, 2]), {}, 8),
        (True, NODE("Resize", ["x", "", "s"], ["m"], mode="linear", antialias=0), {"s": HALF}, 8),
        (False, NODE("Resize", ["x", "", "s"], ["m"], mode="linear", antialias=1), {"s": HALF}, 8),
        (False, NODE("Resize", ["x", "", "s"], ["m"]), {"s": HALF}, 8),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
@pytest.mark.shows("MEA-38", "ERR-32")
def test_what_a_global_pool_behind_it_would_hide(
    accepted: bool, node: onnx.NodeProto, constants: dict[str, np.ndarray], size: int
) -> None:
    model = graph_of([node, NODE("GlobalAveragePool", ["m"], ["y"])], (1, 4, size, size), constants, 19)
    assert compare(model, accepted=accepted) is accepted


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda m: m.opset_import.__getitem__(0).__setattr__("version", 12), "opsets 13 to 23"),
        (lambda m: m.opset_import.__getitem__(0).__setattr__("version", 24), "opsets 13 to 23"),
        (lambda m: m.graph.node[0].__setattr__("domain", "com.microsoft"), "the operator Relu"),
        (lambda m: m.graph.node[0].attribute.append(helper.make_attribute("slope", 0.1)), "attribute slope"),
        (lambda m: m.graph.node[0].input.append("x"), "2 inputs"),
        (lambda m: m.graph.node[0].output.append("z"), "2 outputs"),
        (lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", TensorProto.FLOAT16), "FP32 input"),
        (lambda m: m.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [1, 5])), "the graph states"),
    ],
)
def test_what_is_not_known_is_named(changed: Callable[[onnx.ModelProto], Any], said: str) -> None:
    model = graph_of([NODE("Relu", ["x"], ["y"], name="only")], (1, 4))
    GraphModule(model, [], {})
    changed(model)
    with pytest.raises(UsageError, match=said):
        GraphModule(model, [], {})


def test_an_image_of_another_size_is_refused() -> None:
    """Pooling windows and reshapes are of one size; at another they would be other functions."""
    module = GraphModule(graph_of([NODE("Relu", ["x"], ["y"])], (1, 1, 8, 8)), [], {})
    with pytest.raises(UsageError, match="images of 1 x 8 x 8, not of 1 x 9 x 8"):
        module(torch.zeros(2, 1, 9, 8))
