"""What a graph says about itself, held against what other readers of ONNX find in it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from csa_deploy.graph.facts import (
    add_initializer,
    all_tensors,
    constant,
    constant_tensor,
    constants_of,
    is_constant,
    opset_of,
    stated_types,
)

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
BOOL = helper.make_tensor_value_info("c", TensorProto.BOOL, [])


def _model(nodes, weights=(), *, inputs=(X,), outputs=("y",), opsets=(("", 18),), values=(), functions=()):
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in outputs]
    graph = helper.make_graph(nodes, "g", list(inputs), out, list(weights), value_info=list(values))
    made = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return helper.make_model(graph, opset_imports=made, functions=list(functions), ir_version=9)


def _weight(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


IDENTITY = helper.make_node("Identity", ["x"], ["y"])


@pytest.mark.parametrize(
    ("opsets", "expected"),
    [((("", 18),), 18), ((("com.microsoft", 1), ("ai.onnx", 17)), 17), ((("com.microsoft", 9),), 0), ((), 0)],
)
def test_opset(opsets, expected):
    model = _model([IDENTITY], opsets=opsets)
    if not opsets:
        del model.opset_import[:]
    assert opset_of(model) == expected


def test_precision_on_both_sides_of_each_boundary():
    half = helper.make_tensor_value_info("h", TensorProto.FLOAT16, [2])
    cast = [helper.make_node("Cast", ["x"], ["h"], to=10), helper.make_node("Cast", ["h"], ["y"], to=1)]
    inside = helper.make_graph(
        [helper.make_node("Constant", [], ["t"], value=_weight("", [1], np.float16))], "b", [], []
    )
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inside, else_branch=inside)
    scale, zero = _weight("s", 0.1), _weight("z", 0, np.int8)
    quantized = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    assert stated_types(_model([IDENTITY], [_weight("w", [1])])).precision == "fp32"
    assert stated_types(_model([IDENTITY], [_weight("w", [1], np.float64)])).precision == "fp32"
    assert stated_types(_model([IDENTITY], [_weight("w", [1], np.float16)])).precision == "fp16"
    assert stated_types(_model(cast, values=[half])).precision == "fp16"
    assert stated_types(_model([branch], inputs=[BOOL])).precision == "fp16"
    assert stated_types(_model(quantized, [scale, zero])).precision == "int8"
    assert stated_types(_model(quantized, [scale, zero, _weight("w", [1], np.float16)])).half


def test_all_tensors_are_those_that_onnx_finds():
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["t"], value=_weight("inner", [1, 2]))],
        "b",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [2])],
        [_weight("stored", [3])],
    )
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)]
    nodes.append(helper.make_node("Constant", [], ["k"], value=_weight("outer", [4, 5])))
    model = _model(nodes, [_weight("w", [6])], inputs=[BOOL])
    theirs = onnx.external_data_helper._get_all_tensors(model)
    assert sorted(t.name for t in all_tensors(model)) == sorted(t.name for t in theirs)
    function = helper.make_function("own", "F", [], ["k"], [nodes[1]], [helper.make_opsetid("", 18)])
    assert [t.name for t in all_tensors(_model([IDENTITY], functions=[function]))] == ["outer"]


def test_a_constant_is_what_no_input_can_override():
    nodes = [
        helper.make_node("Constant", [], ["k"], value=_weight("k", [1, 2])),
        helper.make_node("Sum", ["x", "fixed", "free", "k"], ["y"]),
    ]
    free = helper.make_tensor_value_info("free", TensorProto.FLOAT, [2])
    view = ir.from_proto(_model(nodes, [_weight("fixed", [3, 4]), _weight("free", [5, 6])], inputs=[X, free]))
    x, fixed, overridden, made = list(view.graph)[1].inputs
    assert [constant_tensor(v) is not None for v in (x, fixed, overridden, made, None)] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert [constant(v) is not None for v in (x, fixed, overridden)] == [False, True, False]
    assert [is_constant(v) for v in (x, fixed, overridden, made)] == [False, True, True, True]
    assert sorted(t.numpy().tolist() for t in constants_of(view.graph)) == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("array", [np.float32(2), np.arange(6, dtype=np.float16).reshape(2, 3), np.zeros(0, np.int64)])
def test_an_added_initializer_is_read_by_onnx(array):
    view = ir.from_proto(_model([IDENTITY]))
    value = add_initializer(view.graph, "added", array)
    view.graph.append(ir.node("Identity", [value], outputs=[ir.Value(name="z", type=value.type, shape=value.shape)]))
    view.graph.outputs.append(list(view.graph)[-1].outputs[0])
    model = ir.to_proto(view)
    onnx.checker.check_model(model, full_check=True)
    got = ReferenceEvaluator(model).run(["z"], {"x": np.zeros(2, np.float32)})[0]
    assert got.dtype == np.asarray(array).dtype and np.array_equal(got, array)
