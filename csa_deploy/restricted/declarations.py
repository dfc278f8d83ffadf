"""What a file declares about the shapes of its tensors: compared with what follows from the graph, never believed.

A Reshape to dimensions that are known at run time only may carry any declared output shape. So inference starts from
the network's inputs and constants alone. Two declarations are kept: the output of a Resize by constant scales, whose
rounding is a question of its own (see :mod:`csa_deploy.restricted.rounding`), and the output of an operator outside
of the standard, about which nothing else is known and nothing is ever allowed.
"""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, defs

from csa_deploy.graph.operators import ONNX_DOMAINS

_CONSTANT = frozenset({"Constant", "Shape", "Size"})
_RANDOM = frozenset({"RandomNormal", "RandomUniform"})


def forget_shapes(model: ModelProto) -> None:
    """Drop the declared shapes of everything that a node writes; element types stay."""
    _forget(model.graph, frozenset())


def _forget(graph: GraphProto, outer: frozenset[str], inputs: int | None = None) -> None:
    """Forget in a graph and its bodies; ``inputs`` is the first input of a body that is forgotten (None: none is)."""
    constants = outer | _constants(graph, outer)
    stored = {tensor.name for tensor in graph.initializer}  # an entry without shape would hide that of the tensor
    for place in reversed([i for i, info in enumerate(graph.value_info) if info.name in stored]):
        del graph.value_info[place]
    kept = {name for node in graph.node if _is_believed(node, constants) for name in node.output}
    forgotten: list[ValueInfoProto] = [info for info in (*graph.value_info, *graph.output) if info.name not in kept]
    for info in [*forgotten, *(graph.input[inputs:] if inputs is not None else ())]:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                first = {"Loop": 2, "Scan": 0}.get(node.op_type)  # a Loop's count and condition are scalars
                _forget(attribute.g, constants, first)


def _constants(graph: GraphProto, outer: frozenset[str]) -> frozenset[str]:
    """Names whose values follow from constants and shapes, as far as the order of the nodes tells."""
    names = set(outer) | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        read = [name for name in node.input if name]
        follows = bool(read) and all(name in names for name in read) and not _has_body(node)
        if node.op_type in _CONSTANT or (follows and node.op_type not in _RANDOM):
            names.update(node.output)
    return frozenset(names)


def _has_body(node: NodeProto) -> bool:
    return any(attribute.HasField("g") for attribute in node.attribute)


def _is_believed(node: NodeProto, constants: frozenset[str]) -> bool:
    if node.domain not in ONNX_DOMAINS or not defs.has(node.op_type):
        return True
    if node.op_type not in ("Resize", "Upsample"):
        return False
    scales = list(node.input[1:3]) if len(node.input) < 4 or not node.input[3] else []
    if node.op_type == "Upsample" and len(node.input) == 1:
        return True
    return bool(scales) and all(name in constants for name in scales if name)
