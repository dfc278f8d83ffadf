"""Compute what does not depend on the input: shape arithmetic, transposed weights, constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript.optimizer import fold_constants_ir

from csa_deploy.graph.rewrite import Rule, is_left_alone, remove_unused

# Any constant may be read, but none may grow: a result larger than this many elements must replace inputs as large.
_MAY_READ = 2**40
_MAY_GROW_TO = 65536  # enough for the statistics of any BatchNormalization, little beside weights


def _in_main_graph(node: ir.Node, graph: ir.Graph) -> bool | None:
    return None if node.graph is graph and not is_left_alone(node) else False


def _fold(model: ir.Model) -> int:
    graph = model.graph
    before = len(graph)
    fold_constants_ir(
        model,
        onnx_shape_inference=True,
        input_size_limit=_MAY_READ,
        output_size_limit=_MAY_GROW_TO,
        should_fold=lambda node: _in_main_graph(node, graph),
    )
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    remove_unused(model)
    for value in graph.initializers.values():  # folded transposes come as views, whose bytes others cannot read
        tensor = value.const_value
        if isinstance(tensor, ir.Tensor) and not (array := tensor.numpy()).flags.c_contiguous:
            value.const_value = ir.Tensor(np.ascontiguousarray(array), dtype=tensor.dtype, name=tensor.name)
    return max(before - len(graph), 0)


RULE = Rule("fold_constants", "compute constants and shape arithmetic ahead; constants become initializers", _fold)
