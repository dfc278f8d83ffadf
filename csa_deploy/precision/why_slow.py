"""Why a quantized graph is not faster: what keeps its parts from running in INT8, each with an estimated cost.

Reads any graph with QuantizeLinear and DequantizeLinear, also those of other tools. The costs are those of the cost
model (see :mod:`.cost`): they say what to look at first, not what a profiler would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx
import onnx_ir as ir

from csa_deploy.errors import UsageError
from csa_deploy.graph.operators import GATES, WEIGHTED, Trait, having
from csa_deploy.graph.shapes import inferred, static_shape
from csa_deploy.precision.cost import ORIN, DevicePeaks, Work, elements, work_of
from csa_deploy.units import counted

_FUSES = having(Trait.INT8)
_TILE = 16
"""Channels that INT8 tensor cores take at a time."""


@dataclass(frozen=True)
class Hazard:
    """One cause.

    Attributes:
        hazard: what is there.
        node: name of the node.
        seconds: estimated cost; None where a shape is not known.
        mitigation: what to do.
    """

    hazard: str
    node: str
    seconds: float | None
    mitigation: str


@dataclass(frozen=True)
class Total:
    """All findings of one hazard.

    Attributes:
        nodes: how many there are.
        seconds: estimated cost of those where it is known.
        unknown: nodes of which it is not.
        mitigation: what to do.
    """

    nodes: int
    seconds: float
    unknown: int
    mitigation: str

    @property
    def cost(self) -> str:
        """The cost in words."""
        said = [f"unknown for {counted(self.unknown, 'node')}"] if self.unknown else []
        known = [f"{1e6 * self.seconds:.1f} us"] if self.nodes > self.unknown else []
        return ", ".join(known + said)


@dataclass(frozen=True)
class Diagnosis:
    """All causes in a graph, the most expensive first; of its layers with weights, how many compute in INT8."""

    findings: tuple[Hazard, ...]
    layers: int
    int8_layers: int
    device: str

    def by_hazard(self) -> dict[str, Total]:
        """Hazard -> its findings together; the most expensive first."""
        totals: dict[str, Total] = {}
        for finding in self.findings:
            old = totals.get(finding.hazard, Total(0, 0.0, 0, finding.mitigation))
            known = finding.seconds is not None
            seconds = old.seconds + (finding.seconds or 0.0)
            totals[finding.hazard] = replace(
                old, nodes=old.nodes + 1, seconds=seconds, unknown=old.unknown + (not known)
            )
        return dict(sorted(totals.items(), key=lambda item: -item[1].seconds))

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "device": self.device,
            "layers": self.layers,
            "int8_layers": self.int8_layers,
            "findings": [asdict(f) for f in self.findings],
        }


def diagnose(model: onnx.ModelProto, device: DevicePeaks = ORIN) -> Diagnosis:
    """Look for what keeps a quantized graph from being faster.

    Raises:
        UsageError: the graph holds no QuantizeLinear.
    """
    graph = inferred(model).graph
    nodes = list(graph)
    if not any(node.op_type == "QuantizeLinear" for node in nodes):
        raise UsageError("the graph is not quantized: it holds no QuantizeLinear", fix="make one: csa-deploy quantize")
    found: list[Hazard] = []
    layers = int8 = 0
    for node in nodes:
        if node.op_type in WEIGHTED:
            missing = _float_inputs(node)
            layers += 1
            int8 += not missing
            found += _island(node, missing, device) if missing else _channels(node, device)
        elif node.op_type == "DequantizeLinear":
            found += _unfused(node, device)
        elif node.op_type == "QuantizeLinear":
            found += _border(node, device)
        elif node.op_type in GATES:
            found += _gate(node, device)
        elif node.op_type == "Add":
            found += _float_skip(node, device)
    return Diagnosis(tuple(sorted(found, key=lambda f: (-(f.seconds or 0.0), f.node))), layers, int8, device.name)


def _float_inputs(node: ir.Node) -> list[str]:
    """Data and weight inputs that do not come from a DequantizeLinear."""
    return [str(v.name) for v in node.inputs[:2] if v is not None and not _is_dequantized(v)]


def _is_dequantized(value: ir.Value) -> bool:
    maker = value.producer()
    return maker is not None and maker.op_type == "DequantizeLinear"


def _island(node: ir.Node, missing: list[str], device: DevicePeaks) -> Iterator[Hazard]:
    cost = work_of(node)
    yield Hazard(
        "float island: a layer with weights that computes in floating point",
        str(node.name),
        cost.saved("fp16", device),
        f"quantize its inputs (here {missing[0]}), or see why the search returned it",
    )


def _channels(node: ir.Node, device: DevicePeaks) -> Iterator[Hazard]:
    """Layers whose channels do not fill the tensor cores' tiles; depth-wise ones do not use them at all."""
    weight = static_shape(node.inputs[1])
    if weight is None or node.op_type != "Conv":
        return
    groups: int = node.attributes.get_int("group", 1) or 1
    outputs, inputs = weight[0], weight[1]
    if groups > 1 and inputs < _TILE:
        more = (_TILE / inputs, 1.0)
        hazard, help_ = "grouped convolution without tensor cores", "none in INT8; wider groups would use them"
    elif outputs % _TILE or (inputs * groups) % _TILE:
        padded = math.ceil(outputs / _TILE) * math.ceil(inputs / _TILE) * _TILE**2 / (outputs * inputs)
        more = (padded, padded**0.5)
        hazard, help_ = "channels no multiple of 16", f"{inputs * groups} -> {outputs}: use multiples of 16 or 32"
    else:
        return
    yield Hazard(hazard, str(node.name), _lost(work_of(node), more, device), help_)


