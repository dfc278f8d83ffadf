"""A copy of a static graph that takes one sample at a time, to hold its batches against.

The batch is followed from the inputs: the axis of each value along which the samples lie. A constant that states its
extent (the target of a Reshape, an Expand or a Resize) is restated where the arithmetic proves which of its numbers
that is; where it does not, or where samples are taken apart, there is no copy, and the reason is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir

from csa_deploy.errors import UsageError
from csa_deploy.graph.facts import add_initializer, constant_tensor
from csa_deploy.graph.names import Names
from csa_deploy.graph.operators import QUANTIZERS
from csa_deploy.graph.rules import constants
from csa_deploy.graph.shapes import editable, infer_shapes, static_shape

_APART = ("Concat", "Gather", "GatherElements", "Slice", "Split")  # along the batch they take samples apart
_REDUCES = ("ArgMax", "ArgMin", "TopK")


def of_one_sample(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """A copy for batch 1, and how many stated extents it changes.

    Raises:
        UsageError: the graph does not tell how its batch passes; the message is the reason.
    """
    view = editable(model)
    if any(node.op_type in ("Constant", "Shape") for node in view.graph):
        constants.RULE.apply(view)  # extents may be computed
    infer_shapes(view)
    copy = _Copy(view)
    for node in list(view.graph):
        copy.follow(node)
    for value in view.graph.outputs:
        if copy.axis.get(value) != 0:
            raise UsageError(f"'{value.name}' has no batch that could be followed")
    proto = ir.to_proto(view)
    del proto.graph.value_info[:]
    for declared in (*proto.graph.input, *proto.graph.output):
        declared.type.tensor_type.shape.dim[0].dim_value = 1
    return proto, copy.changed


class _Copy:
    """The graph while the batch is followed through it.

    Attributes:
        batch: samples of one inference.
        axis: by value the axis of the samples; a value that is the same for all of them has none.
        changed: extents restated so far.
    """

    def __init__(self, view: ir.Model) -> None:
        self.graph = view.graph
        self.names = Names(view.graph)
        self.batch = (static_shape(view.graph.inputs[0]) or (0,))[0]
        self.axis: dict[ir.Value, int] = dict.fromkeys(view.graph.inputs, 0)
        self.changed = 0

    def follow(self, node: ir.Node) -> None:
        """State where the batch of a node's outputs lies, and restate what names its extent."""
        data = next((v for v in node.inputs if v is not None and v in self.axis), None)
        if data is None:
            return
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            raise UsageError(f"{node.op_type} '{node.name}' has graphs inside")
        passes = _PASSES.get(node.op_type, _Copy._elementwise)
        for output in node.outputs:
            if output.name and (axis := passes(self, node, data, output)) is not None:
                self.axis[output] = axis

    def _elementwise(self, node: ir.Node, data: ir.Value, output: ir.Value) -> int | None:
        """Axes are aligned from the last one on; a constant that differs from sample to sample has no part for one."""
        after = self._shape(output)
        places = {len(after) - len(self._shape(v)) + self.axis[v] for v in node.inputs if v in self.axis}
        if len(places) != 1:
            raise UsageError(f"{node.op_type} '{node.name}' meets batches on different axes")
        place = places.pop()
        if place >= len(after) or after[place] != self._shape(data)[self.axis[data]]:
            raise UsageError(f"the batch ends in {node.op_type} '{node.name}'")
        if node.op_type not in QUANTIZERS and not _has_weights(node):
            for index, value in enumerate(node.inputs):
                if value is not None and value not in self.axis:
                    self._of_one(node, index, value, place - len(after), after[place])
        return place

    def _of_one(self, node: ir.Node, index: int, value: ir.Value, from_end: int, extent: int) -> None:
        tensor, shape = constant_tensor(value), static_shape(value) or ()
        if len(shape) < -from_end or shape[from_end] != extent:
            return
        samples = None if tensor is None else np.split(tensor.numpy(), self.batch, axis=len(shape) + from_end)
        if samples is None or not all(np.array_equal(samples[0], other) for other in samples[1:]):
            raise UsageError(f"'{value.name}' of {node.op_type} '{node.name}' differs from sample to sample")
        self._restate(node, index, np.ascontiguousarray(samples[0]))

    def _apart(self, node: ir.Node, data: ir.Value, output: ir.Value) -> int | None:
        if node.op_type == "Slice":
            given = constant_tensor(node.inputs[3]) if len(node.inputs) > 3 else None
            axes = None if given is None else given.numpy().reshape(-1).tolist()
        else:
            axes = [node.attributes.get_int("axis", 0)]
        rank, axis = len(self._shape(data)), self.axis[data]
        if axes is None or axis in {int(a) % rank for a in axes}:
            raise UsageError(f"{node.op_type} '{node.name}' takes samples apart")
        moved = len(self._shape(output)) - rank if axes[0] % rank < axis else 0  # of a Gather by a scalar or a matrix
        return axis + moved

    def _reduces(self, node: ir.Node, data: ir.Value, output: ir.Value) -> int:
        rank, axis = len(self._shape(data)), self.axis[data]
        axes = node.attributes.get_ints("axes", None) or ()
        if len(node.inputs) > 1 and node.op_type not in _REDUCES and (given := constant_tensor(node.inputs[1])):
            axes = given.numpy().reshape(-1).tolist()
        if node.op_type in _REDUCES:
            axes = [node.attributes.get_int("axis", -1 if node.op_type == "TopK" else 0)]
        over = {int(a) % rank for a in axes} or set(range(rank))
        if axis in over:
            raise UsageError(f"{node.op_type} '{node.name}' is over the samples")
        keeps = node.op_type == "TopK" or _flag(node, "keepdims", default=True)
        return axis if keeps else axis - sum(a < axis for a in over)

    def _transpose(self, node: ir.Node, data: ir.Value, output: ir.Value) -> int:
        order = node.attributes.get_ints("perm", None) or range(len(self._shape(data)))[::-1]
        return list(order).index(self.axis[data])

    def _reshape(self, node: ir.Node, data: ir.Value, output: ir.Value) -> int:
        """In row-major order the batch goes to the axis before which there are as many elements as before it was."""
        before, after = self._shape(data), self._shape(output)
        outside = math.prod(before[: self.axis[data]])
        places = [i for i, e in enumerate(after) if math.prod(after[:i]) == outside and e % self.batch == 0]
        if not places:
            raise UsageError(f"{node.op_type} '{node.name}' does not keep the samples apart")
        place = places[0]
        if node.op_type == "Reshape":
            target = None if (tensor := constant_tensor(node.inputs[1])) is None else tensor.numpy().copy()
            if target is not None and target[place] > 0:
                target[place] //= self.batch
                self._restate(node, 1, target)
        return place

    def _stated(self, node: ir.Node, data: ir.Value, output: ir.Value) -> int:
        """Expand and Resize to a stated shape."""
        index = 1 if node.op_type == "Expand" else 3
        after = self._shape(output)
        place = len(after) - len(self._shape(data)) + self.axis[data]
        sizes = constant_tensor(node.inputs[index]) if len(node.inputs) > index else None
        if sizes is not None:
            target = sizes.numpy().copy()
            at = len(target) - len(after) + place
            if at >= 0 and target[at] == self._shape(data)[self.axis[data]]:
                target[at] //= self.batch
                self._restate(node, index, target)
        return place

    def _matmul(self, node: ir.Node, data: ir.Value, output: ir.Value) -> int:
        """A batch of matrices keeps its axis; of rows too, where it is not what is summed over."""
        rank = len(self._shape(output))
        places = {rank - len(self._shape(v)) + self.axis[v] for v in node.inputs if v in self.axis}
        summed = data is node.inputs[0] and self.axis[data] == len(self._shape(data)) - 1
        transposed = node.op_type == "Gemm" and _flag(node, "transA")
        if len(places) != 1 or summed or transposed or data is not node.inputs[0]:
            raise UsageError(f"{node.op_type} '{node.name}' sums over the samples, or does not tell")
        return places.pop()

    def _normalized(self, node: ir.Node, data: ir.Value, output: ir.Value) -> int | None:
        """Softmax and norms, each along stated axes."""
        rank, axis = len(self._shape(data)), self.axis[data]
        training = node.op_type == "BatchNormalization" and _flag(node, "training_mode")
        first = node.attributes.get_int("axis", -1) % rank
        layer = node.op_type == "LayerNormalization" and axis >= first
        softmax = node.op_type in ("Softmax", "LogSoftmax", "LpNormalization") and axis == first
        if training or layer or softmax or (axis and node.op_type.endswith("hNormalization")):
            raise UsageError(f"{node.op_type} '{node.name}' is over the samples")
        return axis if output is node.outputs[0] else None

    def _shape(self, value: ir.Value) -> tuple[int, ...]:
        shape = static_shape(value)
        if shape is None:
            raise UsageError(f"the shape of '{value.name}' is not known")
        return shape

    def _restate(self, node: ir.Node, index: int, array: np.ndarray) -> None:
        value = add_initializer(self.graph, self.names.unused(f"{node.name}_of_one"), array)
        node.replace_input_with(index, value)
        self.changed += 1


def _flag(node: ir.Node, name: str, *, default: bool = False) -> bool:
    return bool(node.attributes[name].as_int()) if name in node.attributes else default


def _has_weights(node: ir.Node) -> bool:
    """Whether inputs but the first are parameters whose axes are no axes of the data."""
    return node.op_type.startswith(("Conv", "Batch", "Instance", "Group", "QLinear", "Pad", "Clip", "PRelu"))


_Passage = Callable[[_Copy, ir.Node, ir.Value, ir.Value], int | None]
_PASSES: dict[str, _Passage] = {
    **dict.fromkeys(_APART, _Copy._apart),
    **dict.fromkeys(_REDUCES, _Copy._reduces),
    **dict.fromkeys(
        (f"Reduce{kind}" for kind in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")),
        _Copy._reduces,
    ),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _Copy._reshape),
    **dict.fromkeys(("Expand", "Resize"), _Copy._stated),
    **dict.fromkeys(("MatMul", "Gemm"), _Copy._matmul),
    **dict.fromkeys(
        ("BatchNormalization", "LayerNormalization", "LogSoftmax", "LpNormalization", "Softmax"), _Copy._normalized
    ),
    "Transpose": _Copy._transpose,
    "Shape": lambda copy, node, data, output: None,
}
