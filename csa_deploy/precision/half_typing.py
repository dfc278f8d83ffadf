"""The pass behind :func:`csa_deploy.precision.fp16.to_fp16`: it types a graph node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import add_initializer
from csa_deploy.graph.names import Names
from csa_deploy.precision.fp16_ports import Ports, half_ports
from csa_deploy.precision.half_chains import LARGEST, chained, unheld

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_SMALLEST_NORMAL = float(np.finfo(np.float16).tiny)
# Normal numbers are rounded by at most 2**-11; a larger root-mean-square error comes from values below them.
_LARGEST_LOSS = 2.0**-10


class HalfTyping:
    """Types the main graph of a model in FP16, in place.

    Args:
        model: constants are initializers and value types are known.
        half_io: whether the network's inputs and outputs become FP16 too.
        keep: nodes to keep in FP32 by name, with the reason.
        largest: measured largest absolute value by activation, where there are measurements.
    """

    def __init__(
        self, model: ir.Model, *, half_io: bool, keep: Mapping[str, str], largest: Mapping[str, float]
    ) -> None:
        self.kept: list[tuple[ir.Node, str]] = []
        self.nodes = self.casts = self.weights = self.underflowed = self.subnormal = self.overflowing = 0
        self.largest_weight = 0.0
        self._graph = model.graph
        self._names = Names(model.graph)
        self._half_io = half_io
        self._halved: set[ir.Value] = set()
        self._versions: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._plan = self._planned(keep, largest)
        self._keep_with_readers()

    def apply(self) -> None:
        """Type the graph."""
        float_outputs = [value.dtype == FLOAT for value in self._graph.outputs]
        if self._half_io:
            for value in self._graph.inputs:
                self._halve(value)
        for node in list(self._graph):
            self._type_node(node, self._plan[node])
        for index, was_float in enumerate(float_outputs):
            if was_float:
                self._type_output(index)
        self._drop_void_casts()

    def _planned(self, keep: Mapping[str, str], largest: Mapping[str, float]) -> dict[ir.Node, Ports]:
        """The FP16 ports of every node; none where it stays in FP32, which is then noted with the reason."""
        own = {node: self._own(node, keep, largest) for node in self._graph}
        lost = [node for node, (_, cause) in own.items() if cause == "lost"]
        beyond = [node for node, (_, cause) in own.items() if cause == "beyond"]
        together = chained(self._graph, lost, beyond)
        plan = {}
        for node, (ports, _) in own.items():
            found = together.get(node, ports) if isinstance(ports, Ports) and (ports.inputs or ports.outputs) else ports
            if isinstance(found, Ports):
                self.nodes += bool(found.inputs or found.outputs)
                plan[node] = found
            else:
                self.kept.append((node, found))
                plan[node] = Ports(frozenset(), frozenset())
        return plan

    def _own(self, node: ir.Node, keep: Mapping[str, str], largest: Mapping[str, float]) -> tuple[Ports | str, str]:
        """The FP16 ports of a node or why it has none, and whether a constant was the cause: lost or beyond."""
        if not any(v is not None and v.dtype in (FLOAT, None) for v in (*node.inputs, *node.outputs)):
            return Ports(frozenset(), frozenset()), ""
        if reason := unheld(node, largest):
            return keep.get(node.name or "", reason), "beyond"
        ports = half_ports(node, self._graph.opset_imports.get("", 1))
        reason, cause = self._unfit_weight(node, ports) if isinstance(ports, Ports) else (None, "")
        return keep.get(node.name or "") or reason or ports, cause

    def _keep_with_readers(self) -> None:
        """Leave a DequantizeLinear in FP32 that only nodes in FP32 read.

        In FP16 it would cut what it makes to FP16's range, and the Cast behind it would part it from its reader, with
        which TensorRT computes it.
        """
        for node, ports in self._plan.items():
            if node.op_type == "DequantizeLinear" and ports.outputs and not node.outputs[0].is_graph_output():
                uses = node.outputs[0].uses()
                if all(user in self._plan and index not in self._plan[user].inputs for user, index in uses):
                    self._plan[node] = Ports(frozenset(), frozenset())
                    self.nodes -= 1

    def _unfit_weight(self, node: ir.Node, ports: Ports) -> tuple[str | None, str]:
        """Why a weight of the node cannot be FP16: beyond its range, or lost below its smallest normal number."""
        for index in sorted(ports.inputs):
            value = node.inputs[index]
            if value is None or not _is_weight(value) or value.const_value is None:
                continue
            array = value.const_value.numpy()
            beyond = np.isfinite(array) & (np.abs(array) > LARGEST)
            if beyond.any():
                self.overflowing += int(beyond.sum())
                worst = float(np.abs(array[beyond]).max())
                return f"weight '{value.name}' holds {worst:.4g}, beyond FP16's {LARGEST:.0f}", "beyond"
            if (lost := _rounding_error(array)) > _LARGEST_LOSS:
                reason = (
                    f"weight '{value.name}' falls below FP16's smallest normal number {_SMALLEST_NORMAL:.2g}: rounding "
                    f"would change it by {100 * lost:.2g} %"
                )
                return reason, "lost"
        return None, ""

    def _type_node(self, node: ir.Node, ports: Ports) -> None:
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            wanted = HALF if index in ports.inputs else FLOAT
            if value.dtype != wanted and (wanted == HALF or value in self._halved):
                node.replace_input_with(index, self._version(value, wanted))
        for index in ports.outputs:
            output = node.outputs[index]
            self._halve(output)
            for user, position in tuple(output.uses()):
                if user.graph is not self._graph:  # a subgraph reads it, and subgraphs stay in FP32
                    user.replace_input_with(position, self._version(output, FLOAT))
            _retype_attribute(node)

    def _halve(self, value: ir.Value) -> None:
        if value.dtype == FLOAT:
            value.dtype = HALF
            self._halved.add(value)

    def _version(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``value`` in the other type: a converted weight, or a Cast shared by everyone who needs it."""
        if (value, dtype) not in self._versions:
            make: Callable[[ir.Value, ir.DataType], ir.Value] = self._cast
            if _is_weight(value):
                make = self._weight
            self._versions[value, dtype] = make(value, dtype)
        return self._versions[value, dtype]

    def _weight(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The FP16 form of an FP32 weight. It takes over the name unless someone still needs the FP32 form."""
        assert value.const_value is not None and dtype == HALF
        array = value.const_value.numpy()
        half = array.astype(np.float16)
        magnitude = np.abs(half[np.isfinite(half)])
        self.weights += array.size
        self.underflowed += int(((half == 0) & (array != 0)).sum())
        self.subnormal += int(((magnitude > 0) & (magnitude < _SMALLEST_NORMAL)).sum())
        self.largest_weight = max(self.largest_weight, float(magnitude.max(initial=0)))
        name = value.name or ""
        if all(user in self._plan and index in self._plan[user].inputs for user, index in value.uses()):
            del self._graph.initializers[name]
        else:
            name = self._names.unused(f"{name}_fp16")
        return add_initializer(self._graph, name, half)

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        maker = value.producer()
        suffix = "fp16" if dtype == HALF else "fp32"
        cast = ir.node(
            "Cast",
            [value],
            {"to": dtype.value},
            name=self._names.unused(f"{value.name}_to_{suffix}"),
            outputs=[
                ir.Value(
                    name=self._names.unused(f"{value.name}_{suffix}"), shape=value.shape, type=ir.TensorType(dtype)
                )
            ],
            metadata_props=dict(maker.metadata_props) if maker else None,
        )
        if maker is None or maker.graph is not self._graph:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(maker, cast)
        self.casts += 1
        return cast.outputs[0]

    def _type_output(self, index: int) -> None:
        """Give a network output its type back, under its own name."""
        value, wanted = self._graph.outputs[index], HALF if self._half_io else FLOAT
        if value.dtype == wanted:
            return
        typed, name = self._version(value, wanted), value.name
        value.name = self._names.unused(f"{name}_{'fp16' if value.dtype == HALF else 'fp32'}")
        typed.name = name
        self._graph.outputs[index] = typed

    def _drop_void_casts(self) -> None:
        """Remove casts of the original graph that have become casts to the type they read."""
        for node in list(self._graph):
            source, out = (node.inputs[0], node.outputs[0]) if node.op_type == "Cast" else (None, None)
            if source is None or out is None or source.dtype != out.dtype or out.is_graph_output():
                continue
            out.replace_all_uses_with(source)
            self._graph.remove(node, safe=True)


def _is_weight(value: ir.Value) -> bool:
    """Whether a value is a constant that nobody outside can see or replace."""
    return value.is_initializer() and not value.is_graph_input() and not value.is_graph_output()


def _rounding_error(array: np.ndarray) -> float:
    """Root-mean-square change of a weight by rounding to FP16, relative to its root mean square."""
    finite = array[np.isfinite(array)].astype(np.float64)
    size = float(np.sqrt((finite**2).sum()))
    change = finite - finite.astype(np.float16)
    return float(np.sqrt((change**2).sum())) / size if size else 0.0


def _retype_attribute(node: ir.Node) -> None:
    """Change the attribute in which Cast and ConstantOfShape name their output type."""
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", HALF.value)
    elif node.op_type == "ConstantOfShape":
        value = node.attributes.get("value")
        array = value.as_tensor().numpy() if value is not None else np.zeros(1)
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array.astype(np.float16)))
