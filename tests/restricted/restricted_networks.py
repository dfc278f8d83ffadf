"""Small networks for the tests of the checker."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
MAP = [1, 8, 14, 14]


def value(name: str, shape: Sequence[int | str] | None, kind: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, data: object, dtype: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(data, dtype), name)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "", **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs, outputs, name=name or f"{op.lower()}_node", **attributes)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto] = (),
    outputs: Sequence[ValueInfoProto] = (),
    constants: Sequence[TensorProto] = (),
    opset: int = 17,
    values: Sequence[ValueInfoProto] = (),
    domains: Sequence[str] = (),
) -> ModelProto:
    """A model; by default x (1, 8, 14, 14) -> y of unknown shape, which inference fills in."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        list(inputs) or [value("x", MAP)],
        list(outputs) or [value("y", None)],
        list(constants),
        value_info=list(values),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports)


def single(
    op: str, constants: Sequence[TensorProto] = (), opset: int = 17, shape=MAP, **attributes: object
) -> ModelProto:
    """One node that reads x and the constants in their order."""
    inputs = ["x", *(tensor.name for tensor in constants)]
    return model([node(op, inputs, ["y"], **attributes)], [value("x", shape)], constants=constants, opset=opset)


def resize(
    scales: Sequence[float], declared: Sequence[int] | None = None, shape=MAP, **attributes: object
) -> ModelProto:
    """A linear Resize by scales."""
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", **attributes}
    made = node("Resize", ["x", "", "scales"], ["y"], **attributes)
    return model([made], [value("x", shape)], [value("y", declared)], [constant("scales", scales)])


def weights(outputs: int, inputs: int, *kernel: int) -> TensorProto:
    return constant("w", np.zeros((outputs, inputs, *kernel)))
