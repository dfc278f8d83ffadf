"""Drop nodes that return their input: Identity, Dropout, Cast to the same type, products with 1, sums with 0.

onnxscript's rules for the arithmetic ones are not used: they take a constant within 1e-8 of 0 for 0, and so would
drop the epsilon that guards a division. Its Identity pass is not used because it may rename a graph output.
"""

from __future__ import annotations

import onnx_ir as ir

from csa_deploy.graph.facts import constant, node_opset
from csa_deploy.graph.rewrite import Rewrite, is_left_alone, remove_unused
from csa_deploy.graph.shapes import static_shape

_FOR_INFERENCE = 7
_NEUTRAL = {"Mul": 1, "Div": 1, "Add": 0, "Sub": 0}


def _returns(node: ir.Node) -> ir.Value | None:
    """The input that a node returns unchanged, or None."""
    if node.domain or not node.inputs:
        return None
    first = node.inputs[0]
    if node.op_type == "Identity":
        return first
    if node.op_type == "Dropout":
        return first if _inactive(node) else None
    if node.op_type == "Cast":
        return first if first is not None and first.dtype == node.attributes.get_int("to") else None
    if node.op_type in ("Reshape", "Expand", "Pad", "Transpose", "Slice"):
        return first if _keeps_layout(node) else None
    return _neutral_operand(node)


def _inactive(node: ir.Node) -> bool:
    """Whether a Dropout is in inference mode and nobody reads its mask; before opset 7 an attribute says so."""
    if node_opset(node) < _FOR_INFERENCE and not node.attributes.get_int("is_test", 0):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None and ((mode := constant(training)) is None or mode.item()):
        return False
    return all(not output.uses() and not output.is_graph_output() for output in node.outputs[1:])


def _keeps_layout(node: ir.Node) -> bool:
    """Whether a node that moves elements leaves each where it is."""
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is None or before != after:
        return False
    if node.op_type == "Transpose":
        moved = [axis for axis in node.attributes.get_ints("perm", range(len(before))[::-1]) if before[axis] != 1]
        return moved == sorted(moved)
    if node.op_type == "Pad":
        amounts = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        return amounts is not None and not amounts.any()
    if node.op_type == "Slice":
        steps = constant(node.inputs[4]) if len(node.inputs) > 4 else None
        return len(node.inputs) > 1 and (len(node.inputs) < 5 or (steps is not None and bool((steps == 1).all())))
    return True


def _neutral_operand(node: ir.Node) -> ir.Value | None:
    neutral = _NEUTRAL.get(node.op_type)
    if neutral is None or node_opset(node) < _FOR_INFERENCE:
        return None
    shape = static_shape(node.outputs[0])
    sides = (0,) if node.op_type in ("Sub", "Div") else (0, 1)
    for side in sides:
        kept, other = node.inputs[side], constant(node.inputs[1 - side])
        if other is not None and (other == neutral).all() and shape is not None and static_shape(kept) == shape:
            return kept
    return None


def _drop(node: ir.Node, graph: ir.Graph) -> bool:
    """Route the users of ``node`` to the value it returns; False where graph inputs or outputs forbid it."""
    value, out = _returns(node), node.outputs[0]
    if value is None or is_left_alone(node):
        return False
    if out.is_graph_output():
        maker = value.producer()
        if maker is None or maker.graph is not graph or value.is_graph_output():
            return False
        name, value.type, value.shape = out.name, out.type or value.type, out.shape or value.shape
        out.replace_all_uses_with(value, replace_graph_outputs=True)
        out.name, value.name = f"{name}_dropped", name
    else:
        out.replace_all_uses_with(value)
    graph.remove(node, safe=True)
    return True


def _apply(model: ir.Model) -> int:
    count = sum(_drop(node, model.graph) for node in model.graph)
    if count:
        remove_unused(model)
    return count


RULE = Rewrite("drop_identities", "drop Identity, inactive Dropout and other nodes that return their input", _apply)
