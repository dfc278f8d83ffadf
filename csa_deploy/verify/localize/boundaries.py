"""Where two graphs of the same network can be compared: tensors that leave a module and exist in both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
import onnx_ir as ir

from csa_deploy.graph.scopes import module_paths
from csa_deploy.graph.shapes import editable, infer_shapes, static_shape

_OUTSIDE = "(no module)"
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
        found[node.name] = around[-1] if around else (_OUTSIDE if named else node.name or node.op_type)
    return found


def boundaries(
    reference: ir.Model, modules: dict[str, str], candidate: ir.Model, survivors: Collection[str] | None = None
) -> list[Boundary]:
    """Tensors of the reference that leave a module and that the candidate has too, in the order of execution.

    Args:
        reference: from :func:`view_of`.
        modules: module by node name.
        candidate: from :func:`view_of`.
        survivors: tensors between the layers of an engine, where only those exist; outputs of the graph always do.
    """
    known = {v.name for v in values_of(candidate) if v.dtype in _FLOATS}
    if survivors is not None:
        known &= {*survivors, *(v.name for v in reference.graph.outputs)}
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
    return Boundary(tensor, modules.get(node.name or "", _OUTSIDE), tuple(sorted(_sources(node, cut))), size)


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


def regions(reference: ir.Model, modules: dict[str, str], bounds: Iterable[Boundary]) -> dict[str, str]:
    """Per node name the part of the graph that ends at the next boundary, named by its first and last module.

    Where not every module ends at a boundary, modules can only be told apart as far as the boundaries do.
    """
    cut = {b.tensor for b in bounds}
    ends: dict[ir.Node, str] = {}
    for node in reversed(list(reference.graph)):
        own = [str(v.name) for v in node.outputs if v.name in cut]
        readers = [ends[user] for v in node.outputs for user, _ in v.uses() if user in ends]
        ends[node] = next(iter(own + readers), _OUTSIDE)
    spans: dict[str, list[str]] = {}
    for node in reference.graph:
        spans.setdefault(ends[node], []).append(modules.get(node.name or "", _OUTSIDE))
    names = {end: own[-1] if len(set(own)) == 1 else f"{own[0]} .. {own[-1]}" for end, own in spans.items()}
    return {str(node.name): names[end] for node, end in ends.items()}


def renamed(bounds: Iterable[Boundary], reference: ir.Model, modules: Mapping[str, str]) -> list[Boundary]:
    """The boundaries with the modules that another division of the graph gives them."""
    makers = {str(v.name): str(node.name) for node in reference.graph for v in node.outputs}
    return [replace(b, module=modules[makers[b.tensor]]) for b in bounds]


def needed(own: Sequence[Boundary], all_: Iterable[Boundary]) -> list[Boundary]:
    """Some boundaries and those that they are computed from, in the order of execution."""
    wanted = {b.tensor for b in own} | {t for b in own for t in b.before}
    return [b for b in all_ if b.tensor in wanted]


def within(bounds: Iterable[Boundary], cap: int) -> bool:
    """Whether all boundary tensors of one batch fit into ``cap`` bytes, three times: two graphs and one apart."""
    return 3 * sum(b.bytes for b in bounds) <= cap


def passes(bounds: Sequence[Boundary], cap: int) -> list[list[Boundary]]:
    """The boundaries in groups, each of which fits into ``cap`` bytes with what it is computed from.

    A boundary that does not fit by itself makes a group of its own.
    """
    found: list[list[Boundary]] = []
    for bound in bounds:
        if found and within(needed([*found[-1], bound], bounds), cap):
            found[-1].append(bound)
        else:
            found.append([bound])
    return found
