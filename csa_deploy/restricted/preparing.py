"""Prepares a stripped model for the checker: external data, local functions, types and shapes."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, inliner

from csa_deploy.graph.external import ExternalDataError, external_file, is_external, stated_location
from csa_deploy.graph.external import external_data as _external_data
from csa_deploy.restricted import reading
from csa_deploy.restricted.graph import Node, Problem

log = logging.getLogger(__name__)


def external_data(graph: GraphProto, folder: Path | None) -> list[Problem]:
    """Read small external constants from ``folder`` (None: unknown) and report data that cannot be used."""
    problems = []
    for tensor in graph.initializer:
        if not is_external(tensor):
            continue
        try:
            data = _external_data(tensor)
            file = external_file(data.location, folder) if folder is not None else None
            if file is not None and (read := reading.small_external(tensor, data, file)):
                tensor.CopyFrom(read)
        except ExternalDataError as error:
            reason = "missing-data" if error.missing else "invalid"
            problems.append(Problem(reason, f"the data '{stated_location(tensor)}' of '{tensor.name}' {error}"))
    return problems


def inline(model: ModelProto, problems: list[Problem]) -> ModelProto:
    """The model with its local functions inlined; a failure is a problem."""
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # the inliner reports a defect of the model as any C++ exception
        problems.append(Problem("invalid", f"model-local functions cannot be inlined: {_first_line(error)}"))
        return model


def infer(model: ModelProto, problems: list[Problem], propagate: bool) -> ModelProto:
    """The model with inferred types and shapes.

    Args:
        model: stripped model.
        problems: receives what is wrong.
        propagate: let onnx follow the values of shapes.
    """
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=propagate)
    except Exception as error:  # as above
        problems.append(Problem("invalid", f"shape inference fails: {_first_line(error)}"))
        return model


def contradictions(model: ModelProto, propagate: bool) -> list[Problem]:
    """What inference says against the shapes and types that a model declares, itself included."""
    try:
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=propagate)
    except Exception as error:  # as above
        log.debug("shape inference: %s", error)
        if detail := _conflict(str(error)):
            return [Problem("shape-conflict", detail)]
    return []


_NO_CONFLICT = ("No Op registered", "One and only one of the attributes")
"""Complaints of shape inference that are not about shapes; the second is about its own expansion of functions."""


def _conflict(message: str) -> str:
    """First complaint that is neither the rounding of a Resize nor an unknown operator: those have their own rules."""
    for complaint in " ".join(message.split()).split("(op_type:")[1:]:
        is_wrapper = complaint.rstrip().endswith("Inference error(s):")  # of a function; its own complaint follows
        if not (is_wrapper or complaint.startswith("Resize") or any(phrase in complaint for phrase in _NO_CONFLICT)):
            return f"({complaint}"[:300]
    return ""


def has_op(graph: GraphProto, op: str) -> bool:
    """Whether an operator occurs in a graph or its bodies."""
    return any(
        node.op_type == op or any(has_op(attribute.g, op) for attribute in node.attribute if attribute.HasField("g"))
        for node in graph.node
    )


def malformed(node: Node, opset: int) -> Problem | None:
    """What the operator's schema says against a node: attributes, number of inputs and outputs."""
    if node.domain or node.bodies.keys() & {"then_branch", "else_branch", "body"} or not onnx.defs.has(node.op):
        return None
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = onnx.IR_VERSION, {"": min(opset, onnx.defs.onnx_opset_version())}
    try:
        onnx.checker.check_node(node.proto, context)
    except onnx.checker.ValidationError as error:
        return Problem("malformed-node", _first_line(error), node.name, node.op)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
