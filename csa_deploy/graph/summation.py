"""A graph that sums in another order: how large the rounding of its sums is in its outputs.

A sum of n products in floating point is, in whatever order it is made, the exact sum of products whose i-th term is
off by a factor 1 + d_i; of a sum made term by term d_i is what the roundings after the i-th term add up to, each at
most the unit roundoff u (N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, 2002, section 3.1
and Lemma 3.1). So an operand is multiplied by 1 + d, with d the end part of a random walk of steps +u and -u along the
terms: one sum made term by term, with independent roundings of full size (N. J. Higham and T. Mary,
"A new approach to probabilistic rounding error analysis", 2019, for roundings as independent random variables). Kernels
sum in blocks, with fewer roundings in a row, so they stay below it.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir

from csa_deploy.graph.facts import add_initializer
from csa_deploy.graph.names import Names
from csa_deploy.graph.shapes import editable, infer_shapes, static_shape

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11}
_HALF = ir.DataType.FLOAT16
_PRODUCTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "Einsum": 1}  # operand that is multiplied
_SUMS = (
    *("AveragePool", "BatchNormalization", "GlobalAveragePool", "GroupNormalization", "InstanceNormalization"),
    *("LayerNormalization", "LogSoftmax", "LpNormalization", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMean"),
    *("ReduceSum", "ReduceSumSquare", "Softmax"),
)


def with_other_sums(model: onnx.ModelProto, seed: int, unit: float = UNIT_ROUNDOFF["float32"]) -> onnx.ModelProto:
    """The graph with the roundings of all its sums drawn anew; sums of FP16 values are made in FP32 and then rounded.

    Args:
        model: static; it is not changed.
        unit: unit roundoff of the sums.
    """
    view = editable(model)
    infer_shapes(view)
    graph, names, random = view.graph, Names(view.graph), np.random.default_rng(seed)
    for node in list(graph):
        index = _PRODUCTS.get(node.op_type, 0 if node.op_type in _SUMS else None)
        if index is None or node.domain or (shape := static_shape(node.inputs[index])) is None:
            continue
        factor = np.asarray(1 + _walk(node, shape, random) * unit, np.float32)
        scale = add_initializer(graph, names.unused(f"{node.name}_roundings"), factor)
        if node.outputs[0].dtype == _HALF:
            _in_float(graph, node, names)
        source = node.inputs[index]
        scaled = ir.node("Mul", [source, scale])
        scaled.outputs[0].name, scaled.name = names.unused(f"{node.name}_rounded"), names.unused(f"{node.name}_rounds")
        graph.insert_before(node, scaled)
        node.replace_input_with(index, scaled.outputs[0])
    return ir.to_proto(view)


def _walk(node: ir.Node, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Roundings per term, in units of the roundoff, of the operand's shape; the same for all samples of an input."""
    if node.op_type in _SUMS:  # along all of a sample, which is more than one sum of it
        return _steps(math.prod(shape[1:]), 1, random).reshape(1, *shape[1:])
    transposed = node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].as_int()
    if node.op_type == "Conv" or transposed:
        return _steps(math.prod(shape[1:]), shape[0], random).T.reshape(shape)
    if node.op_type == "ConvTranspose":
        return _steps(shape[0], math.prod(shape[1:]), random).reshape(shape)
    if node.op_type == "Einsum" or len(shape) == 1:
        return _steps(math.prod(shape), 1, random).reshape(shape)
    return _steps(shape[-2], shape[-1], random)  # of a matrix (K, M)


def _steps(terms: int, sums: int, random: np.random.Generator) -> np.ndarray:
    """(terms, sums): what the roundings from each term on add up to, the terms in random order."""
    signs = random.integers(0, 2, (terms, sums), dtype=np.int8) * 2 - 1
    walked = np.cumsum(signs, axis=0, dtype=np.int32)
    return walked[random.permutation(terms)]


def _in_float(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    """FP16 goes into a node as FP32 and comes out rounded to FP16."""
    for index, value in enumerate(node.inputs):
        if value is not None and value.dtype == _HALF:
            cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
            cast.outputs[0].name = names.unused(f"{value.name}_float")
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    output = node.outputs[0]
    back = ir.node("Cast", [output], {"to": int(_HALF)})
    made = back.outputs[0]
    name, made.shape, made.type = str(output.name), output.shape, output.type
    output.replace_all_uses_with(made, replace_graph_outputs=True)
    back.replace_input_with(0, output)
    output.name, made.name = names.unused(f"{name}_float"), name
    output.type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_after(node, back)
