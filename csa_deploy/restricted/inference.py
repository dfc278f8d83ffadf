"""Shapes that the inference over the whole graph misses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx
from onnx import GraphProto, NodeProto, numpy_helper

from csa_deploy.restricted.graph import Graph, Value, attributes, type_of, value_of

log = logging.getLogger(__name__)

_SHAPE_OF_INPUT = ("GroupNormalization", "MeanVarianceNormalization")
"""The two standard operators without an inference of their own in onnx; both keep the shape of their input."""


def infer_outputs(proto: NodeProto, inputs: Sequence[Value | None], outputs: Sequence[Value], opset: int) -> None:
    """Infer the outputs of one node from what is known of its inputs, folded values included.

    The inference over the whole graph does not see values that were folded in the same pass or outside of a body.
    """
    known = {value.name: value for value in inputs if value is not None}
    if proto.op_type in _SHAPE_OF_INPUT and inputs and (source := inputs[0]) is not None and not proto.domain:
        outputs[0].dtype, outputs[0].shape = source.dtype, source.shape
        return
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


def body_inputs(proto: NodeProto, inputs: Sequence[Value | None], body: GraphProto) -> list[Value]:
    """What is known of the inputs of a Loop's or Scan's body; carried values keep their shape."""
    if proto.op_type == "Loop":
        carried = list(zip(body.input[2:], inputs[2:], strict=False))
        return [
            Value(info.name, value.dtype, value.shape) for info, value in carried if value and value.shape is not None
        ]
    if proto.op_type != "Scan" or len(body.input) != len(inputs):
        return []
    attrs = attributes(proto)
    if any(attrs.get("scan_input_axes", [])):
        return []
    states = len(inputs) - int(attrs.get("num_scan_inputs", 0))
    given = []
    for index, (value, info) in enumerate(zip(inputs, body.input, strict=True)):
        if value is not None and value.shape is not None:
            shape = value.shape if index < states else value.shape[1:]
            given.append(Value(info.name, value.dtype, shape))
    return given


def infer_body_outputs(
    proto: NodeProto, inputs: Sequence[Value | None], outputs: Sequence[Value], bodies: Mapping[str, Graph]
) -> None:
    """Infer the outputs of a Loop or Scan (what it carries, what its body stacks once per step) or of an If."""
    if proto.op_type == "If":
        _infer_if(inputs, outputs, bodies)
        return
    body = bodies.get("body")
    if body is None or proto.op_type not in ("Loop", "Scan"):
        return
    is_loop = proto.op_type == "Loop"
    attrs = attributes(proto)
    carried = inputs[2:] if is_loop else inputs[: len(inputs) - int(attrs.get("num_scan_inputs", 0))]
    results = body.outputs[1:] if is_loop else body.outputs
    if len(results) != len(outputs) or any([*attrs.get("scan_input_axes", []), *attrs.get("scan_output_axes", [])]):
        return
    steps = _loop_steps(inputs) if is_loop else _scan_steps(inputs[len(carried) :])
    for index, (output, result) in enumerate(zip(outputs, results, strict=True)):
        if index < len(carried):
            state = carried[index]
            shape = state.shape if state and result.shape in (None, state.shape) else None
        else:
            shape = None if result.shape is None else (steps, *result.shape)
        if output.elements is None and shape is not None:
            output.dtype, output.shape = output.dtype or result.dtype, shape


def _infer_if(inputs: Sequence[Value | None], outputs: Sequence[Value], bodies: Mapping[str, Graph]) -> None:
    """An If with a constant condition gives what the branch gives that is taken."""
    condition = inputs[0] if inputs else None
    if condition is None or condition.data is None or not condition.data.size:
        return
    branch = bodies.get("then_branch" if bool(condition.data.reshape(-1)[0]) else "else_branch")
    for output, result in zip(outputs, branch.outputs if branch else (), strict=False):
        if output.elements is None and result.shape is not None:
            output.dtype, output.shape = output.dtype or result.dtype, result.shape


def _loop_steps(inputs: Sequence[Value | None]) -> int | None:
    """Trip count of a Loop, which is also how many steps TensorRT stacks; None when it is computed."""
    count = inputs[0] if inputs else None
    if count is None or count.data is None or count.data.size != 1 or count.data.dtype.kind not in "iu":
        return None
    return max(0, int(count.data.reshape(-1)[0]))


def _scan_steps(scanned: Sequence[Value | None]) -> int | None:
    first = scanned[0] if scanned else None
    return first.shape[0] if first is not None and first.shape else None
