"""Shapes that the inference over the whole graph misses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx
from onnx import GraphProto, NodeProto, numpy_helper

from csa_deploy.restricted.graph import Graph, Value, attributes, type_of, value_of

log = logging.getLogger(__name__)


def infer_outputs(proto: NodeProto, inputs: Sequence[Value | None], outputs: Sequence[Value], opset: int) -> None:
    """Infer the outputs of one node from what is known of its inputs, folded values included.

    The inference over the whole graph does not see values that were folded in the same pass or outside of a body.
    """
    known = {value.name: value for value in inputs if value is not None}
    if proto.domain or not onnx.defs.has(proto.op_type) or any(value.dtype is None for value in known.values()):
        return
    if any(attribute.HasField("g") for attribute in proto.attribute):
        return
    types = {name: type_of(value) for name, value in known.items()}
    data = {n: numpy_helper.from_array(v.data, n) for n, v in known.items() if v.const and v.data is not None}
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset)
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data)
    except Exception as error:  # an inference error of any C++ type: the whole graph's inference reports it
        log.debug("inference of %s: %s", proto.op_type, error)
        return
    for output in outputs:
        if output.name in found and output.elements is None:
            inferred = value_of(onnx.ValueInfoProto(name=output.name, type=found[output.name]))
            output.dtype, output.shape = output.dtype or inferred.dtype, inferred.shape


def scan_inputs(proto: NodeProto, inputs: Sequence[Value | None], body: GraphProto) -> list[Value]:
    """What the inputs of a Scan's body are: the states as they are, the scanned inputs without their first axis."""
    attrs = attributes(proto)
    states = len(inputs) - int(attrs.get("num_scan_inputs", 0))
    if any(attrs.get("scan_input_axes", [])) or len(body.input) != len(inputs):
        return []
    given = []
    for index, (value, info) in enumerate(zip(inputs, body.input, strict=True)):
        if value is not None and value.shape is not None:
            shape = value.shape if index < states else value.shape[1:]
            given.append(Value(info.name, value.dtype, shape))
    return given


def infer_scan(
    proto: NodeProto, inputs: Sequence[Value | None], outputs: Sequence[Value], bodies: Mapping[str, Graph]
) -> None:
    """Infer the outputs of a Scan (operator set 9 and later): its states, and what its body stacks."""
    attrs = attributes(proto)
    scanned = int(attrs.get("num_scan_inputs", 0))
    states = len(inputs) - scanned
    first = inputs[states] if 0 <= states < len(inputs) else None
    body = bodies.get("body")
    if body is None or first is None or not first.shape or len(body.outputs) != len(outputs):
        return
    if any(attrs.get("scan_input_axes", [])) or any(attrs.get("scan_output_axes", [])):
        return
    for index, (output, step) in enumerate(zip(outputs, body.outputs, strict=True)):
        state = inputs[index] if index < states else None
        shape = state.shape if state else None if step.shape is None else (first.shape[0], *step.shape)
        if output.elements is None and shape is not None:
            output.dtype, output.shape = output.dtype or step.dtype, shape
