"""A cost model of a network's latency: per node the longer of computing and moving bytes.

It is an estimate and called one everywhere: it knows neither fusions nor launch times nor the tactics of a builder.
It exists to rank layers by what INT8 saves; where a GPU is, latencies are measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from csa_deploy.graph.shapes import inferred, static_shape
from csa_deploy.graph.stats import node_macs

_COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVES_NOTHING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant")


@dataclass(frozen=True)
class Device:
    """Peak figures of a device: multiply-accumulates per second by precision, bytes per second."""

    name: str
    int8: float
    fp16: float
    fp32: float
    bandwidth: float


# The GPU of Jetson AGX Orin 64 GB at its highest clock, from NVIDIA's technical brief: 170 INT8 TOPS with sparsity, so
# 85 dense, half of that in FP16, 5.3 TFLOPS in FP32 (two operations to a multiply-accumulate), and 204.8 GB/s.
ORIN = Device("Jetson AGX Orin 64 GB", int8=42.5e12, fp16=21.3e12, fp32=2.65e12, bandwidth=204.8e9)
_BYTES = {"int8": 1, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class NodeCost:
    """Operations of a node and the values that it reads and writes."""

    macs: int
    values: int

    def seconds(self, precision: str, device: Device = ORIN) -> float:
        """Estimated time in a precision."""
        peak: float = getattr(device, precision)
        return max(self.macs / peak, self.values * _BYTES[precision] / device.bandwidth)


def node_costs(model: onnx.ModelProto) -> dict[str, NodeCost]:
    """Cost of every node by name; nodes of unknown shape cost nothing."""
    found = {}
    for node in inferred(model).graph:
        if node.op_type in _MOVES_NOTHING or not node.name:
            continue
        values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.dtype == ir.DataType.FLOAT]
        moved = sum(math.prod(static_shape(v) or (0,)) for v in values)
        macs = node_macs(node) if node.op_type in _COMPUTE else 0
        found[node.name] = NodeCost(macs or 0, moved)
    return found


def latency(costs: dict[str, NodeCost], int8: frozenset[str], rest: str = "fp16") -> float:
    """Estimated seconds with the named nodes in INT8 and the others in ``rest``."""
    return sum(cost.seconds("int8" if name in int8 else rest) for name, cost in costs.items())
