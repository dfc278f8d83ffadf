"""Make ONNX Runtime's CPU provider round every FP16 tensor to FP16.

ONNX Runtime has FP16 kernels for few operators on CPU. The others compute in FP32 between casts that it inserts, and it
then removes each pair of casts to FP16 and back between two of them, whatever the optimization level: a chain of
convolutions is never rounded, and FP16 looks more accurate than it is. Two Identity nodes in a row have FP16 kernels,
so the tensor between them exists in FP16 and the casts around them stay. This holds only with
``ORT_DISABLE_ALL``; other levels drop Identity nodes.

What remains optimistic: sums inside one operator are accumulated in FP32, where an engine may accumulate in FP16. What
remains pessimistic: an engine that fuses operators does not round between them.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from csa_deploy.graph.names import Names
from csa_deploy.graph.operators import Trait, having
from csa_deploy.graph.shapes import infer_shapes, require_dense

_EXACT = having(Trait.MOVES | Trait.SELECTS)  # outputs are copies of inputs, which are rounded already


def keep_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the rounding of every FP16 tensor made permanent, for ONNX Runtime without optimizations.

    The engine is never built from this graph: it computes what ``model`` says, and exists to measure it.

    Args:
        model: a graph with FP16 values, as :func:`csa_deploy.precision.fp16.to_fp16` makes it; not changed.
    """
    require_dense(model)
    rounded = ir.from_proto(model)
    if any(value.dtype is None for node in rounded.graph for value in node.outputs):
        infer_shapes(rounded)  # a value of unknown type would not be rounded
    names = Names(rounded.graph)
    for node in list(rounded.graph):
        if node.op_type in _EXACT and not node.domain:
            continue
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT16 and value.uses():  # an output may have readers as well
                _pin(rounded.graph, node, value, names)
    return ir.to_proto(rounded)


def _pin(graph: ir.Graph, maker: ir.Node, value: ir.Value, names: Names) -> None:
    """Put two Identity nodes between a value and its readers."""
    readers = tuple(value.uses())
    source, after = value, maker
    for number in (1, 2):
        output = ir.Value(name=names.unused(f"{value.name}_rounded{number}"), shape=value.shape, type=value.type)
        node = ir.node("Identity", [source], name=output.name, outputs=[output], metadata_props=maker.metadata_props)
        graph.insert_after(after, node)
        source, after = output, node
    for reader, index in readers:
        reader.replace_input_with(index, source)
