"""How the static check scales: CPU seconds and memory over graphs of 100, 1,000 and 10,000 nodes.

Run ``python benchmarks/check_scaling.py``; prints a table and the growth per node. Sizes are the repetitions of a
convolution, a sigmoid, a product and a Resize, the mix of a CSA network.
"""

from __future__ import annotations

import time

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from csa_deploy.memory import peak_memory
from csa_deploy.restricted.check import check

SIZES = (100, 1_000, 10_000)


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


def measure(nodes: int) -> float:
    """CPU seconds of one check of all scopes; the best of three."""
    model = chain(nodes)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        check(model)
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    """Print the table."""
    measure(SIZES[0])  # loads the rule packs
    seconds = {nodes: measure(nodes) for nodes in SIZES}
    print("nodes   CPU s   microseconds per node")
    for nodes, taken in seconds.items():
        print(f"{nodes:6d}  {taken:6.3f}  {taken / nodes * 1e6:6.1f}")
    growth = seconds[SIZES[-1]] / seconds[SIZES[1]]
    print(f"10 times the nodes take {growth:.1f} times the time (1,000 -> 10,000)")
    print(f"peak memory of the process: {peak_memory() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
