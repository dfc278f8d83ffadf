"""A cost model of a network's latency: per node the longer of computing and moving bytes.

It is an estimate and called one everywhere: it knows neither fusions nor launch times nor the tactics of a builder.
It exists to rank layers by what INT8 saves; where a GPU is, latencies are measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from csa_deploy.graph.operators import Trait, having
from csa_deploy.graph.shapes import inferred, static_shape
from csa_deploy.graph.stats import node_macs

_FREE = having(Trait.VIEWS) | {"Constant"}


@dataclass(frozen=True)
class DevicePeaks:
    """Peak figures of a device: multiply-accumulates per second by precision, bytes per second."""

    name: str
    int8: float
    fp16: float
    fp32: float
    bandwidth: float


# The GPU of Jetson AGX Orin 64 GB at its highest clock, from NVIDIA's technical brief: 170 INT8 TOPS with sparsity, so
# 85 dense, half of that in FP16, 5.3 TFLOPS in FP32 (two operations to a multiply-accumulate), and 204.8 GB/s.
ORIN = DevicePeaks("Jetson AGX Orin 64 GB", int8=42.5e12, fp16=21.3e12, fp32=2.65e12, bandwidth=204.8e9)
_BYTES = {"int8": 1, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class Work:
    """Operations of a node and the values that it reads and writes; None where they are not known."""

    macs: int | None
    values: int | None

    def seconds(self, precision: str, device: DevicePeaks = ORIN) -> float | None:
        """Estimated time in a precision; None where operations or values are not known."""
        if self.macs is None or self.values is None:
            return None
        peak: float = getattr(device, precision)
        return max(self.macs / peak, self.values * _BYTES[precision] / device.bandwidth)

    def saved(self, rest: str, device: DevicePeaks = ORIN) -> float | None:
        """Seconds that INT8 saves against another precision, estimated; None likewise."""
        slow, fast = self.seconds(rest, device), self.seconds("int8", device)
        return None if slow is None or fast is None else slow - fast


def elements(value: ir.Value) -> int | None:
    """Number of elements of a value, None where its shape is not known."""
    shape = static_shape(value)
    return None if shape is None else math.prod(shape)


def moved(values: Iterable[ir.Value | None]) -> int | None:
    """Elements of floating-point values together; None where one's type or shape is not known."""
    total = 0
    for value in values:
        if value is None or not value.name or not (value.dtype is None or value.dtype.is_floating_point()):
            continue
        count = elements(value) if value.dtype is not None else None
        if count is None:
            return None
        total += count
    return total


def work_of(node: ir.Node) -> Work:
    """Operations of a node of a graph with shapes, and the values that it moves."""
    return Work(node_macs(node), moved((*node.inputs, *node.outputs)))


def node_costs(model: onnx.ModelProto) -> dict[str, Work]:
    """Cost of every node by name, or by its first output where it has none."""
    nodes = (node for node in inferred(model).graph if node.op_type not in _FREE)
    return {node.name or str(node.outputs[0].name): work_of(node) for node in nodes}


def not_known(costs: Mapping[str, Work]) -> list[str]:
    """Nodes whose cost is not known."""
    return [name for name, cost in costs.items() if cost.macs is None or cost.values is None]


def latency(costs: Mapping[str, Work], int8: frozenset[str], rest: str = "fp16") -> float | None:
    """Estimated seconds with the named nodes in INT8 and the others in ``rest``; None where a cost is not known."""
    total = 0.0
    for name, cost in costs.items():
        seconds = cost.seconds("int8" if name in int8 else rest)
        if seconds is None:
            return None
        total += seconds
    return total


def milliseconds(seconds: float | None) -> float | None:
    """The same in milliseconds."""
    return None if seconds is None else 1000 * seconds