def _lost(cost: Work, more: tuple[float, float], device: DevicePeaks) -> float | None:
    """Seconds that so many times the operations and values cost in INT8."""
    if cost.macs is None or cost.values is None:
        return None
    slower = Work(int(cost.macs * more[0]), int(cost.values * more[1]))
    seconds, least = slower.seconds("int8", device), cost.seconds("int8", device)
    return None if seconds is None or least is None else seconds - least


def _unfused(node: ir.Node, device: DevicePeaks) -> Iterator[Hazard]:
    """Q/DQ before operators that TensorRT does not compute in INT8."""
    readers = [user.op_type for user, _ in node.outputs[0].uses()]
    if node.inputs[0] is None or node.inputs[0].is_initializer() or any(op in _FUSES for op in readers):
        return
    yield Hazard(
        "unfused Q/DQ: rounding without a layer that computes in INT8",
        str(node.name),
        _passes(3, node.outputs[0], device),
        "remove the pair: its reader has no INT8 form in TensorRT",
    )


def _border(node: ir.Node, device: DevicePeaks) -> Iterator[Hazard]:
    """Quantization of what a floating-point operator made, which takes a pass over the tensor of its own."""
    value = node.inputs[0]
    maker = value.producer() if value is not None else None
    if value is None or maker is None or maker.op_type in _FUSES or maker.op_type in ("Relu", "Clip", "Cast"):
        return
    yield Hazard(
        f"reformat border: {maker.op_type} in floating point before an INT8 layer",
        str(node.name),
        _passes(3, value, device),
        "unavoidable behind a gate; elsewhere quantize the operator before it as well",
    )


def _gate(node: ir.Node, device: DevicePeaks) -> Iterator[Hazard]:
    yield Hazard(
        f"gate in floating point: {node.op_type}",
        str(node.name),
        _passes(4, node.outputs[0], device),
        "TensorRT has no INT8 form of it; a ReLU would fuse with the layer before it",
    )


def _float_skip(node: ir.Node, device: DevicePeaks) -> Iterator[Hazard]:
    """An addition that an INT8 layer takes in, and whose other branch it has to read in floating point."""
    branches = [v for v in node.inputs if v is not None and v.producer() is not None]
    if len(branches) != 2 or any(map(_is_dequantized, branches)):
        return
    for branch, skip in (branches, branches[::-1]):
        maker = branch.producer()
        if maker is not None and maker.op_type in WEIGHTED and not _float_inputs(maker) and len(branch.uses()) == 1:
            yield Hazard(
                "addition behind an INT8 layer with its skip branch in floating point",
                str(node.name),
                _passes(1, skip, device),  # a byte more of each value than INT8 has
                "quantize the skip branch alone; a pair on what the layer makes would round for nothing",
            )
            return


def _passes(number: int, value: ir.Value, device: DevicePeaks) -> float | None:
    """Seconds to move so many bytes for each element of a value."""
    count = elements(value)
    return None if count is None else number * count / device.bandwidth
