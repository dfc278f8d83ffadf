"""Folded values against ONNX's own node tests, ONNX Runtime, and what no reader may compute."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase

from csa_deploy.restricted.folding import FOLDED, MAX_ELEMENTS, evaluate
from csa_deploy.restricted.graph import attributes


def node_tests() -> Iterator[TestCase]:
    """ONNX's tests of one operator each that is folded."""
    with warnings.catch_warnings(action="ignore"):
        cases = collect_testcases(None)
    for case in cases:
        nodes = case.model.graph.node if case.model is not None else []
        if len(nodes) == 1 and nodes[0].op_type in FOLDED and not nodes[0].domain:
            yield case


def array_of(value: Any) -> np.ndarray | None:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if isinstance(value, np.ndarray) else None


def folded(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray | None:
    node = model.graph.node[0]
    given = [inputs[name] if name else None for name in node.input]
    return evaluate(node, attributes(node), given, model.opset_import[0].version, None)


@pytest.mark.slow
def test_every_node_test_of_onnx_gives_its_stated_output() -> None:
    checked: Counter[str] = Counter()
    for case in node_tests():
        for inputs, outputs in case.data_sets:
            named = {info.name: array_of(value) for info, value in zip(case.model.graph.input, inputs, strict=True)}
            wanted = array_of(outputs[0])
            if wanted is None or wanted.dtype == object or any(value is None for value in named.values()):
                continue  # sequences and text
            value = folded(case.model, named)
            if wanted.size > MAX_ELEMENTS:
                assert value is None, case.name
                continue
            assert value is not None and (value.dtype, value.shape) == (wanted.dtype, wanted.shape), case.name
            if wanted.dtype.kind not in "iub":  # also the small types, which NumPy has from elsewhere
                value, wanted = value.astype("f8"), wanted.astype("f8")
            assert np.allclose(value, wanted, rtol=1e-5, atol=1e-6, equal_nan=True), case.name
            checked[case.model.graph.node[0].op_type] += 1
    assert sum(checked.values()) > 300 and set(checked) >= FOLDED - {"LessOrEqual", "GreaterOrEqual"}


INTEGERS = st.integers(-(2**62), 2**62) | st.integers(-9, 9)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min"])
@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.tuples(INTEGERS, INTEGERS.filter(bool)), min_size=1, max_size=8))
def test_whole_numbers_are_computed_as_onnx_runtime_does(op: str, values: list[tuple[int, int]]) -> None:
    """Division truncates towards zero and loses no digit; products wrap."""
    a, b = (np.array(column, np.int64) for column in zip(*values, strict=True))
    tensor = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [len(values)]) for name in "aby"]
    graph = helper.make_graph([helper.make_node(op, ["a", "b"], ["y"])], "g", tensor[:2], tensor[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"a": a, "b": b})
    value = folded(model, {"a": a, "b": b})
    assert value is not None and np.array_equal(value, wanted)


def node(op: str, inputs: int = 2, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, [f"i{number}" for number in range(inputs)], ["y"], **attributes)


@pytest.mark.parametrize("op", ["Div", "Mod"])
@pytest.mark.parametrize(("divisor", "known"), [([2, 0], False), ([2, 1], True)])
def test_nothing_is_known_of_whole_numbers_divided_by_zero(op: str, divisor: list[int], known: bool) -> None:
    value = evaluate(node(op), {}, [np.array([4, 4]), np.array(divisor)], 18, None)
    assert (value is not None) == known


def test_an_omitted_input_keeps_its_place() -> None:
    """Slice without axes but with steps."""
    slicing = helper.make_node("Slice", ["x", "starts", "ends", "", "steps"], ["y"])
    bounds = [np.array([1]), np.array([9]), None, np.array([2])]
    value = evaluate(slicing, {}, [np.arange(10), *bounds], 18, None)
    assert value is not None and value.tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize(
    ("proto", "inputs", "at_most"),
    [
        (node("ConstantOfShape", 1), lambda n: [np.array([n])], MAX_ELEMENTS),
        (node("Range", 3), lambda n: [np.array(0), np.array(n), np.array(1)], MAX_ELEMENTS),
        (node("Tile"), lambda n: [np.zeros(1), np.array([n])], MAX_ELEMENTS),
        (node("Expand"), lambda n: [np.zeros(1), np.array([n])], MAX_ELEMENTS),
        (node("Add"), lambda n: [np.zeros((1, 64)), np.zeros((n, 1))], MAX_ELEMENTS // 64),
        (node("Concat", axis=0), lambda n: [np.zeros(n), np.zeros(n)], MAX_ELEMENTS // 2),
        (node("Gather"), lambda n: [np.zeros((1, 64)), np.zeros(n, "i8")], MAX_ELEMENTS // 64),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_what_grows_is_computed_up_to_the_bound(proto: onnx.NodeProto, inputs: Any, at_most: int) -> None:
    attrs = attributes(proto)
    value = evaluate(proto, attrs, inputs(at_most), 18, None)
    assert value is not None and value.size == MAX_ELEMENTS
    assert evaluate(proto, attrs, inputs(at_most + 1), 18, 1) is None  # whatever inference says


def test_a_value_outside_the_file_is_not_read() -> None:
    outside = onnx.TensorProto(name="v", data_type=7, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="secret")
    proto = node("ConstantOfShape", 1, value=outside)
    assert evaluate(proto, attributes(proto), [np.array([2])], 18, None) is None
    inside = node("ConstantOfShape", 1, value=numpy_helper.from_array(np.array([7])))
    value = evaluate(inside, attributes(inside), [np.array([2])], 18, None)
    assert value is not None and value.tolist() == [7, 7]
