"""Cross-layer equalization: brings the channels of an activation to one range.

A convolution's output channel may be divided by a factor if whoever reads it multiplies that input channel's weights
by it (Nagel et al., 2019, arXiv 1906.04721, section 4.1). Here a whole group of tensors shares the factors: what lies
between is positively homogeneous (ReLU, pooling, a gate's product) or the sum of a residual stream, all of whose
makers and readers take part. As weights have a scale per output channel, the gain is in the activations, which have
one per tensor; the factors weigh the measured range of a channel against that of the weights that read it, as Xiao et
al. (2022, arXiv 2211.10438) do. Factors are powers of two, which scale FP32 values exactly: outputs keep every bit.

Groups that meet a Clip from 0 to a limit, as ReLU6, are a second step, since that scales with its input only below the
limit. A channel that is enlarged is cut off earlier; factors leave room for :data:`HEADROOM` times the largest value
on the images fitted to, or to the limit itself. Beyond that outputs change, so that powers of two would be of no use
there, and finer factors are taken. See :mod:`csa_deploy.precision.exact_limits` for layers in floating point.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from csa_deploy.graph.facts import add_initializer, constant, is_constant, remove_unused_initializers, weight_array
from csa_deploy.graph.names import Names
from csa_deploy.graph.operators import GATES, ONNX_DOMAINS, Trait, having
from csa_deploy.graph.shapes import editable, inferred, static_shape
from csa_deploy.precision.activations import Feeds, activations
from csa_deploy.units import counted

_HOMOGENEOUS = having(Trait.HOMOGENEOUS)
_SUMS = ("Add", "Sub")
_DENSE_SHARE = 0.5  # of the exponent: the rest goes to the weights
_DEPTHWISE_SHARE = 0.75  # their weights have a scale per channel anyway; 1 fits the images seen, not others
HEADROOM = 1.5
"""Of the largest value of a channel: what the limit of a Clip leaves room for."""
_SMALLEST_WEIGHT = 2.0**-8  # of the largest: weights below it count as that
_LARGEST_FACTOR = 2.0**6


@dataclass(frozen=True)
class ScaleGroup:
    """Tensors that share one factor per channel.

    Attributes:
        tensors: their names.
        makers: convolutions whose outputs they are or that they are summed from.
        readers: convolutions that read them.
        limits: what cuts off the tensors that a Clip makes.
        renamed: equalized tensors have other values than before, so they get these names.
    """

    tensors: tuple[str, ...]
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    limits: Mapping[str, float] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Equalized:
    """A graph with equalized channels.

    Attributes:
        model: the graph.
        limits: by tensor that a Clip makes, what its limit would have to be in each channel to be the one it was.
    """

    model: onnx.ModelProto
    limits: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Groups:
    """What can be equalized, and how many convolutions' outputs cannot, by what bars them."""

    found: tuple[ScaleGroup, ...]
    barred: dict[str, int]

    def describe(self) -> str:
        """One line for people."""
        convolutions = {name for group in self.found for name in (*group.makers, *group.readers)}
        told = f"{counted(len(self.found), 'group')} of tensors between {counted(len(convolutions), 'convolution')}"
        if clipped := sum(len(group.limits) for group in self.found):
            told += f"; a limit cuts off {counted(clipped, 'tensor')}, the same to {HEADROOM:g} times what was seen"
        left = ", ".join(f"{count} at {reason}" for reason, count in self.barred.items())
        return told + (f"; outputs of convolutions that cannot be scaled exactly: {left}" if left else "")


class _Classes:
    """Tensors that must have the same factors, joined step by step (union-find), and what bars a class."""

    def __init__(self) -> None:
        self._parents: dict[ir.Value, ir.Value] = {}
        self._barred: dict[ir.Value, str] = {}

    def root(self, value: ir.Value) -> ir.Value:
        while (parent := self._parents.setdefault(value, value)) is not value:
            value = parent
        return value

    def join(self, *values: ir.Value) -> None:
        first = self.root(values[0])
        for value in values[1:]:
            other = self.root(value)
            if other is not first:
                self._parents[other] = first
                if other in self._barred:
                    self._barred.setdefault(first, self._barred[other])

    def bar(self, value: ir.Value, reason: str) -> None:
        self._barred.setdefault(self.root(value), reason)

    def all(self) -> list[tuple[list[ir.Value], str | None]]:
        members: dict[ir.Value, list[ir.Value]] = {}
        for value in self._parents:
            members.setdefault(self.root(value), []).append(value)
        return [(values, self._barred.get(root)) for root, values in members.items()]


