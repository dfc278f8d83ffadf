"""Compute what does not depend on the input: shape arithmetic, transposed weights, constants."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript.optimizer import fold_constants_ir

from csa_deploy.graph.facts import add_initializer, constant
from csa_deploy.graph.rewrite import Rewrite, fresh_name, is_left_alone, remove_unused

# Any constant may be read, but none may grow: a result larger than this many elements must replace inputs as large.
_MAY_READ = 2**40
_MAY_GROW_TO = 65536  # enough for the statistics of any BatchNormalization, little beside weights
_FILLED_UP_TO = 2**26  # weights that a ConstantOfShape makes: no more than a large layer's


def _may_fold(node: ir.Node, graph: ir.Graph) -> bool | None:
    """True: fold it although the library would not; None: as the library decides; False: leave it."""
    if node.graph is not graph or is_left_alone(node):
        return False
    return True if node.op_type == "ConstantOfShape" and not node.domain else None


def _fill(model: ir.Model) -> None:
    """Make initializers of the weights that ConstantOfShape nodes of constant shape make, which are larger than a
    constant may grow to."""
    for node in model.graph:
        if node.op_type != "ConstantOfShape" or node.domain or is_left_alone(node):
            continue
        shape, out = constant(node.inputs[0]), node.outputs[0]
        if shape is None or (shape < 0).any() or not _MAY_GROW_TO < math.prod(map(int, shape)) <= _FILLED_UP_TO:
            continue
        if out.is_graph_output():
            continue
        given = node.attributes.get("value")
        value = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
        name = fresh_name(model.graph, f"{out.name}_filled")
        filled = np.full(shape, value.reshape(-1)[0], value.dtype)
        out.replace_all_uses_with(add_initializer(model.graph, name, filled))


def _fold(model: ir.Model) -> int:
    graph = model.graph
    before = len(graph)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _fill(model)
    fold_constants_ir(
        model,
        onnx_shape_inference=True,
        input_size_limit=_MAY_READ,
        output_size_limit=_MAY_GROW_TO,
        should_fold=lambda node: _may_fold(node, graph),
    )
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    remove_unused(model)
    for value in graph.initializers.values():  # folded transposes come as views, whose bytes others cannot read
        tensor = value.const_value
        if isinstance(tensor, ir.Tensor) and not (array := tensor.numpy()).flags.c_contiguous:
            value.const_value = ir.Tensor(np.ascontiguousarray(array), dtype=tensor.dtype, name=tensor.name)
    return max(before - len(graph), 0)


RULE = Rewrite("fold_constants", "compute constants and shape arithmetic ahead; constants become initializers", _fold)
