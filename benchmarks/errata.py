"""CPU seconds of holding a graph of 10,000 nodes against the errata packs, beside those of reading it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.pairs import Ratio, measure
from csa_deploy.restricted.errata.finding import Question, known_problems
from csa_deploy.restricted.loading import load_graph

PAIRS = 5
BLOCKS = 500


def run() -> list[Ratio]:
    """Of every erratum, in any version, with DLA: the most there is to look for."""
    model = blocks(BLOCKS)
    graph = load_graph(model)
    question = Question(dla=True, precisions=("fp32", "fp16", "int8"))
    a = f"errata, {len(graph.nodes)} nodes", cpu_of(lambda: known_problems(graph, question))
    b = "reading the graph", cpu_of(lambda: load_graph(model))
    return [measure("known problems, CPU seconds", a, b, PAIRS)]


def cpu_of(work: Callable[[], object]) -> Callable[[], float]:
    """A function that works and returns CPU seconds of this process."""

    def once() -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return once


def blocks(count: int) -> onnx.ModelProto:
    """Transformer blocks of 20 nodes, with Q/DQ: every pattern about attention, products and types has to look."""
    nodes: list[onnx.NodeProto] = []

    def add(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    x = "x"
    for _ in range(count):
        h = add("LayerNormalization", x, "ln", axis=-1)
        q, k, v = (add("MatMul", h, "w") for _ in range(3))
        q, k = add("Mul", q, "s"), add("Mul", add("Transpose", k, perm=[0, 2, 1]), "s")
        o = add("MatMul", add("Softmax", add("MatMul", q, k), axis=-1), v)
        o = add("MatMul", add("DequantizeLinear", add("QuantizeLinear", o, "s", "z"), "s", "z"), "w")
        x = add("Add", o, x)
        h = add("MatMul", add("LayerNormalization", x, "ln", axis=-1), "w")
        x = add("Identity", add("Add", add("MatMul", add("Relu", h), "w"), x))
    weights = {"w": np.ones((8, 8), "f4"), "s": np.float32(0.1), "z": np.int8(0), "ln": np.ones(8, "f4")}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 16, 8]) for name in ("x", x)]
    named = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], named)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