def find_groups(
    model: onnx.ModelProto, quantized: Container[str], *, limited: bool = False, done: Container[str] = ()
) -> Groups:
    """Groups of tensors between convolutions, of which at least one is quantized.

    Args:
        model: FP32 graph with shapes that can be inferred.
        quantized: names of the activations that INT8 rounds.
        limited: also those that meet a limit, if there is one.
        done: tensors that were equalized before, whose groups are left out.
    """
    graph = inferred(model).graph
    classes = _Classes()
    for value in graph.inputs:
        classes.bar(value, "network input")
    for node in graph:
        _constrain(node, classes, limited)
    for value in graph.outputs:
        classes.bar(value, "network output")
    found, barred, names = [], Counter[str](), Names(graph)
    for values, reason in classes.all():
        makers = [str(p.name) for v in values if (p := v.producer()) is not None and _scalable(p)]
        readers = [str(n.name) for v in values for n, index in v.uses() if index == 0 and _scalable(n)]
        if makers and reason:
            barred[reason] += len(makers)
        elif makers and readers and any(v.name in quantized for v in values):
            limits = {str(v.name): _limit(p) for v in values if (p := v.producer()) is not None and _limit(p)}
            tensors = tuple(str(v.name) for v in values)
            if not any(name in done for name in tensors):
                renamed = {name: names.unused(f"{name}_equalized") for name in tensors}
                found.append(ScaleGroup(tensors, tuple(makers), tuple(readers), limits, renamed))
    if limited and not any(group.limits for group in found):
        found = []  # those of the exact kind have had their turn
    return Groups(tuple(found), dict(sorted(barred.items())))


def _constrain(node: ir.Node, classes: _Classes, limited: bool) -> None:
    """Say which values of a node share their factors and which can have none."""
    values = [v for v in node.inputs if v is not None and not is_constant(v)]
    op = node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}.{node.op_type}"  # of which nothing is known
    gates = [v for v in values if (p := v.producer()) is not None and p.op_type in GATES]
    if _scalable(node):
        classes.root(node.outputs[0])
        classes.root(values[0])
    elif (op in _HOMOGENEOUS or (limited and _limit(node))) and len(values) == len(node.outputs) == 1:
        classes.join(node.outputs[0], values[0])
    elif op in _SUMS and len(values) == 2 and _of_one_shape(*values):
        classes.join(node.outputs[0], *values)
    elif op == "Mul" and len(values) == 2 and len(gates) == 1 and _gates_all(node, values, gates[0]):
        classes.join(node.outputs[0], next(v for v in values if v is not gates[0]))
        classes.bar(gates[0], "a gate")
    else:
        captured = [v for attribute in node.attributes.values() for v in _captured(attribute)]
        for value in (*values, *captured, *node.outputs):
            classes.bar(value, op)


def _limit(node: ir.Node) -> float:
    """Upper bound of a Clip whose lower one is 0 and both constants, as of ReLU6; 0 for all else."""
    if node.op_type != "Clip" or node.domain not in ONNX_DOMAINS or len(node.inputs) != 3:
        return 0.0
    low, high = (constant(v) for v in node.inputs[1:])
    return max(float(high), 0.0) if low is not None and high is not None and not low.any() else 0.0


def _of_one_shape(first: ir.Value, second: ir.Value) -> bool:
    """Whether two values are known to have the same shape, so that none is broadcast."""
    return static_shape(first) is not None and static_shape(first) == static_shape(second)


def _gates_all(node: ir.Node, values: list[ir.Value], gate: ir.Value) -> bool:
    """Whether a product has the shape of what is gated: a gate with more channels would make more of them."""
    return _of_one_shape(next(v for v in values if v is not gate), node.outputs[0])


def _captured(attribute: Any) -> Iterable[ir.Value]:
    """Values that a subgraph reads, those of the outer graph among them."""
    if attribute.type != ir.AttributeType.GRAPH:
        return []
    inner = ir.traversal.RecursiveGraphIterator(attribute.as_graph())
    return [v for node in inner for v in node.inputs if v is not None]


def _scalable(node: ir.Node) -> bool:
    """Whether a node is a convolution whose weight and bias may be rewritten, all in FP32."""
    if node.op_type != "Conv" or node.domain not in ONNX_DOMAINS or node.inputs[0] is None:
        return False
    arrays = [constant(v) for v in node.inputs[1:] if v is not None]
    return not is_constant(node.inputs[0]) and all(a is not None and a.dtype == np.float32 for a in arrays)


