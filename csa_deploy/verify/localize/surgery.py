"""Edits that localisation needs: tensors made visible, modules set apart, modules restored to the reference."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from csa_deploy.graph.facts import add_initializer, weight_array
from csa_deploy.verify.localize.boundaries import values_of, view_of

CLEAN = "__clean"


def expose(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """The graph with inner tensors as further outputs."""
    view = view_of(model)
    made = {value.name: value for value in values_of(view)}
    for name in tensors:
        if name in made and not made[name].is_graph_output():
            view.graph.outputs.append(made[name])
    return ir.to_proto(view)


def set_apart(model: onnx.ModelProto, tensors: Collection[str]) -> onnx.ModelProto:
    """The graph cut at ``tensors``: each is an output, and its readers read an input ``<tensor>__clean`` instead.

    Fed with the reference's values, each part between two cuts shows the error that it adds by itself.
    """
    view = view_of(model)
    for value in list(values_of(view)):
        if value.name not in tensors:
            continue
        readers = tuple(value.uses())
        if readers:
            clean = ir.Value(name=f"{value.name}{CLEAN}", shape=value.shape, type=value.type)
            view.graph.inputs.append(clean)
            for reader, index in readers:
                reader.replace_input_with(index, clean)
        if not value.is_graph_output():
            view.graph.outputs.append(value)
    return ir.to_proto(view)


def restore(
    candidate: onnx.ModelProto, reference: onnx.ModelProto, modules: dict[str, str], wanted: Collection[str]
) -> onnx.ModelProto:
    """The candidate with some modules computed as the reference computes them, casts at their borders.

    Strongly typed graphs need no flag for this: the precision stands in the graph.

    Args:
        candidate: a typed graph.
        reference: a graph of the same network whose tensors have the same names.
        modules: module of each node of the reference, by node name.
        wanted: the modules to restore.
    """
    return _Restoration(view_of(candidate), view_of(reference)).apply(modules, wanted)


class _Restoration:
    def __init__(self, target: ir.Model, source: ir.Model) -> None:
        self.target, self.source = target, source
        self.have = {v.name: v for v in (*target.graph.inputs, *values_of(target))}
        self.copies: dict[ir.Value, ir.Value] = {}
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.added: list[ir.Node] = []

    def apply(self, modules: dict[str, str], wanted: Collection[str]) -> onnx.ModelProto:
        group = self._closed({n for n in self.source.graph if modules.get(n.name or "") in wanted})
        for node in self.source.graph:
            if node in group:
                self._copy(node, group)
        for node in self.source.graph:
            for value in node.outputs if node in group else ():
                if value.name in self.have and self._leaves(value, group):
                    self._take_over(value)
        self.target.graph.extend(self.added)
        self.target.graph.sort()
        RemoveUnusedNodesPass()(self.target)
        return ir.to_proto(self.target)

    def _closed(self, group: set[ir.Node]) -> set[ir.Node]:
        """The group with the neighbours that share a tensor with it which the candidate does not have."""
        waiting = list(group)
        while waiting:
            node = waiting.pop()
            near = {v.producer() for v in node.inputs if v is not None and v.name not in self.have}
            near |= {user for v in node.outputs if v.name not in self.have for user, _ in v.uses()}
            fresh = {n for n in near if n is not None} - group
            group |= fresh
            waiting += fresh
        return group

    @staticmethod
    def _leaves(value: ir.Value, group: set[ir.Node]) -> bool:
        return value.is_graph_output() or any(user not in group for user, _ in value.uses())

    def _copy(self, node: ir.Node, group: set[ir.Node]) -> None:
        inputs = [None if v is None else self._input(v, group) for v in node.inputs]
        outputs = [ir.Value(name=f"{v.name}__restored", shape=v.shape, type=v.type) for v in node.outputs]
        self.copies.update(zip(node.outputs, outputs, strict=True))
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            outputs=outputs,
            name=f"{node.name}__restored",
            metadata_props=dict(node.metadata_props),
        )
        self.added.append(copy)

    def _input(self, value: ir.Value, group: set[ir.Node]) -> ir.Value:
        if value in self.copies:
            return self.copies[value]
        if value.is_initializer():
            self.copies[value] = add_initializer(
                self.target.graph, f"{value.name}__restored", weight_array(value), value.dtype
            )
            return self.copies[value]
        return self._cast(self.have[value.name], value.dtype)

    def _cast(self, value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
        if dtype is None or value.dtype == dtype:
            return value
        if (value, dtype) not in self.casts:
            output = ir.Value(name=f"{value.name}__as_{dtype.name}", shape=value.shape, type=ir.TensorType(dtype))
            self.added.append(ir.node("Cast", [value], {"to": dtype.value}, name=output.name, outputs=[output]))
            self.casts[value, dtype] = output
        return self.casts[value, dtype]

    def _take_over(self, value: ir.Value) -> None:
        """Let the candidate's readers of a tensor read the restored one."""
        old = self.have[value.name]
        own = {id(node) for node in self.added}
        new = self._cast(self.copies[value], old.dtype)
        for reader, index in tuple(old.uses()):
            if id(reader) not in own:
                reader.replace_input_with(index, new)
        if old.is_graph_output():
            position = next(i for i, v in enumerate(self.target.graph.outputs) if v is old)
            name, old.name = old.name, f"{old.name}__replaced"
            new.name = name
            self.target.graph.outputs[position] = new
