"""Where two graphs of the same network can be compared: tensors that leave a module and exist in both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from csa_deploy.graph.extract import module_paths
from csa_deploy.graph.shapes import editable, infer_shapes, static_shape

OUTSIDE = "(no module)"
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclass(frozen=True)
class Boundary:
    """A tensor that leaves a module.

    Attributes:
        tensor: its name in both graphs.
        module: path of the PyTorch module that makes it, such as ``stages.0.1.q``; the node's name in a graph that
            names no modules.
        before: tensors of the same kind that it is computed from.
        bytes: its size in FP32.
    """

    tensor: str
    module: str
    before: tuple[str, ...]
    bytes: int


def view_of(model: onnx.ModelProto) -> ir.Model:
    """The graph with shapes and types, to read or to rewrite; ``model`` stays as it is."""
    view = editable(model)
    infer_shapes(view)
    return view


def modules_of(model: onnx.ModelProto, depth: int | None = None) -> dict[str, str]:
    """Per node name the innermost module around it, at most ``depth`` modules deep."""
    paths = module_paths(model)
    named = any(paths.values())
    found = {}
    for node in model.graph.node:
        around = paths.get(node.name, [])[:depth]
        found[node.name] = around[-1] if around else (OUTSIDE if named else node.name or node.op_type)
    return found


def boundaries(reference: ir.Model, modules: dict[str, str], candidate: ir.Model) -> list[Boundary]:
    """Tensors of the reference that leave a module and that the candidate has too, in the order of execution."""
    known = {v.name for v in values_of(candidate) if v.dtype in _FLOATS}
    cut: dict[str, ir.Node] = {}
    for node in reference.graph:
        for value in node.outputs:
            readers = {modules.get(user.name or "") for user, _ in value.uses()}
            leaves = value.is_graph_output() or readers - {modules.get(node.name or "")}
            if leaves and value.name in known and value.dtype in _FLOATS:
                cut[str(value.name)] = node
    return [_boundary(name, node, modules, set(cut)) for name, node in cut.items()]


def _boundary(tensor: str, node: ir.Node, modules: dict[str, str], cut: set[str]) -> Boundary:
    value = next(v for v in node.outputs if v.name == tensor)
    size = 4
    for extent in static_shape(value) or ():
        size *= extent
    return Boundary(tensor, modules.get(node.name or "", OUTSIDE), tuple(sorted(_sources(node, cut))), size)


def _sources(node: ir.Node, cut: set[str]) -> set[str]:
    """The nearest boundaries that a node's inputs come from."""
    found: set[str] = set()
    waiting, seen = [v for v in node.inputs if v is not None], set()
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        maker = value.producer()
        if value.name in cut:
            found.add(str(value.name))
        elif maker is not None:
            waiting += [v for v in maker.inputs if v is not None]
    return found


def values_of(model: ir.Model) -> Iterator[ir.Value]:
    """Values that nodes of the main graph make."""
    for node in model.graph:
        yield from node.outputs


def within(bounds: Iterable[Boundary], cap: int) -> bool:
    """Whether all boundary tensors of one sample fit into ``cap`` bytes, three times: two graphs and one apart."""
    return 3 * sum(b.bytes for b in bounds) <= cap
