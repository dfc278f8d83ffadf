"""Where DLA wants Q/DQ: on every tensor that it reads or writes, with one scale where it computes with one.

DLA compiles a part of the network as one, and expects a scale at every tensor of it; a tensor without one may put the
part into FP16, or on the GPU (NVIDIA/Model-Optimizer, pull request 1661). Which nodes run there is asked of the rules
of the scope. Tensors share a scale, the largest of their own, where

- NvInfer.h demands it of INT8 on DLA: both sides of a pooling, and the operands of a sum, difference, maximum or
  minimum. It says so of products, too; NVIDIA's translator of Q/DQ for DLA gives a gate and its signal their own, and
  so is it done here (a gate of the signal's scale would have a few steps only);
- the guide demands it: all inputs of a concatenation and its output;
- numbers only move (Reshape, Transpose, Slice, nearest Resize, ...): another scale would round them again.

A ReLU or a clipped ReLU takes the scale of its output on both sides: what it cuts off needs no range, and rounding
before it or after it is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
import onnx_ir as ir

from csa_deploy.errors import UsageError
from csa_deploy.graph.facts import is_constant, opset_of
from csa_deploy.graph.operators import MOVES, WEIGHTED
from csa_deploy.graph.shapes import inferred
from csa_deploy.precision.int8 import rest_of
from csa_deploy.precision.qdq_placement import QdqPlacement, SharedScale, place, weighted
from csa_deploy.records.precision import DlaGraph, Layer, OffDla
from csa_deploy.restricted.check import check
from csa_deploy.units import counted

SCOPE = "dla-orin-11"
"""Scope whose rules say which nodes run on DLA, and the only one whose builds take Q/DQ there."""

_CUTS = ("Relu", "Clip")
_ONE_SCALE = ("AveragePool", "MaxPool", "GlobalMaxPool", "Concat", *MOVES)
_OPERANDS = ("Add", "Sub", "Max", "Min")


def place_for_dla(model: onnx.ModelProto, half_io: bool = False) -> tuple[QdqPlacement, DlaGraph]:
    """Q/DQ for a network of which DLA takes what it can, and what that is.

    What the GPU runs gets the Q/DQ of :func:`place`.

    Args:
        model: FP32 graph.
        half_io: whether the network's inputs and outputs become FP16.

    Raises:
        UsageError: nothing runs on DLA, the opset has no Q/DQ of FP16, or see :func:`place`.
    """
    if rest_of(model) != "fp16":
        raise UsageError(
            f"DLA of TensorRT 11 computes what the graph states, and opset {opset_of(model)} has no Q/DQ of FP16",
            fix="export for it: --tensorrt 11",
        )
    on_gpu = place(model)
    placement = check(model, [SCOPE]).scopes[0].placement
    assert placement is not None  # the scope is one of DLA
    if not placement.dla:
        first = placement.fallbacks[0]
        raise UsageError(
            f"nothing of the network runs on DLA: {first.node} ({first.op}): {first.why}",
            fix=f"`csa-deploy check --scope {SCOPE} --fix` repairs what can be; or leave out --target-dla",
        )
    graph = inferred(model).graph
    names = frozenset(placement.dla)
    nodes = [node for node in graph if node.name in names]
    layers = {str(node.name): _layer(node) for node in nodes}
    others = {layer.name: layer for layer in on_gpu.layers if layer.name not in layers}
    every = {**others, **layers}
    ordered = tuple(every[str(node.name)] for node in graph if node.name in every)
    refused = {name: why for name, why in on_gpu.refused.items() if name not in layers}
    found = QdqPlacement(ordered, refused, tuple(_shared(nodes)))
    off = tuple(OffDla(item.node, item.op, f"{item.rule}: {item.why}") for item in placement.fallbacks)
    shared = tuple(group.members for group in found.scales)
    return found, DlaGraph(SCOPE, len(nodes), off, len(found.tensors), shared, "fp16" if half_io else "fp32")


def of_dla(dla: DlaGraph, method: str) -> Iterator[str]:
    """What a user must know of an INT8 graph for DLA whose thresholds a method chose."""
    every = dla.nodes + len(dla.off)
    shared = f"{counted(len(dla.shared), 'group')} of which share one"
    yield (
        f"for DLA ({dla.scope}): {dla.nodes} of {counted(every, 'node')} run there by its rules, "
        f"{counted(dla.tensors, 'tensor')} have a scale, {shared}"
    )
    if dla.ranges:
        stated = ", ".join(f"{name} {db:.1f}" for name, db in dla.ranges.items())
        yield f"ranges by {method}; signal-to-noise ratio in dB of the worst output on calibration images: {stated}"
    for item in dla.off:
        yield f"{item.node} ({item.op}) runs on the GPU: {item.reason}"
    yield (
        f"DLA rounds {dla.rounding}; the accuracy stated here is ONNX Runtime's, which rounds halves to even: single "
        "INT8 steps differ where a value lies in the middle of two"
    )
    if dla.io == "fp32":
        yield "inputs and outputs stay FP32: the GPU converts them before and after DLA; --fp16-io leaves that out"


def _layer(node: ir.Node) -> Layer:
    """A node whose tensors are all quantized."""
    read = {i: str(value.name) for i, value in enumerate(node.inputs) if value is not None and _is_signal(value)}
    written = tuple(str(value.name) for value in node.outputs if _is_signal(value))
    found = weighted(node) if node.op_type in WEIGHTED else None
    weight, axis = (found.weight, found.axis) if isinstance(found, Layer) else (None, 0)
    return Layer(str(node.name), node.op_type, read, weight, axis, written)


def _is_signal(value: ir.Value) -> bool:
    """Whether a value is FP32 that is computed at run time."""
    return value.dtype == ir.DataType.FLOAT and not is_constant(value)


def _shared(nodes: Sequence[ir.Node]) -> Iterator[SharedScale]:
    """Groups of at least two tensors with one scale."""
    names = {node.name for node in nodes}
    groups: dict[ir.Value, list[ir.Value]] = {}
    for node in nodes:
        tied = _tied(node)
        merged = list(dict.fromkeys(member for value in tied for member in groups.get(value, [value])))
        groups.update(dict.fromkeys(merged, merged))
    for members in {id(members): members for members in groups.values()}.values():
        if len(members) > 1:
            deciding = [value for value in members if not _is_cut_off(value, names)]
            yield SharedScale(*(tuple(str(value.name) for value in values) for values in (members, deciding)))


def _tied(node: ir.Node) -> list[ir.Value]:
    """Tensors of a node that have one scale."""
    read = [value for value in node.inputs if value is not None and _is_signal(value)]
    if node.op_type in _OPERANDS:
        return read
    nearest = node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") == "nearest"
    if node.op_type in _ONE_SCALE or node.op_type in _CUTS or nearest:
        return [*read, *(value for value in node.outputs if _is_signal(value))]
    return []


def _is_cut_off(value: ir.Value, on_dla: set[str | None]) -> bool:
    """Whether a tensor is read by ReLU and clipped ReLU alone, so that its own range does not matter."""
    readers = [user for user, _ in value.uses()]
    return (
        bool(readers) and not value.is_graph_output() and all(r.op_type in _CUTS and r.name in on_dla for r in readers)
    )


def with_every_scale(
    placement: QdqPlacement, thresholds: Mapping[str, float], sizes: Mapping[str, float]
) -> dict[str, float]:
    """Thresholds of all tensors of a placement: shared ones equal, and where calibration found none, what it follows.

    Args:
        placement: of :func:`place_for_dla`.
        thresholds: by calibration.
        sizes: largest value by tensor, of every tensor (:func:`csa_deploy.precision.bounds.complete`).
    """
    return placement.shared({name: thresholds.get(name) or sizes[name] for name in placement.tensors})
