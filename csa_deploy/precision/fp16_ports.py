"""Which inputs and outputs of an ONNX operator may be FP16, read from the operator's own schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx.defs
import onnx_ir as ir

from csa_deploy.graph.operators import ONNX_DOMAINS
from csa_deploy.precision.half_chains import POSITIONS

_FLOAT, _HALF = "tensor(float)", "tensor(float16)"

# Inputs that select positions beside data of another type. The schema would let roi be FP16, but TensorRT takes neither
# it nor scales so.
_POSITIONS = {"Resize": (1, 2), "Upsample": (1,)}

# Operators that name the type of their output themselves.
_NAMES_TYPE = {
    *("Bernoulli", "BitCast", "BlackmanWindow", "Constant", "EyeLike", "HammingWindow", "HannWindow"),
    *("MelWeightMatrix", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
}


@dataclass(frozen=True)
class Ports:
    """Float inputs and outputs of one node that become FP16 when the node does; the other float ones stay FP32."""

    inputs: frozenset[int]
    outputs: frozenset[int]


def half_ports(node: ir.Node, opset: int) -> Ports | str:
    """The ports of ``node`` that can be FP16, or the reason why the node has to stay FP32."""
    if node.domain not in ONNX_DOMAINS:
        return f"operator of domain '{node.domain}', whose types are not known"
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return "it holds a subgraph"
    if node.op_type in POSITIONS:
        return "it reads positions, which FP16 would round"
    if node.op_type in _NAMES_TYPE:
        return f"{node.op_type} names its output type itself"
    if unknown := [v.name for v in (*node.inputs, *node.outputs) if v is not None and v.dtype is None]:
        return f"the type of '{unknown[0]}' is not known"
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return f"{node.op_type} is not known in opset {opset}"
    inputs = _ports(schema, schema.inputs, node.inputs, _POSITIONS.get(node.op_type, ()))
    outputs = _ports(schema, schema.outputs, node.outputs, ())
    if inputs is None or outputs is None:
        return f"{node.op_type} has no FP16 form in opset {opset}"
    return Ports(inputs, outputs)


def _ports(
    schema: onnx.defs.OpSchema,
    formals: Sequence[onnx.defs.OpSchema.FormalParameter],
    values: Sequence[ir.Value | None],
    stay: Sequence[int],
) -> frozenset[int] | None:
    """Indices of the FP32 values that can be FP16; None where one can be neither that nor is fixed to FP32."""
    allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
    half = set()
    for index, value in enumerate(values):
        if value is None or value.dtype != ir.DataType.FLOAT or index in stay:
            continue
        kind = formals[min(index, len(formals) - 1)].type_str
        if kind == _FLOAT:
            continue
        if _HALF not in allowed.get(kind, ()):
            return None
        half.add(index)
    return frozenset(half)