def largest_by_channel(
    model: onnx.ModelProto, groups: Groups, samples: Iterable[Feeds], *, threads: int | None = None
) -> dict[str, np.ndarray]:
    """Largest absolute value by tensor of the groups and channel, over samples."""
    names = [name for group in groups.found for name in group.tensors]
    found: dict[str, np.ndarray] = {}
    for values in activations(model, names, samples, threads=threads):
        for name in names:
            array = np.abs(values[name])
            largest = array.max(axis=tuple(axis for axis in range(array.ndim) if axis != 1))
            found[name] = np.maximum(found.get(name, 0.0), largest)
    return found


def equalize(
    model: onnx.ModelProto, groups: Groups, largest: Mapping[str, np.ndarray], quantized: Container[str]
) -> Equalized:
    """The graph with equalized channels; without a limit its outputs are the same to the bit, short of overflow.

    Args:
        model: FP32 graph; not changed.
        groups: from :func:`find_groups`.
        largest: from :func:`largest_by_channel`.
        quantized: names of the activations that INT8 rounds.
    """
    view = editable(model)
    nodes = {str(node.name): node for node in view.graph}
    values = {str(value.name): value for node in view.graph for value in node.outputs}
    names, limits = Names(view.graph), dict[str, np.ndarray]()
    for group in groups.found:
        readers = [nodes[name] for name in group.readers]
        factors = _factors([largest[name] for name in group.tensors if name in quantized], readers)
        if group.limits:
            room = [HEADROOM * largest[name] / limit for name, limit in group.limits.items()]
            factors = np.asarray(np.maximum(factors, np.minimum(np.max(room, axis=0), 1.0)), np.float32)
        else:
            factors = np.exp2(np.rint(np.log2(factors)))
        for name in group.makers:
            node = nodes[name]
            _rescale(
                view.graph, names, node, 1, 1 / factors.reshape(-1, *[1] * (weight_array(node.inputs[1]).ndim - 1))
            )
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                _rescale(view.graph, names, node, 2, 1 / factors)
        for node in readers:
            _rescale(view.graph, names, node, 1, _for_inputs(node, factors))
        for name, new in group.renamed.items():
            values[name].name = new
        limits |= {group.renamed[name]: limit / factors for name, limit in group.limits.items() if factors.min() < 1}
    remove_unused_initializers(view.graph)
    return Equalized(ir.to_proto(view), limits)


def _factors(ranges: list[np.ndarray], readers: list[ir.Node]) -> np.ndarray:
    """What the makers' outputs are divided by, per channel; the largest of them 1."""
    channels = np.max([r / r.max() for r in ranges if r.max() > 0] or [np.ones_like(ranges[0])], axis=0)
    dense = [node for node in readers if _groups(node) == 1]  # a depthwise weight has a scale per channel anyway
    weights = np.zeros_like(channels)
    for node in dense:
        weight = np.abs(weight_array(node.inputs[1]))
        weights = np.maximum(weights, weight.max(axis=(0, *range(2, weight.ndim))) / (weight.max() or 1.0))
    wanted = channels ** (_DENSE_SHARE if dense else _DEPTHWISE_SHARE)
    if dense:
        wanted = wanted / np.maximum(weights, _SMALLEST_WEIGHT) ** (1 - _DENSE_SHARE)
    wanted = np.where(channels > 0, wanted, wanted.max())  # a channel that was always zero needs no room
    return np.asarray(np.maximum(wanted / wanted.max(), 1 / _LARGEST_FACTOR), np.float32)


def _for_inputs(node: ir.Node, factors: np.ndarray) -> np.ndarray:
    """Factors of the input channels, in a shape that multiplies the weight."""
    outputs, per_group, *kernel = weight_array(node.inputs[1]).shape
    groups = _groups(node)
    shared = np.repeat(factors.reshape(groups, per_group), outputs // groups, axis=0)
    return shared.reshape(outputs, per_group, *[1] * len(kernel))


def _groups(node: ir.Node) -> int:
    return int(node.attributes.get_int("group", 1) or 1)


def _rescale(graph: ir.Graph, names: Names, node: ir.Node, index: int, factors: np.ndarray) -> None:
    """Give a node a rescaled constant of its own: others may read the one it had."""
    array = np.asarray(weight_array(node.inputs[index]) * factors, np.float32)
    name = names.unused(f"{node.name}_equalized_{('', 'weight', 'bias')[index]}")
    node.replace_input_with(index, add_initializer(graph, name, array))
