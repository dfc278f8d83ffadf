"""How the static check scales: CPU seconds over graphs of 100, 1,000 and 10,000 nodes.

Sizes are the repetitions of a convolution, a sigmoid, a product and a Resize, the mix of a CSA network.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from benchmarks.errata import cpu_of
from benchmarks.pairs import Ratio, measure
from csa_deploy.restricted.check import check

PAIRS = 3
SIZES = (100, 1_000, 10_000)


def run() -> list[Ratio]:
    """All scopes of a graph, against those of one with a tenth of the nodes."""
    sides = [(f"{nodes} nodes", cpu_of(partial(check, chain(nodes)))) for nodes in SIZES]
    return [measure("static check, CPU seconds", large, small, PAIRS) for small, large in pairwise(sides)]


def chain(nodes: int) -> ModelProto:
    """A chain of ``nodes`` nodes on (1, 8, 14, 14) tensors."""
    weights = numpy_helper.from_array(np.zeros((8, 8, 1, 1), np.float32), "weights")
    scales = numpy_helper.from_array(np.ones(4, np.float32), "scales")
    made, last = [], "input"
    for index in range(0, nodes, 4):
        names = [f"{kind}_{index}" for kind in ("conv", "gate", "product", "resize")]
        made.append(helper.make_node("Conv", [last, "weights"], [names[0]], name=names[0]))
        made.append(helper.make_node("Sigmoid", [names[0]], [names[1]], name=names[1]))
        made.append(helper.make_node("Mul", [names[0], names[1]], [names[2]], name=names[2]))
        made.append(helper.make_node("Resize", [names[2], "", "scales"], [names[3]], name=names[3], mode="linear"))
        last = names[3]
    shape = [1, 8, 14, 14]
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        [weights, scales],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
